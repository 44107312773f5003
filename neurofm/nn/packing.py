"""Windows of different numbers of sites side by side, without padding between them.

B windows, S sites of the widest, N sites of all together, P patches, D width, H heads, E features
of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neurofm.nn.packed_kernels import PackName, flex, kernel_for, varlen

Mix = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Packing:
    """Where each site of a pack comes from.

    Attributes
    ----------
    index : Tensor of int64, shape (N,)
        Its number, counted along (B, S).
    window : Tensor of int64, shape (N,)
        Its window.
    buckets : tuple of (int, int)
        Windows of one number of sites each, which lie one after the other: how many, and of how
        many sites.
    n_windows : int
        B.
    by : "auto", "varlen", "flex" or "calls"
        What keeps windows apart: flash attention of varying lengths, FlexAttention with a
        block-diagonal mask, or a call for each bucket; see `packed_kernels.kernel_for`.
    """

    index: Tensor
    window: Tensor
    buckets: tuple[tuple[int, int], ...]
    n_windows: int
    by: PackName = "auto"
    _masks: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, present: Tensor, by: PackName = "auto") -> Packing | None:
        """Pack the sites of a grid that are present.

        Parameters
        ----------
        present : Tensor of bool, shape (B, S, P)
            Which tokens are.
        by : str
            What is to keep windows apart.

        Returns
        -------
        Packing or None
            None where a site is present in some of its patches only: that takes a mask.
        """
        sites = present.any(-1)
        if not bool((present.all(-1) == sites).all()):
            return None
        counts, order = torch.sort(sites.sum(-1), stable=True)
        row, site = sites[order].nonzero().unbind(-1)
        window = order[row]
        sizes, n_each = torch.unique_consecutive(counts, return_counts=True)
        buckets = zip(n_each.tolist(), sizes.tolist(), strict=True)
        return cls(
            index=window * present.shape[1] + site,
            window=window,
            buckets=tuple((n, size) for n, size in buckets if size),
            n_windows=present.shape[0],
            by=by,
        )

    def take(self, x: Tensor) -> Tensor:
        """Return tokens (B, S, P, D) as a pack (1, N, P, D)."""
        return x.flatten(0, 1)[self.index][None]

    def put(self, packed: Tensor, like: Tensor) -> Tensor:
        """Return a pack (1, N, P, D) as tokens, shape of `like` (B, S, P, D); others are zero."""
        whole = packed.new_zeros(like.shape).flatten(0, 1)
        return whole.index_copy(0, self.index, packed[0]).reshape(like.shape)

    def each(self, mix: Mix, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix the tokens (1, N, P, H, E) of each window by themselves, a bucket at a time."""
        found, start = [], 0
        for n, size in self.buckets:
            stop = start + n * size
            bucket = (t[0, start:stop].unflatten(0, (n, size)) for t in (q, k, v))
            found.append(mix(*bucket, None).flatten(0, 1))
            start = stop
        return torch.cat(found)[None] if found else v

    def sites(self, mix: Mix, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Let sites of one window and patch attend to each other, all (1, N, P, H, E).

        `mix` is what does it where each bucket is a call of its own.
        """
        kernel = self._kernel(q, causal=False)
        if kernel == "calls":
            return self.each(mix, q, k, v)
        q, k, v = (t[0].to(v.dtype).transpose(0, 1) for t in (q, k, v))  # (P, N, H, E)
        if kernel == "varlen":
            edges, longest = self._edges(n_rows=q.shape[0], n_each=1)
            found = varlen(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), edges, longest)
            return found.unflatten(0, q.shape[:2]).transpose(0, 1)[None]
        window = self.window

        def same(_: Any, __: Any, query: Tensor, key: Tensor) -> Tensor:
            return window[query] == window[key]

        mask = self._mask("sites", same, len(window))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        found = flex(q, k, v, mask)  # (P, H, N, E)
        return found.permute(2, 0, 1, 3)[None]

    def all(self, mix: Mix, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        """Let tokens of one window attend to each other; as `sites`."""
        kernel = self._kernel(q, causal=causal)
        if kernel == "calls":
            return self.each(mix, q, k, v)
        n_patches = q.shape[2]
        q, k, v = (t[0].to(v.dtype).flatten(0, 1) for t in (q, k, v))  # (N P, H, E)
        if kernel == "varlen":
            edges, longest = self._edges(n_rows=1, n_each=n_patches)
            return varlen(q, k, v, edges, longest).unflatten(0, (-1, n_patches))[None]
        window, patch = self.window.repeat_interleave(n_patches), None
        if causal:
            patch = torch.arange(n_patches, device=q.device).repeat(len(self.window))

        def same(_: Any, __: Any, query: Tensor, key: Tensor) -> Tensor:
            sees = window[query] == window[key]
            return sees if patch is None else sees & (patch[query] >= patch[key])

        mask = self._mask(("all", n_patches, causal), same, len(window))
        q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
        found = flex(q, k, v, mask)  # (1, H, N P, E)
        return found.transpose(1, 2).unflatten(1, (-1, n_patches))

    def _kernel(self, q: Tensor, *, causal: bool) -> str:
        return kernel_for(self.by, q, causal=causal) if len(self.index) else "calls"

    def _edges(self, *, n_rows: int, n_each: int) -> tuple[Tensor, int]:
        """Return where windows of `n_each` tokens a site begin and end, in so many rows."""
        name = ("edges", n_rows, n_each)
        if name not in self._masks:
            sizes = [size * n_each for n, size in self.buckets for _ in range(n)] * n_rows
            edges = torch.tensor([0, *sizes]).cumsum(0).to(self.window.device, torch.int32)
            self._masks[name] = edges, max(sizes)
        found: tuple[Tensor, int] = self._masks[name]
        return found

    def _mask(self, name: Any, same: Callable[..., Tensor], n_tokens: int) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        if name not in self._masks:
            device = self.window.device.type
            self._masks[name] = create_block_mask(same, None, None, n_tokens, n_tokens, device)
        return self._masks[name]

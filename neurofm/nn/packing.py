"""Windows of different numbers of sites side by side, without padding between them.

B windows, S sites of the widest, N sites of all together, P patches, D width, H heads, E features
of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

Mix = Callable[..., Tensor]
NARROWEST = 16  # features of a head that FlexAttention takes


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
    fused : bool
        Whether windows are kept apart by a block-diagonal mask in one call of FlexAttention;
        otherwise each bucket is a call of its own.
    """

    index: Tensor
    window: Tensor
    buckets: tuple[tuple[int, int], ...]
    n_windows: int
    fused: bool
    _masks: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, present: Tensor) -> Packing | None:
        """Pack the sites of a grid that are present.

        Parameters
        ----------
        present : Tensor of bool, shape (B, S, P)
            Which tokens are.

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
            fused=present.is_cuda,
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

    def fuses(self, q: Tensor) -> bool:
        """Tell whether `sites` and `all` can do it at once."""
        return self.fused and q.shape[-1] >= NARROWEST and len(self.index) > 0

    def sites(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Let sites of one window and patch attend to each other, all (1, N, P, H, E)."""
        q, k, v = (t[0].permute(1, 2, 0, 3) for t in (q, k, v))  # (P, H, N, E)
        window = self.window

        def same(_: Any, __: Any, query: Tensor, key: Tensor) -> Tensor:
            return window[query] == window[key]

        return _flex()(q, k, v, self._mask("sites", same, len(window))).permute(2, 0, 1, 3)[None]

    def all(self, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        """Let tokens of one window attend to each other, all (1, N, P, H, E)."""
        n_patches = q.shape[2]
        window, patch = self.window.repeat_interleave(n_patches), None
        if causal:
            patch = torch.arange(n_patches, device=q.device).repeat(len(self.window))

        def same(_: Any, __: Any, query: Tensor, key: Tensor) -> Tensor:
            sees = window[query] == window[key]
            return sees if patch is None else sees & (patch[query] >= patch[key])

        mask = self._mask(("all", n_patches, causal), same, len(window))
        q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))  # (1, H, N P, E)
        return _flex()(q, k, v, mask).transpose(1, 2).unflatten(1, (-1, n_patches))

    def _mask(self, name: Any, same: Callable[..., Tensor], n_tokens: int) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        if name not in self._masks:
            device = self.window.device.type
            self._masks[name] = create_block_mask(same, None, None, n_tokens, n_tokens, device)
        return self._masks[name]


@cache
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled


def _flex() -> Callable[[Tensor, Tensor, Tensor, Any], Tensor]:
    """Return FlexAttention, compiled: only then it skips blocks of two windows."""

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        return _compiled()(q, k, v, block_mask=mask)

    return run

"""Self-attention over a grid of sites and patches, blind to padding.

B windows, S sites, P patches, D width, H heads, E features of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.errors import ConfigError
from neurofm.nn.heads import require_heads
from neurofm.nn.memory import Memory
from neurofm.nn.norm import NormName, build_norm
from neurofm.nn.packing import Packing
from neurofm.nn.rotary import Turn, rotate

AttentionName = Literal["full", "criss_cross", "split_halves", "swapped_halves", "sites", "patches"]
Presence = Tensor | Packing | None  # which tokens are, or how those that are were packed


def attend(
    q: Tensor, k: Tensor, v: Tensor, present: Tensor | None, mask: Tensor | None = None
) -> Tensor:
    """Attend to the keys that are present.

    Parameters
    ----------
    q : Tensor, shape (N, H, n_queries, E)
        Queries.
    k, v : Tensor, shape (N, H, n_keys, E)
        Keys and values.
    present : Tensor of bool, shape (N, n_keys), or None
        False where a key is padding. None says that all are present, which lets torch
        take its fastest kernel.
    mask : Tensor of bool, shape (n_queries, n_keys), optional
        False where a query may not look; every query may look somewhere.

    Returns
    -------
    Tensor, shape (N, H, n_queries, E)
        Zeros in rows without any present key.
    """
    if present is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    seen = present[:, None, None]
    if mask is not None:
        seen = seen & mask
    some = seen.any(-1, keepdim=True)
    # a softmax over no key at all is NaN in some kernels and versions of torch, and so is its
    # gradient: such rows see every key instead
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen | ~some)
    return out.masked_fill(~some, 0.0)


def mix_all(q: Tensor, k: Tensor, v: Tensor, present: Presence, causal: bool = False) -> Tensor:
    """Let every token of a window attend to every other, all of shape (B, S, P, H, E).

    With `causal`, only to those of its own patch and of earlier ones. Keys and values may be of
    more patches than queries, which then are the last.
    """
    if isinstance(present, Packing):
        if present.fuses(q):
            return present.all(q, k, v, causal)
        return present.each(partial(mix_all, causal=causal), q, k, v)
    n_sites, n_patches = q.shape[1:3]
    mask = None
    if causal:
        seen = torch.arange(k.shape[2], device=q.device)
        mask = seen[-n_patches:].repeat(n_sites)[:, None] >= seen.repeat(n_sites)
    q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))  # (B, H, S P, E)
    out = attend(q, k, v, None if present is None else present.flatten(1), mask)
    return out.transpose(1, 2).unflatten(1, (n_sites, n_patches))


def mix_sites(q: Tensor, k: Tensor, v: Tensor, present: Presence) -> Tensor:
    """Let the tokens of one patch attend to each other, all of shape (B, S, P, H, E)."""
    if isinstance(present, Packing):
        return present.sites(q, k, v) if present.fuses(q) else present.each(mix_sites, q, k, v)
    n_windows, _, n_patches = q.shape[:3]
    q, k, v = (t.permute(0, 2, 3, 1, 4).flatten(0, 1) for t in (q, k, v))  # (B P, H, S, E)
    here = None if present is None else present.transpose(1, 2).flatten(0, 1)
    out = attend(q, k, v, here)
    return out.unflatten(0, (n_windows, n_patches)).permute(0, 3, 1, 2, 4)


def mix_patches(q: Tensor, k: Tensor, v: Tensor, present: Presence, causal: bool = False) -> Tensor:
    """Let the tokens of one site attend to each other, all of shape (B, S, P, H, E).

    Keys and values may be of more patches than queries, which then are the last.
    """
    n_windows, n_sites, n_patches = q.shape[:3]
    mask = None
    if causal:
        n_seen = k.shape[2]
        mask = q.new_ones((n_patches, n_seen), dtype=torch.bool).tril(n_seen - n_patches)
    q, k, v = (t.transpose(2, 3).flatten(0, 1) for t in (q, k, v))  # (B S, H, P, E)
    out = attend(q, k, v, present.flatten(0, 1) if isinstance(present, Tensor) else None, mask)
    return out.unflatten(0, (n_windows, n_sites)).transpose(2, 3)


@dataclass(frozen=True, kw_only=True)
class AttentionStyle:
    """What distinguishes one published attention from another.

    Attributes
    ----------
    bias, out_bias : bool
        Offsets of queries, keys and values; of the output.
    head_width : int, optional
        Features of a head; by default the width is shared among heads.
    qk_norm : "layer" or "rms", optional
        Normalise queries and keys head by head (Dehghani et al. 2023).
    norm_eps : float, optional
        Of that norm.
    causal : bool
        Look at this patch and earlier ones only.
    """

    bias: bool = True
    out_bias: bool = True
    head_width: int | None = None
    qk_norm: NormName | None = None
    norm_eps: float | None = None
    causal: bool = False


class GridAttention(nn.Module):
    """Projections that every attention over a grid shares.

    Parameters
    ----------
    width : int
        D.
    n_heads : int
        H; divides `width`, unless the style gives heads a width of their own.
    style : AttentionStyle, optional
        Biases, norms, causality.
    """

    def __init__(self, width: int, n_heads: int, style: AttentionStyle | None = None):
        super().__init__()
        style = style or AttentionStyle()
        self.n_heads = n_heads
        self.causal = style.causal
        head_width = style.head_width or require_heads(width, n_heads)
        inner = n_heads * head_width
        self.project_in = nn.Linear(width, 3 * inner, bias=style.bias)
        self.project_out = nn.Linear(inner, width, bias=style.out_bias)
        self.norm_q = self.norm_k = None
        if style.qk_norm is not None:
            self.norm_q = build_norm(style.qk_norm, head_width, style.norm_eps)
            self.norm_k = build_norm(style.qk_norm, head_width, style.norm_eps)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each of shape (B, S, P, H, E)."""
        q, k, v = self.project_in(x).unflatten(-1, (3, self.n_heads, -1)).unbind(-3)
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        return q, k, v

    def through_time(
        self,
        mix: Callable[..., Tensor],
        qkv: tuple[Tensor, Tensor, Tensor],
        present: Presence,
        turn: Turn | None,
        past: Memory | None,
    ) -> Tensor:
        """Mix tokens that know their time, after those of the past."""
        q, k, v = qkv
        q, k = rotate(q, turn), rotate(k, turn)
        if past is not None and isinstance(present, Tensor):
            k, v, present = past.add(k, v, present)
        return mix(q, k, v, present, self.causal)


class FullAttention(GridAttention):
    """Every token attends to every token of its window."""

    def forward(
        self, x: Tensor, present: Presence, turn: Turn | None, past: Memory | None = None
    ) -> Tensor:
        """Mix tokens.

        Parameters
        ----------
        x : Tensor, shape (B, S, P, D)
            Tokens.
        present : Tensor of bool, shape (B, S, P), Packing or None
            False where a token is padding. A packing says which of the sites of x, (1, N, P, D),
            are of one window.
        turn : tuple of Tensor, or None
            What `Rotary` returns for P patches.
        past : Memory, optional
            Patches before these, which causal attention also looks at; it remembers these as
            well. It goes with a `present` that is a tensor.

        Returns
        -------
        Tensor, shape (B, S, P, D)
            What each token gathered.
        """
        out = self.through_time(mix_all, self.heads(x), present, turn, past)
        return self.project_out(out.flatten(-2))

    def some(self, x: Tensor, others: Tensor) -> Tensor:
        """Return what some tokens (N, n, D) gather of all tokens (N, m, D) of their window."""
        inner = self.project_in.out_features // 3
        weight, bias = self.project_in.weight, self.project_in.bias
        q = F.linear(x, weight[:inner], None if bias is None else bias[:inner])
        kv = F.linear(others, weight[inner:], None if bias is None else bias[inner:])
        q = q.unflatten(-1, (self.n_heads, -1))
        k, v = kv.unflatten(-1, (2, self.n_heads, -1)).unbind(-3)
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        out = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None)
        return self.project_out(out.transpose(1, 2).flatten(-2))


class SiteAttention(GridAttention):
    """Tokens attend across sites, within their patch."""

    def forward(
        self, x: Tensor, present: Presence, turn: Turn | None, past: Memory | None = None
    ) -> Tensor:
        """Mix tokens; arguments as in `FullAttention.forward`; `turn`, `past` have no effect."""
        q, k, v = self.heads(x)
        return self.project_out(mix_sites(q, k, v, present).flatten(-2))


class PatchAttention(GridAttention):
    """Tokens attend across time, within their site."""

    def forward(
        self, x: Tensor, present: Presence, turn: Turn | None, past: Memory | None = None
    ) -> Tensor:
        """Mix tokens; arguments as in `FullAttention.forward`."""
        out = self.through_time(mix_patches, self.heads(x), present, turn, past)
        return self.project_out(out.flatten(-2))


class CrissCrossAttention(GridAttention):
    """Half of the heads attend across sites, half across time within a site.

    After CBraMod (Wang et al., 2025): the cost grows with S + P a token instead of S P.

    Parameters
    ----------
    width : int
        D.
    n_heads : int
        H; even.
    """

    def __init__(self, width: int, n_heads: int, style: AttentionStyle | None = None):
        _require_even(n_heads, "criss_cross")
        super().__init__(width, n_heads, style)

    def forward(
        self, x: Tensor, present: Presence, turn: Turn | None, past: Memory | None = None
    ) -> Tensor:
        """Mix tokens along both axes; arguments as in `FullAttention.forward`."""
        half = self.n_heads // 2
        q, k, v = self.heads(x)
        space = mix_sites(q[..., :half, :], k[..., :half, :], v[..., :half, :], present)
        rest = q[..., half:, :], k[..., half:, :], v[..., half:, :]
        time = self.through_time(mix_patches, rest, present, turn, past)
        return self.project_out(torch.cat((space, time), dim=-2).flatten(-2))


class SplitHalvesAttention(nn.Module):
    """The first half of the features attends across sites, the second across time.

    As in CBraMod (Wang et al. 2025).

    Parameters
    ----------
    width : int
        D; each half has D / 2.
    n_heads : int
        H; even, half of them for each.
    """

    def __init__(self, width: int, n_heads: int, style: AttentionStyle | None = None):
        super().__init__()
        _require_even(n_heads, "split_halves")
        self.across_sites = SiteAttention(width // 2, n_heads // 2, style)
        self.across_patches = PatchAttention(width // 2, n_heads // 2, style)

    def forward(
        self, x: Tensor, present: Presence, turn: Turn | None, past: Memory | None = None
    ) -> Tensor:
        """Mix tokens along both axes; arguments as in `FullAttention.forward`."""
        space, time = self.halves(x)
        space = self.across_sites(space, present, None)
        return torch.cat((space, self.across_patches(time, present, turn, past)), dim=-1)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features for sites and those for patches, each (B, S, P, D / 2)."""
        space, time = x.chunk(2, dim=-1)
        return space, time


class SwappedHalvesAttention(SplitHalvesAttention):
    """The first half of the features attends across time, and is put last.

    As in BrainOmni (Xiao et al. 2025): what attended across time in one block attends across
    sites in the next.
    """

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features for sites and those for patches, each (B, S, P, D / 2)."""
        time, space = x.chunk(2, dim=-1)
        return space, time


def _require_even(n_heads: int, name: str) -> None:
    if n_heads % 2:
        raise ConfigError(
            f"{name} attention halves its heads, and n_heads is {n_heads}",
            hint=f"set n_heads to {n_heads + 1}, or attention to full",
        )


ATTENTIONS: dict[AttentionName, type[GridAttention] | type[SplitHalvesAttention]] = {
    "full": FullAttention,
    "criss_cross": CrissCrossAttention,
    "split_halves": SplitHalvesAttention,
    "swapped_halves": SwappedHalvesAttention,
    "sites": SiteAttention,
    "patches": PatchAttention,
}

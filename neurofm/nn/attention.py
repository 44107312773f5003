"""Self-attention over a grid of sites and patches, blind to padding.

B windows, S sites, P patches, D width, H heads, E features of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.errors import ConfigError
from neurofm.nn.heads import require_heads
from neurofm.nn.linear_attention import LinearAttention
from neurofm.nn.memory import Memory
from neurofm.nn.mixing import Presence, attend, mix_all, mix_patches, mix_sites
from neurofm.nn.norm import NormName, build_norm
from neurofm.nn.packing import Packing
from neurofm.nn.rotary import Turn, rotate

AttentionName = Literal[
    "full", "criss_cross", "split_halves", "swapped_halves", "sites", "patches", "linear"
]


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


class LinearGridAttention(LinearAttention):
    """Every token reads one matrix of all tokens of its window, as in BIOT (Yang et al. 2023).

    Raises
    ------
    ConfigError
        If the style asks for what such attention cannot do.
    """

    def __init__(self, width: int, n_heads: int, style: AttentionStyle | None = None):
        style = style or AttentionStyle()
        for name in ("causal", "qk_norm", "head_width"):
            if getattr(style, name):
                raise ConfigError(
                    f"linear attention has no {name}, which is {getattr(style, name)}",
                    hint="set attention to full, or leave this out",
                )
        super().__init__(width, n_heads)

    def forward(  # type: ignore[override]
        self, x: Tensor, present: Presence, turn: Turn | None, past: Memory | None = None
    ) -> Tensor:
        """Mix tokens; arguments as in `FullAttention.forward`; `turn`, `past` have no effect."""
        if isinstance(present, Packing):
            return present.each(lambda x, *_: self(x, None, None), x, x, x)
        here = None if present is None else present.flatten(1)
        return super().forward(x.flatten(1, 2), here).unflatten(1, x.shape[1:3])


def _require_even(n_heads: int, name: str) -> None:
    if n_heads % 2:
        raise ConfigError(
            f"{name} attention halves its heads, and n_heads is {n_heads}",
            hint=f"set n_heads to {n_heads + 1}, or attention to full",
        )


ATTENTIONS: dict[
    AttentionName,
    type[GridAttention] | type[SplitHalvesAttention] | type[LinearGridAttention],
] = {
    "full": FullAttention,
    "criss_cross": CrissCrossAttention,
    "split_halves": SplitHalvesAttention,
    "swapped_halves": SwappedHalvesAttention,
    "sites": SiteAttention,
    "patches": PatchAttention,
    "linear": LinearGridAttention,
}

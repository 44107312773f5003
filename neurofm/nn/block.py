"""A transformer block over a grid of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from neurofm.nn.attention import ATTENTIONS, AttentionName, AttentionStyle
from neurofm.nn.feedforward import ActivationName, FeedForward
from neurofm.nn.in_place import add_to
from neurofm.nn.initialise import initialise_linear
from neurofm.nn.memory import Memory
from neurofm.nn.mixing import Presence
from neurofm.nn.norm import NormName, build_norm
from neurofm.nn.packing import Packing
from neurofm.nn.rotary import Turn


@dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """What distinguishes one published block from another.

    Attributes
    ----------
    norm : "layer" or "rms"
        Of what goes into each part, or of what comes out.
    norm_eps : float, optional
        Added to the variance.
    norm_place : "pre" or "post"
        Normalise before each part, or the sum after it.
    attention : AttentionStyle
        Of the attention.
    activation : str
        Of the feed-forward layer.
    bias : bool
        Offsets of the feed-forward layer.
    norm_hidden : bool
        Normalise the bent features of the feed-forward layer, as in LUNA.
    layer_scale : float, optional
        Start value of a learned factor for each feature of what is added.
    dropout : float
        Share of features dropped of what is added, in training.
    drop_path : float
        Share of windows that skip a part, in training.
    """

    norm: NormName = "layer"
    norm_eps: float | None = None
    norm_place: Literal["pre", "post"] = "pre"
    attention: AttentionStyle = AttentionStyle()
    activation: ActivationName = "gelu"
    bias: bool = True
    norm_hidden: bool = False
    layer_scale: float | None = None
    dropout: float = 0.0
    drop_path: float = 0.0


class Block(nn.Module):
    """Attention, then a feed-forward layer, each added to what came in.

    Dropout falls on what is added, not on attention weights, so that training uses the same
    fast attention kernels as inference.

    Parameters
    ----------
    width, n_heads : int
        Features of a token, and heads that share them.
    attention : str
        Which tokens attend to which (`attention.ATTENTIONS`).
    hidden : int
        Hidden features of the feed-forward layer.
    style : BlockStyle
        Norms, activation, dropping and scaling.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        *,
        attention: AttentionName,
        hidden: int,
        style: BlockStyle | None = None,
    ):
        super().__init__()
        style = style or BlockStyle()
        self.style = style
        self.norm_attention = build_norm(style.norm, width, style.norm_eps)
        self.attention = ATTENTIONS[attention](width, n_heads, style.attention)
        self.norm_feedforward = build_norm(style.norm, width, style.norm_eps)
        self.feedforward = FeedForward(
            width,
            hidden,
            style.dropout,
            activation=style.activation,
            bias=style.bias,
            norm=build_norm(style.norm, hidden, style.norm_eps) if style.norm_hidden else None,
        )
        self.dropout = nn.Dropout(style.dropout)
        self.scale_attention = self.scale_feedforward = None
        if style.layer_scale is not None:
            self.scale_attention = nn.Parameter(torch.full((width,), style.layer_scale))
            self.scale_feedforward = nn.Parameter(torch.full((width,), style.layer_scale))

    def forward(
        self, x: Tensor, present: Presence, turn: Turn | None, past: Memory | None = None
    ) -> Tensor:
        """Mix and map tokens; arguments as in `FullAttention.forward`."""
        pack = present if isinstance(present, Packing) else None
        gathered = self.attention(self._before(x), present, turn, past)
        return self._after(x, gathered, pack)

    def some(self, x: Tensor, others: Tensor) -> Tensor:
        """Return what `forward` would for some tokens, without computing the rest.

        Parameters
        ----------
        x : Tensor, shape (N, n, D)
            Some tokens of a window, where attention is full and knows no time.
        others : Tensor, shape (N, m, D)
            All tokens of the window, these among them.

        Returns
        -------
        Tensor, shape (N, n, D)
            These tokens after the block.
        """
        gathered = self.attention.some(self._before(x), self._before(others))  # type: ignore[operator]
        return self._after(x, gathered, None)

    def _before(self, x: Tensor) -> Tensor:
        return x if self.style.norm_place == "post" else self.norm_attention(x)

    def _after(self, x: Tensor, gathered: Tensor, pack: Packing | None) -> Tensor:
        x = x + self._added(gathered, self.scale_attention, pack)
        if self.style.norm_place == "post":
            x = self.norm_attention(x)
            added = self._added(self.feedforward(x), self.scale_feedforward, pack)
            return self.norm_feedforward(x + added)
        mapped = self.feedforward(self.norm_feedforward(x))
        return add_to(x, self._added(mapped, self.scale_feedforward, pack))

    def _added(self, x: Tensor, scale: Tensor | None, pack: Packing | None) -> Tensor:
        if self.style.dropout:
            x = self.dropout(x)
        if scale is not None:
            x = x * scale
        return drop_path(x, self.style.drop_path, pack) if self.training else x

    def initialise(self, depth: int) -> None:
        """Draw weights; what is added to the stream starts smaller the deeper the stack.

        Parameters
        ----------
        depth : int
            Number of blocks in the stack.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                added = name.endswith(("project_out", "feedforward.narrow"))
                initialise_linear(module, math.sqrt(2 * depth) if added else 1.0)


def drop_path(x: Tensor, share: float, pack: Packing | None = None) -> Tensor:
    """Zero what is added for a share of windows, and scale up the others (Huang et al. 2016).

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        What a part of a block adds.
    share : float
        From 0 to below 1.
    pack : Packing, optional
        Which window each site of a pack x (1, N, ...) is of.
    """
    if share == 0:
        return x
    n_windows = x.shape[0] if pack is None else pack.n_windows
    kept = torch.rand((n_windows, *[1] * (x.ndim - 1)), device=x.device) >= share
    if pack is not None:
        kept = kept[pack.window].transpose(0, 1)  # (1, N, ...)
    return x * kept / (1 - share)

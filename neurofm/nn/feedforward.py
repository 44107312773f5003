"""The part of a block that works on one token at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.nn.in_place import gelu, overwritable

ActivationName = Literal["gelu", "relu", "leaky_relu", "selu", "silu", "geglu", "swiglu"]
_BENDS: dict[str, Callable[..., Tensor]] = {
    "gelu": gelu,
    "relu": F.relu,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
    "selu": F.selu,
    "silu": F.silu,
    "geglu": gelu,
    "swiglu": F.silu,
}
GATED = ("geglu", "swiglu")


class FeedForward(nn.Module):
    """Widen, bend, narrow.

    Parameters
    ----------
    width : int
        Features in and out.
    hidden : int
        Features between.
    dropout : float
        Share of hidden features dropped in training.
    activation : str
        How it bends. ``geglu`` and ``swiglu`` multiply one half of twice as many features by
        the bent other half (Shazeer 2020).
    bias : bool
        Whether the linear maps have offsets.
    norm : Module, optional
        Applied to the bent features, as in LUNA.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        dropout: float = 0.0,
        *,
        activation: ActivationName = "gelu",
        bias: bool = True,
        norm: nn.Module | None = None,
    ):
        super().__init__()
        self.gated = activation in GATED
        self.activation = activation
        self.widen = nn.Linear(width, hidden * (2 if self.gated else 1), bias=bias)
        self.norm = norm
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, shape (..., width) to (..., width)."""
        return self.narrow(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Return what `narrow` maps, shape (..., hidden)."""
        bend = _BENDS[self.activation]
        x = self.widen(x)
        inplace = overwritable(x, self.widen)
        if self.gated:
            value, gate = x.chunk(2, dim=-1)
            x = value * bend(gate, inplace=inplace)
        else:
            x = bend(x, inplace=inplace)
        if self.norm is not None:
            x = self.norm(x)
        return self.dropout(x) if self.dropout.p else x

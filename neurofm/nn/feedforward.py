"""The part of a block that works on one token at a time."""

from __future__ import annotations

from torch import Tensor, nn


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
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.widen = nn.Linear(width, hidden)
        self.bend = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens, shape (..., width) to (..., width)."""
        return self.narrow(self.dropout(self.bend(self.widen(x))))

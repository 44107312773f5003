"""Heads: a grid of tokens into class scores."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from neurofm.encoder import Encoder
from neurofm.nn.pool import AttentionPool, MeanPool
from neurofm.signals import Batch, Grid


class LinearHead(nn.Module):
    """Pooling and one linear map.

    Parameters
    ----------
    width : int
        Features of a token, D.
    n_classes : int
        K.
    pool : "mean" or "attention"
        How tokens become one vector.
    dropout : float
        Share of pooled features dropped in training.
    """

    def __init__(
        self, width: int, n_classes: int, *, pool: Literal["mean", "attention"], dropout: float
    ):
        super().__init__()
        self.pool = MeanPool() if pool == "mean" else AttentionPool(width)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, n_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, grid: Grid) -> Tensor:
        """Map a grid of B windows to logits (B, K)."""
        return self.linear(self.dropout(self.pool(grid)))


class Classifier(nn.Module):
    """An encoder and a head.

    Parameters
    ----------
    encoder : Encoder
        From windows to tokens.
    head : LinearHead
        From tokens to logits.
    """

    def __init__(self, encoder: Encoder, head: LinearHead):
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Tensor:
        """Map B windows to logits (B, K)."""
        return self.head(self.encoder(batch))

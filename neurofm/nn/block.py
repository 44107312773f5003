"""A transformer block over a grid, normalised before each part."""

from __future__ import annotations

import math

from torch import Tensor, nn

from neurofm.nn.attention import ATTENTIONS, AttentionName, Turn
from neurofm.nn.feedforward import FeedForward
from neurofm.nn.initialise import initialise_linear


class Block(nn.Module):
    """Attention, then a feed-forward layer, each added to what came in.

    Dropout falls on what is added, not on attention weights, so that training uses the same
    fast attention kernels as inference.

    Parameters
    ----------
    width, n_heads : int
        Features of a token, and heads that share them.
    attention : "full" or "criss_cross"
        Which tokens attend to which.
    hidden : int
        Hidden features of the feed-forward layer.
    dropout : float
        Share of features dropped in training.
    """

    def __init__(
        self, width: int, n_heads: int, *, attention: AttentionName, hidden: int, dropout: float
    ):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = ATTENTIONS[attention](width, n_heads)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor | None, turn: Turn) -> Tensor:
        """Mix and map tokens; arguments as in `FullAttention.forward`."""
        x = x + self.dropout(self.attention(self.norm_attention(x), present, turn))
        return x + self.dropout(self.feedforward(self.norm_feedforward(x)))

    def initialise(self, depth: int) -> None:
        """Draw weights; what is added to the stream starts smaller the deeper the stack.

        Parameters
        ----------
        depth : int
            Number of blocks in the stack.
        """
        added = (self.attention.project_out, self.feedforward.narrow)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                shrink = math.sqrt(2 * depth) if module in added else 1.0
                initialise_linear(module, shrink)

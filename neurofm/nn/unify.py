"""Any number of channels to a few learned queries, as in LUNA (Döner et al., NeurIPS 2025).

N patches, C channels, Q queries, E features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.nn.block import Block
from neurofm.nn.cross_attention import CrossAttention
from neurofm.nn.feedforward import FeedForward

N_BLOCKS = 3


class Unify(nn.Module):
    """Learned queries gather the channels of one patch, and attend to each other.

    Parameters
    ----------
    n_queries, width, n_heads : int
        Q, E, and heads that share E.
    """

    def __init__(self, n_queries: int, width: int, n_heads: int):
        super().__init__()
        hidden = 4 * width
        self.queries = nn.Parameter(0.02 * torch.randn(n_queries, width))
        self.norm_query, self.norm_key, self.norm_value = (nn.LayerNorm(width) for _ in range(3))
        self.cross = CrossAttention(width, n_heads)
        self.feedforward = FeedForward(width, hidden, norm=nn.LayerNorm(hidden))
        self.blocks = nn.ModuleList(
            Block(width, n_heads, attention="full", hidden=hidden) for _ in range(N_BLOCKS)
        )

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Gather.

        Parameters
        ----------
        tokens : Tensor, shape (N, C, E)
            Channels.
        present : Tensor of bool, shape (N, C), optional
            False where a channel is padding.

        Returns
        -------
        Tensor, shape (N, Q, E)
            What each query gathered of the channels, and of the other queries.
        """
        query = self.norm_query(self.queries)[None]
        x = self.cross.normed(query, tokens, self.norm_key, self.norm_value, present)
        x = (x + self.feedforward(x))[:, :, None]  # a grid of one patch
        for block in self.blocks:
            x = block(x, None, None)
        return x[:, :, 0]

    def weights(self, tokens: Tensor) -> Tensor:
        """Return how much each query looks at each channel, (N, Q, C)."""
        query = self.norm_query(self.queries).expand(len(tokens), -1, -1)
        return self.cross.weights(query, self.norm_key(tokens))

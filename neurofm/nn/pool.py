"""Pooling: a grid of tokens into one vector a window; padding has no say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.nn.heads import require_heads
from neurofm.nn.mixing import attend
from neurofm.signals import Grid


class MeanPool(nn.Module):
    """The mean of all tokens that are present; zeros for a window without any."""

    def forward(self, grid: Grid) -> Tensor:
        """Pool a grid of B windows into shape (B, D)."""
        present = grid.present[..., None]
        total = torch.where(present, grid.content, 0.0).sum((1, 2))
        return total / present.sum((1, 2)).clamp_min(1)


class AttentionPool(nn.Module):
    """A learned query a head gathers from the tokens that are present.

    Parameters
    ----------
    width : int
        D.
    n_heads : int
        Number of queries; divides `width`.
    """

    def __init__(self, width: int, n_heads: int = 4):
        super().__init__()
        self.query = nn.Parameter(torch.randn(n_heads, 1, require_heads(width, n_heads)))
        self.keys_values = nn.Linear(width, 2 * width)
        self.project_out = nn.Linear(width, width)

    def forward(self, grid: Grid) -> Tensor:
        """Pool a grid of B windows into shape (B, D)."""
        n_heads = self.query.shape[0]
        x = grid.content.flatten(1, 2)  # (B, S P, D)
        k, v = self.keys_values(x).unflatten(-1, (2, n_heads, -1)).permute(2, 0, 3, 1, 4)
        q = self.query.to(k.dtype).expand(x.shape[0], -1, -1, -1)
        gathered = attend(q, k, v, grid.present.flatten(1))  # (B, H, 1, E)
        return self.project_out(gathered.flatten(1))

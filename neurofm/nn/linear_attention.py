"""Attention whose cost grows with the number of tokens, not with its square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.nn.heads import require_heads


class LinearAttention(nn.Module):
    """Keys and values become one matrix, which every query reads (Shen et al. 2021).

    Queries are soft-maxed over the features of a head, keys over tokens.

    Parameters
    ----------
    width, n_heads : int
        Features of a token, and heads that share them.
    """

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        require_heads(width, n_heads)
        self.n_heads = n_heads
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Mix tokens.

        Parameters
        ----------
        x : Tensor, shape (B, N, D)
            Tokens.
        present : Tensor of bool, shape (B, N), optional
            False where a token is padding.

        Returns
        -------
        Tensor, shape (B, N, D)
            What each token gathered.
        """
        q, k, v = self.project_in(x).unflatten(-1, (3, self.n_heads, -1)).unbind(-3)
        if present is not None:
            k = k.masked_fill(~present[..., None, None], torch.finfo(k.dtype).min)
            v = v.masked_fill(~present[..., None, None], 0.0)
        q = q.softmax(-1) * q.shape[-1] ** -0.5
        context = torch.einsum("bnhd,bnhe->bhde", k.softmax(1), v)
        return self.project_out(torch.einsum("bhde,bnhd->bnhe", context, q).flatten(-2))

"""Attention whose cost grows with the number of tokens, not with its square."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
        if self._few(x.shape[1]):
            return self._by_heads(x, present)
        # what keys gather of tokens is small, so it is what is mapped to values, and further by
        # the map out, head by head; nothing as long as the window is ever rearranged
        n_heads, head_width = self.n_heads, x.shape[-1] // self.n_heads
        for_q, for_k, for_v = self.project_in.weight.chunk(3)
        k = torch.bmm(for_k.expand(x.shape[0], -1, -1), x.transpose(1, 2))  # (B, D, N)
        if present is not None:
            k = k.masked_fill(~present[:, None], torch.finfo(k.dtype).min)
            x = x.masked_fill(~present[..., None], 0.0)
        q = F.linear(x, for_q).unflatten(-1, (n_heads, -1)).softmax(-1).flatten(-2)
        seen = torch.bmm(k.softmax(-1), x).unflatten(1, (n_heads, -1))  # (B, H, E, D)
        values = seen @ for_v.unflatten(0, (n_heads, -1)).transpose(-1, -2)
        out = self.project_out.weight.unflatten(1, (n_heads, -1)).permute(1, 2, 0)  # (H, E, D)
        read = (values * head_width**-0.5 @ out).flatten(1, 2)  # (B, D, D)
        return torch.baddbmm(self.project_out.bias, q, read)

    def _few(self, n_tokens: int) -> bool:
        """Tell whether tokens are fewer than features, beside which matrices are not small."""
        return not torch.compiler.is_exporting() and n_tokens < self.project_out.in_features

    def _by_heads(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Do so as it is written, every token mapped to its query, key and value."""
        qkv = self.project_in(x).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, N, E)
        if present is not None:
            absent = ~present[:, None, :, None]
            k = k.masked_fill(absent, torch.finfo(k.dtype).min)
            v = v.masked_fill(absent, 0.0)
        values = k.softmax(-2).transpose(-1, -2) @ v  # (B, H, E, E)
        out = (q.softmax(-1) * q.shape[-1] ** -0.5) @ values
        return self.project_out(out.transpose(1, 2).flatten(-2))

"""Rotary encoding of time: attention sees how many patches lie between two tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BASE = 1000.0  # the slowest pair of features turns once in about 6 000 patches


class Rotary(nn.Module):
    """Angles by patch index, for queries and keys of one head width.

    Parameters
    ----------
    head_width : int
        Features of one head; even.
    """

    def __init__(self, head_width: int):
        super().__init__()
        self.head_width = head_width

    def forward(self, n_patches: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines.

        Parameters
        ----------
        n_patches : int
            Patches are numbered from zero; only differences between them reach attention.
        like : Tensor
            Gives device and dtype.

        Returns
        -------
        tuple of Tensor, shape (P, 1, head_width / 2)
            Broadcast over heads.
        """
        half = self.head_width // 2
        # float32 whatever the weights are: half precision cannot count patches times angle
        step = torch.arange(half, device=like.device, dtype=torch.float32) / half
        index = torch.arange(n_patches, device=like.device, dtype=torch.float32)
        angle = index[:, None] * BASE**-step
        return angle.cos()[:, None].to(like.dtype), angle.sin()[:, None].to(like.dtype)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of features by the angle of their patch.

    Parameters
    ----------
    x : Tensor, shape (..., P, H, head_width)
        Queries or keys.
    turn : tuple of Tensor
        What `Rotary` returns.

    Returns
    -------
    Tensor
        As `x`.
    """
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)

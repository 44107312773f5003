"""Sines and cosines of a token's number."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoid(n: int, width: int, base: float = 10_000.0) -> Tensor:
    """Return a code for each of `n` numbers (Vaswani et al. 2017, sec. 3.5).

    Parameters
    ----------
    n : int
        Numbers from zero on.
    width : int
        Features; sines on even ones, cosines on odd ones.
    base : float
        The slowest wave turns once in about ``2 pi base`` numbers.

    Returns
    -------
    Tensor of float32, shape (n, width)
        The codes.
    """
    number = torch.arange(n, dtype=torch.float32)[:, None]
    speed = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(base) / width))
    out = torch.zeros(n, width)
    out[:, 0::2] = (number * speed).sin()
    out[:, 1::2] = (number * speed)[:, : width // 2].cos()
    return out

"""Step sizes and decay rates of a state space, and the parameters that stand for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST = 1e-4  # below it a channel forgets nothing and learns nothing


def initial_step_bias(n: int, least: float, most: float) -> Tensor:
    """Draw `n` step sizes, evenly in their logarithm, and return what softplus makes them of."""
    low, high = math.log(least), math.log(most)
    step = torch.exp(low + (high - low) * torch.rand(n)).clamp_min(SMALLEST)
    return step + torch.log(-torch.expm1(-step))


def decay_rates(logarithms: Tensor) -> Tensor:
    """Return the negative rates that parameters stand for, in single precision at least."""
    return -logarithms.to(torch.promote_types(logarithms.dtype, torch.float32)).exp()

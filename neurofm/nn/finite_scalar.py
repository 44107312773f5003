"""Quantisation without a codebook: each feature is rounded to one of a few levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neurofm.errors import ConfigError
from neurofm.nn.codebook import Quantised


class FiniteScalar(nn.Module):
    """Finite scalar quantisation (Mentzer et al. 2024, sec. 3).

    Parameters
    ----------
    levels : sequence of int
        Values each feature may take, two at least; their product is the number of codes.

    Raises
    ------
    ConfigError
        If a feature would have fewer than two values.
    """

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ConfigError(
                f"finite scalar quantisation needs two levels a feature, got {list(levels)}",
                hint="for example levels: [8, 5, 5, 5]",
            )
        self.levels: Tensor
        self.basis: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        basis = torch.tensor([1, *levels[:-1]]).cumprod(0)
        self.register_buffer("basis", basis, persistent=False)

    @property
    def n_codes(self) -> int:
        """K, the product of the levels."""
        return int(self.levels.prod())

    def forward(self, x: Tensor, present: Tensor | None = None) -> Quantised:  # noqa: ARG002
        """Quantise tokens (..., number of levels) into -1..1.

        There is no loss, and nothing is learned, of padding or of others.
        """
        half = (self.levels - 1) * (1 + 1e-3) / 2
        # an even number of levels has no middle: shift by half a level, and undo it
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        bounded = (x + (offset / half).atanh()).tanh() * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        middle = torch.div(self.levels, 2, rounding_mode="floor")
        digits = rounded.detach() + middle
        codes = (digits * self.basis).sum(-1).round().to(torch.int64)
        return Quantised(content=rounded / middle, codes=codes, loss=x.new_zeros(()))

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes, (...) to (..., number of levels)."""
        digits = torch.div(codes[..., None], self.basis, rounding_mode="floor") % self.levels
        middle = torch.div(self.levels, 2, rounding_mode="floor")
        return (digits - middle) / middle

"""A stack of strided convolutions along time, as wav2vec's and BENDR's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class StridedConv(nn.Module):
    """A strided convolution, a norm of groups of features, and GELU.

    Parameters
    ----------
    n_in, n_out : int
        Features in and out.
    kernel, stride : int
        Samples; an even kernel is made odd by one more.
    n_groups : int, optional
        Groups of features that share a mean and a variance; by default pairs do.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int, n_groups: int | None = None
    ):
        super().__init__()
        kernel += 1 - kernel % 2
        self.conv = nn.Conv1d(n_in, n_out, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.GroupNorm(n_groups or n_out // 2, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, T) to (N, n_out, ceil(T / stride))."""
        return F.gelu(self.norm(self.conv(x)))

"""Causal depthwise convolution that can go on from where it stopped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv(nn.Conv1d):
    """Each channel by itself, over this step and the `n_taps` - 1 before it.

    Parameters
    ----------
    n_channels : int
        Channels.
    n_taps : int
        Steps seen.
    bias : bool
        Add a bias.
    """

    def __init__(self, n_channels: int, n_taps: int, *, bias: bool = True):
        super().__init__(n_channels, n_channels, n_taps, groups=n_channels, bias=bias)

    @property
    def n_taps(self) -> int:
        """Steps seen."""
        return self.kernel_size[0]

    def run(self, x: Tensor, last: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Convolve.

        Parameters
        ----------
        x : Tensor, shape (B, D, L)
            What comes in.
        last : Tensor, shape (B, D, n_taps), optional
            The steps before `x`, newest last; zeros by default.

        Returns
        -------
        y : Tensor, shape (B, D, L)
            What goes out.
        last : Tensor, shape (B, D, n_taps)
            The last steps of what came in.
        """
        if last is None:
            last = x.new_zeros(*x.shape[:2], self.n_taps)
        padded = torch.cat((last.to(x.dtype), x), dim=-1)
        y = F.conv1d(padded[..., 1:], self.weight, self.bias, groups=self.groups)
        return y, padded[..., -self.n_taps :]

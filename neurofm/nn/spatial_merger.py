"""Any layout of sensors onto a fixed number of virtual channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MARGIN, SPAN = 0.2, 1.4  # of a layout scaled to 0..1


class SpatialMerger(nn.Module):
    """Learned functions of the position on a flat layout weigh sensors.

    After Défossez et al. (2023, Nat. Mach. Intell., sec. "Spatial attention").

    Parameters
    ----------
    n_out : int
        Virtual channels.
    n_features : int
        Features of a position; twice the square of the waves an axis.
    """

    def __init__(self, n_out: int, n_features: int):
        super().__init__()
        self.n_frequencies = round((n_features // 2) ** 0.5)
        self.heads = nn.Parameter(torch.randn(n_out, n_features) / n_features**0.5)

    def embed(self, position: Tensor) -> Tensor:
        """Return waves of positions (B, C, 2) on the layout, (B, C, n_features)."""
        k = torch.arange(self.n_frequencies, device=position.device, dtype=position.dtype)
        x, y = ((position + MARGIN)[..., None] * (2 * math.pi * k / SPAN)).unbind(-2)
        angle = (x[..., :, None] + y[..., None, :]).flatten(-2)
        return torch.cat((angle.cos(), angle.sin()), dim=-1)

    def forward(self, signal: Tensor, position: Tensor, located: Tensor) -> Tensor:
        """Merge channels.

        Parameters
        ----------
        signal : Tensor, shape (B, C, T)
            What sensors measure.
        position : Tensor, shape (B, C, 2)
            On a layout scaled to 0..1.
        located : Tensor of bool, shape (B, C)
            Sensors without a position have no weight.

        Returns
        -------
        Tensor, shape (B, n_out, T)
            Weighted means.
        """
        return self.weights(self.embed(position), located) @ signal

    def weights(self, waves: Tensor, located: Tensor) -> Tensor:
        """Return how much each virtual channel takes of each sensor.

        Parameters
        ----------
        waves : Tensor, shape (B, C, n_features)
            Of the sensors' positions; see `embed`.
        located : Tensor of bool, shape (B, C)
            Sensors without a position have no weight.

        Returns
        -------
        Tensor, shape (B, n_out, C)
            Their sum over sensors is one; all are zero in a window without any located sensor.
        """
        score = torch.einsum("od,bcd->boc", self.heads, waves)
        score = score.masked_fill(~located[:, None], float("-inf"))
        return score.softmax(-1).nan_to_num(0.0)

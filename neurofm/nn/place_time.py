"""Where and when, in one code: products of waves over three axes of space and one of time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.errors import ConfigError

OFFSET, SPAN, STEP = 0.4, 1.8, 0.1  # metres, metres, and metres a patch


class PlaceTime(nn.Module):
    """REVE's four-dimensional place (El Ouahidi et al., NeurIPS 2025, sec. 3.1).

    Parameters
    ----------
    width : int
        Features out; even.
    n_frequencies : int
        Waves an axis; every combination over the four axes is a pair of features, as far as the
        width reaches.

    Raises
    ------
    ConfigError
        If there are fewer combinations than the width has room for.
    """

    def __init__(self, width: int, n_frequencies: int):
        super().__init__()
        if 2 * n_frequencies**4 < width:
            raise ConfigError(
                f"{n_frequencies} waves an axis are {2 * n_frequencies**4} features, and a place "
                f"has {width}",
                hint=f"choose at least {math.ceil((width / 2) ** 0.25)} waves",
            )
        self.width = width
        self.n_frequencies = n_frequencies
        self.linear = nn.Linear(4, width, bias=False)
        self.norm_linear = nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)

    def waves(self, position: Tensor, n_patches: int) -> Tensor:
        """Return the waves alone, (B, C, P, D); see `forward`."""
        time = STEP * torch.arange(n_patches, device=position.device, dtype=position.dtype)
        k = torch.arange(self.n_frequencies, device=position.device, dtype=position.dtype)
        turn = 2 * math.pi * k / SPAN
        x, y, z = ((position + OFFSET)[..., None] * turn).unbind(-2)  # (B, C, F)
        t = (time + OFFSET)[:, None] * turn  # (P, F)
        space = (x[..., :, None, None] + y[..., None, :, None] + z[..., None, None, :]).flatten(
            2
        )  # x slowest
        angle = (space[:, :, None, :, None] + t[:, None, :]).flatten(3)  # time fastest
        angle = angle[..., : self.width // 2]
        return torch.cat((angle.cos(), angle.sin()), dim=-1)

    def forward(self, position: Tensor, n_patches: int) -> Tensor:
        """Encode every patch of every channel.

        Parameters
        ----------
        position : Tensor, shape (B, C, 3)
            Metres.
        n_patches : int
            Patches, numbered from zero.

        Returns
        -------
        Tensor, shape (B, C, P, D)
            Normalised.
        """
        waves = self.waves(position, n_patches)
        number = torch.arange(n_patches, device=position.device, dtype=position.dtype)
        where = torch.cat(
            (
                position[:, :, None].expand(-1, -1, n_patches, -1),
                number[:, None].expand(*position.shape[:2], -1, -1),
            ),
            dim=-1,
        )
        return self.norm(waves + self.norm_linear(F.gelu(self.linear(where))))

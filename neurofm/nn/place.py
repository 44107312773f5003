"""Where a site is and what kind it is, as a vector: what lets one encoder serve any montage."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurofm.nn.initialise import initialise_linear
from neurofm.signals import Batch

# Cycles a metre. Wavelengths of 1.6 to 25 cm: from neighbours in a dense array to a whole head.
# Powers of two, so that they stay exact when the module is cast to half precision.
WAVE_NUMBERS = (4.0, 8.0, 16.0, 32.0, 64.0)
HEAD_M = 0.1  # about the radius of a head: raw positions become numbers near one
MAX_KINDS = 32  # more rows than `SensorKind` has members, so that kinds can be appended
KIND_FEATURES = 16


class PlaceEncoding(nn.Module):
    """Encode position, coil orientation and kind of each site.

    An unknown position is a learned vector, not a point: it differs from the origin, which
    is a place in the head like any other. The same holds for orientation.

    Parameters
    ----------
    width : int
        Features out.
    """

    wave_numbers: Tensor

    def __init__(self, width: int):
        super().__init__()
        n_position = 3 + 3 * 2 * len(WAVE_NUMBERS)
        self.register_buffer("wave_numbers", torch.tensor(WAVE_NUMBERS), persistent=False)
        self.unknown_position = nn.Parameter(0.5 * torch.randn(n_position))
        self.unknown_orientation = nn.Parameter(0.5 * torch.randn(3))
        self.kind = nn.Embedding(MAX_KINDS, KIND_FEATURES)
        self.combine = nn.Sequential(
            nn.Linear(n_position + 3 + KIND_FEATURES, width), nn.GELU(), nn.Linear(width, width)
        )
        for layer in self.combine:
            if isinstance(layer, nn.Linear):  # place weighs about as much as content
                initialise_linear(layer)

    def forward(
        self,
        position: Tensor,
        orientation: Tensor,
        kind: Tensor,
        *,
        located: Tensor,
        oriented: Tensor,
    ) -> Tensor:
        """Encode sites.

        Parameters
        ----------
        position : Tensor, shape (..., 3)
            Metres in the head frame; ignored where not `located`.
        orientation : Tensor, shape (..., 3)
            Unit coil normals; ignored where not `oriented`.
        kind : Tensor of int64, shape (...)
            `SensorKind` codes.
        located, oriented : Tensor of bool, shape (...)
            Where `position` and `orientation` are known.

        Returns
        -------
        Tensor, shape (..., width)
            One vector a site.
        """
        dtype = self.unknown_position.dtype
        where = torch.where(
            located[..., None], self._waves(position).to(dtype), self.unknown_position
        )
        normal = torch.where(oriented[..., None], orientation.to(dtype), self.unknown_orientation)
        return self.combine(torch.cat((where, normal, self.kind(kind)), dim=-1))

    def of(self, batch: Batch, patch_s: float, n_patches: int) -> Tensor:
        """Encode the channels of a batch, the same in every patch: (B, C, 1, width)."""
        return self(
            batch.position,
            batch.orientation,
            batch.kind,
            located=batch.located,
            oriented=batch.oriented,
        )[:, :, None]

    def _waves(self, position: Tensor) -> Tensor:
        position = position.float()  # a phase of many turns needs more digits than half precision
        phase = 2 * math.pi * (position[..., None] * self.wave_numbers.float()).flatten(-2)
        return torch.cat((position / HEAD_M, phase.sin(), phase.cos()), dim=-1)

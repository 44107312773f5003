"""A sensor as one vector: where it is, which way it looks, of what kind it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.nn.feedforward import FeedForward

EPS = 1e-6


class SensorEmbedding(nn.Module):
    """Position and orientation through a small network, plus a row for the kind.

    After BrainOmni (Xiao et al. 2025, sec. 3.2). What is not located has a learned vector in
    place of its position's, so that an unknown place is not taken for the head's centre.

    Parameters
    ----------
    width : int
        Features out.
    n_kinds : int
        Rows of the table of kinds.
    unknown : bool
        Whether there is a vector for unknown places; the published model has none.
    """

    def __init__(self, width: int, n_kinds: int, *, unknown: bool = True):
        super().__init__()
        self.widen = nn.Linear(6, width // 2)
        self.narrow = nn.Linear(width // 2, width)
        self.kinds = nn.Embedding(n_kinds, width)
        self.mix = FeedForward(width, 4 * width, activation="selu")
        self.norm = nn.RMSNorm(width, eps=EPS)
        self.unknown = nn.Parameter(0.02 * torch.randn(width)) if unknown else None

    def forward(self, geometry: Tensor, kind: Tensor, located: Tensor | None = None) -> Tensor:
        """Embed sensors.

        Parameters
        ----------
        geometry : Tensor, shape (B, C, 6)
            Position, then orientation; zeros where a sensor has none.
        kind : Tensor of int, shape (B, C)
            Row of the table.
        located : Tensor of bool, shape (B, C), optional
            False where the position is unknown.

        Returns
        -------
        Tensor, shape (B, C, width)
            One vector a sensor.
        """
        place = self.narrow(F.selu(self.widen(geometry)))
        if located is not None and self.unknown is not None:
            place = torch.where(located[..., None], place, self.unknown)
        x = place + self.kinds(kind)
        return self.norm(x + self.mix(x))

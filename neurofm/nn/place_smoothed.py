"""Places as volume conduction sees them, and times as slow waves and decays."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.nn.initialise import initialise_linear
from neurofm.nn.place import HEAD_M

START_M = 0.08  # how far a sensor's place reaches at first
LEAST_M = 1e-3
SLOW_HZ = (0.01, 0.5)
DECAY_S = (1.0, 100.0)


class SmoothedPlace(nn.Module):
    """A linear map of positions, each averaged with those of sensors nearby.

    After DeeperBrain (arXiv 2601.06134), of which only secondary sources could be read: sensors
    weigh each other by ``exp(-distance / tau)``, with one learned ``tau``.

    Parameters
    ----------
    width : int
        Features out.
    """

    def __init__(self, width: int):
        super().__init__()
        self.reach = nn.Parameter(torch.tensor(math.log(math.expm1((START_M - LEAST_M) / HEAD_M))))
        self.linear = nn.Linear(3, width)
        initialise_linear(self.linear)

    @property
    def tau_m(self) -> Tensor:
        """The distance at which a sensor weighs 1/e of what the sensor itself does, metres."""
        return F.softplus(self.reach.float()) * HEAD_M + LEAST_M

    def forward(self, position: Tensor, counted: Tensor) -> Tensor:
        """Encode sensors.

        Parameters
        ----------
        position : Tensor, shape (B, C, 3)
            Metres.
        counted : Tensor of bool, shape (B, C)
            Sensors that are there, and of known position; what others get means nothing.

        Returns
        -------
        Tensor, shape (B, C, width)
            One vector a sensor.
        """
        position = position.float().masked_fill(~counted[..., None], 0.0)
        distance = (position[:, :, None] - position[:, None]).norm(dim=-1)
        weight = torch.exp(-distance / self.tau_m) * counted[:, None]
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-6)
        return self.linear((weight @ position / HEAD_M).to(self.linear.weight.dtype))


class SlowTime(nn.Module):
    """A linear map of slow sines, cosines and decays of time since the window began.

    Parameters
    ----------
    width : int
        Features out.
    n_waves, n_decays : int
        Frequencies from 0.01 to 0.5 Hz, and time constants from 1 to 100 s, evenly on a scale of
        ratios.
    """

    hz: Tensor
    tau_s: Tensor

    def __init__(self, width: int, n_waves: int = 8, n_decays: int = 4):
        super().__init__()
        for name, (low, high), n in (("hz", SLOW_HZ, n_waves), ("tau_s", DECAY_S, n_decays)):
            steps = torch.logspace(math.log10(low), math.log10(high), n)
            self.register_buffer(name, steps, persistent=False)
        self.linear = nn.Linear(2 * n_waves + n_decays, width)
        initialise_linear(self.linear)

    def forward(self, n_patches: int, patch_s: float) -> Tensor:
        """Return a code for each of so many patches, (P, width)."""
        t = patch_s * torch.arange(n_patches, device=self.hz.device)[:, None]
        angle = 2 * math.pi * t * self.hz.float()
        basis = torch.cat((angle.sin(), angle.cos(), torch.exp(-t / self.tau_s.float())), dim=-1)
        return self.linear(basis.to(self.linear.weight.dtype))

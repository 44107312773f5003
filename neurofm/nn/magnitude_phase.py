"""Patches as magnitude and phase of their spectrum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.nn.in_place import gelu_of
from neurofm.nn.polar import polar

WIDENED = 4


class MagnitudePhase(nn.Module):
    """Two linear maps of magnitude and phase, as in LUNA.

    The phase of a bin without an imaginary part is 0 or pi of either sign, as the FFT library
    has it.

    Parameters
    ----------
    patch_len : int
        Samples in a patch.
    width : int
        Features out.
    """

    def __init__(self, patch_len: int, width: int):
        super().__init__()
        n_features = 2 * (patch_len // 2 + 1)
        self.widen = nn.Linear(n_features, WIDENED * n_features)
        self.narrow = nn.Linear(WIDENED * n_features, width)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (..., patch_len) to features (..., width)."""
        spectrum = torch.fft.rfft(patches.float(), dim=-1)
        x = polar(spectrum.reshape(-1, spectrum.shape[-1])).to(patches.dtype)
        x = self.widen(x)
        x = gelu_of(x, self.widen)
        return self.narrow(x).reshape(*patches.shape[:-1], -1)

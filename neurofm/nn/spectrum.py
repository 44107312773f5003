"""The log power spectrum of patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.errors import ConfigError

FLOOR = 1e-4  # power in squared deviations a bin, below which all is silence


class LogPower(nn.Module):
    """Log power of each frequency in a band, under a Hann window.

    Parameters
    ----------
    patch_len : int
        Samples in a patch.
    sfreq : float
        Sampling rate in hertz.
    band_hz : (float, float)
        Lowest and highest frequency.

    Raises
    ------
    ConfigError
        If patches are too short to resolve any frequency of the band.
    """

    window: Tensor

    def __init__(self, patch_len: int, sfreq: float, band_hz: tuple[float, float]):
        super().__init__()
        low, high = band_hz
        frequencies = torch.fft.rfftfreq(patch_len, 1 / sfreq).tolist()
        self.bins = [i for i, f in enumerate(frequencies) if low <= f <= high]
        if not self.bins:
            raise ConfigError(
                f"patches of {patch_len / sfreq:g} s resolve no frequency between {low:g} and "
                f"{high:g} Hz",
                hint="use longer patches",
            )
        window = torch.hann_window(patch_len, periodic=False)
        self.register_buffer("window", window / window.square().sum().sqrt(), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches, shape (..., patch_len), to log power in float32, shape (..., n_bins)."""
        spectrum = torch.fft.rfft(patches.float() * self.window.float(), dim=-1)[..., self.bins]
        return torch.log(spectrum.abs().square() + FLOOR)

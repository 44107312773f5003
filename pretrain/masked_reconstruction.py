"""Predict hidden patches from the visible ones.

B windows, S sites, P patches, L samples a patch, F frequencies, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from neurofm.config import Config
from neurofm.encoder import Encoder
from neurofm.pretrain.masks import MaskConfig, SpatialRadiusMaskConfig
from neurofm.signals import Batch


@dataclass(frozen=True, slots=True)
class Loss:
    """A scalar to minimise, and the parts worth plotting."""

    total: Tensor
    terms: dict[str, Tensor]


class MaskedReconstructionConfig(Config):
    """Hide tokens and regress what was measured there.

    Two targets, each with its weight: the samples of the patch (He et al. 2022, masked
    autoencoders), and its log power spectrum. Samples are dominated by phase, which is mostly
    unpredictable; the spectrum asks for the rhythms themselves, as LaBraM's Fourier
    targets do (Jiang et al. 2024, sec. 2.2).

    Parameters
    ----------
    mask : MaskConfig
        What to hide.
    signal : float
        Weight of the squared error of the samples.
    spectrum : float
        Weight of the squared error of the log power spectrum.
    """

    name: Literal["masked_reconstruction"] = "masked_reconstruction"
    mask: MaskConfig = Field(default_factory=SpatialRadiusMaskConfig)
    signal: float = Field(default=1.0, ge=0)
    spectrum: float = Field(default=1.0, ge=0)

    def build(self, encoder: Encoder) -> MaskedReconstruction:
        """Build the objective that trains `encoder`."""
        return MaskedReconstruction(self, encoder)


class MaskedReconstruction(nn.Module):
    """Mean squared error on hidden patches of real channels."""

    def __init__(self, config: MaskedReconstructionConfig, encoder: Encoder):
        super().__init__()
        self.config = config
        self.encoder = encoder
        length = encoder.tokenizer.patch_len
        self.predict_signal = nn.Linear(encoder.width, length)
        self.predict_spectrum = nn.Linear(encoder.width, length // 2)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(length, periodic=False), persistent=False)

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """Return the loss of one batch; all randomness of the mask comes from `generator`.

        Parameters
        ----------
        batch : Batch
            Standardised windows.
        generator : torch.Generator
            A CPU generator.

        Returns
        -------
        Loss
            Terms: ``signal`` and ``spectrum`` (mean squared errors), ``signal_explained``
            (1 minus error over power: 0 is what predicting zeros gives) and ``hidden_share``.
        """
        # 1. Choose what to hide.
        patches = self.encoder.tokenizer.patches(batch.signal)  # (B, S, P, L)
        hide = self.config.mask(batch, patches.shape[2], generator).to(patches.device)

        # 2. Encode the rest.
        hidden = self.encoder(batch, hide).content[hide]  # (N, D)
        target = patches[hide].float()  # (N, L)

        # 3. Score only what was hidden; a mask never hides padding.
        signal = (self.predict_signal(hidden).float() - target).square().mean()
        spectrum = (self.predict_spectrum(hidden).float() - self.log_power(target)).square().mean()
        total = self.config.signal * signal + self.config.spectrum * spectrum
        terms = {
            "signal": signal.detach(),
            "spectrum": spectrum.detach(),
            "signal_explained": 1 - signal.detach() / target.square().mean().clamp_min(1e-12),
            "hidden_share": hide.sum() / (batch.present.sum() * patches.shape[2]),
        }
        return Loss(total, terms)

    def log_power(self, patches: Tensor) -> Tensor:
        """Return the log power of each frequency above zero, shape (..., F)."""
        spectrum = torch.fft.rfft(patches * self.window, dim=-1)[..., 1:]
        power = spectrum.abs().square() / self.window.square().sum()
        return torch.log(power[..., : patches.shape[-1] // 2] + 1e-4)

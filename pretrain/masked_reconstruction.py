"""Predict hidden patches from the visible ones.

B windows, S sites, P patches, L samples a patch, F frequencies, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from neurofm.config import Config
from neurofm.contract import SignalContract
from neurofm.encoder import Encoder
from neurofm.errors import ConfigError
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
    targets do (Jiang et al. 2024, sec. 2.2). Each frequency of the band is standardised
    over the tokens of the batch, lest the slope of the spectrum be all that is learnt.

    Parameters
    ----------
    mask : MaskConfig
        What to hide.
    signal : float
        Weight of the Huber loss of the samples, which an artefact cannot dominate.
    spectrum : float
        Weight of the squared error of the log power spectrum.
    """

    name: Literal["masked_reconstruction"] = "masked_reconstruction"
    mask: MaskConfig = Field(default_factory=SpatialRadiusMaskConfig)
    signal: float = Field(default=1.0, ge=0)
    spectrum: float = Field(default=1.0, ge=0)

    def build(self, encoder: Encoder, contract: SignalContract) -> MaskedReconstruction:
        """Build the objective that trains `encoder` on signals under `contract`."""
        return MaskedReconstruction(self, encoder, contract)


class MaskedReconstruction(nn.Module):
    """Losses on hidden patches of real channels."""

    def __init__(
        self, config: MaskedReconstructionConfig, encoder: Encoder, contract: SignalContract
    ):
        super().__init__()
        self.config = config
        self.encoder = encoder
        length = encoder.tokenizer.patch_len
        low, high = contract.band_hz
        frequencies = torch.fft.rfftfreq(length, 1 / contract.sfreq)
        self.band = [i for i, f in enumerate(frequencies.tolist()) if low <= f <= high]
        if not self.band:
            raise ConfigError(
                f"patches of {length / contract.sfreq:g} s resolve no frequency between {low:g} "
                f"and {high:g} Hz",
                hint="use longer patches",
            )
        self.predict_signal = nn.Linear(encoder.width, length)
        self.predict_spectrum = nn.Linear(encoder.width, len(self.band))
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
            Terms: ``signal`` (Huber), ``spectrum`` (mean squared error; 1 is what predicting
            the mean spectrum gives), ``signal_explained`` (1 minus squared error over power;
            0 is what predicting silence gives) and ``hidden_share``.
        """
        # 1. Choose what to hide.
        patches = self.encoder.tokenizer.patches(batch.signal)  # (B, S, P, L)
        hide = self.config.mask(batch, patches.shape[2], generator).to(patches.device)

        # 2. Encode the rest.
        hidden = self.encoder(batch, hide).content[hide]  # (N, D)
        target = patches[hide].float()  # (N, L)

        # 3. Score only what was hidden; a mask never hides padding.
        predicted = self.predict_signal(hidden).float()
        signal = F.smooth_l1_loss(predicted, target)
        rhythms = self.log_power(target)
        rhythms = (rhythms - rhythms.mean(0)) / rhythms.std(0, correction=0).clamp_min(1e-3)
        spectrum = F.mse_loss(self.predict_spectrum(hidden).float(), rhythms)
        total = self.config.signal * signal + self.config.spectrum * spectrum
        terms = {
            "signal": signal.detach(),
            "spectrum": spectrum.detach(),
            "signal_explained": 1
            - F.mse_loss(predicted.detach(), target) / target.square().mean().clamp_min(1e-12),
            "hidden_share": hide.sum() / (batch.present.sum() * patches.shape[2]),
        }
        return Loss(total, terms)

    def log_power(self, patches: Tensor) -> Tensor:
        """Return the log power of each frequency in the contract's band, shape (..., F)."""
        spectrum = torch.fft.rfft(patches * self.window, dim=-1)[..., self.band]
        return torch.log(spectrum.abs().square() / self.window.square().sum() + 1e-4)

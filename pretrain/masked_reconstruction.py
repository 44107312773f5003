"""Predict hidden patches from the visible ones.

B windows, C channels, P patches, L samples a patch, D width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from neurofm.config import Config
from neurofm.contract import SignalContract
from neurofm.encoder import Encoder
from neurofm.errors import ConfigError
from neurofm.nn.spectrum import LogPower
from neurofm.pretrain.channel_decoder import ChannelDecoder
from neurofm.pretrain.jitter import jittered
from neurofm.pretrain.masks import MaskConfig, SpatialRadiusMaskConfig
from neurofm.signals import Batch
from neurofm.tokenizers.slot import CodedTokenizer
from neurofm.training.module import Loss


class MaskedReconstructionConfig(Config):
    """Hide tokens and regress what was measured there.

    Two targets, each with its weight: the samples of the patch (He et al. 2022, masked
    autoencoders), and its log power spectrum. Samples are dominated by phase, which is mostly
    unpredictable; the spectrum asks for the rhythms themselves, as LaBraM's Fourier
    targets do (Jiang et al. 2024, sec. 2.2). Each frequency of the band is standardised
    over the tokens of the batch, lest the slope of the spectrum be all that is learnt.

    Where tokens are of several channels (latent sources, virtual channels, summaries), what is
    hidden is silence to the tokenizer, and channels are decoded from tokens by their place, those
    that were shown as well.

    Parameters
    ----------
    mask : MaskConfig
        What to hide.
    signal : float
        Weight of the Huber loss of the samples, which an artefact cannot dominate.
    spectrum : float
        Weight of the squared error of the log power spectrum.
    visible : float
        Weight of the same error on tokens that were not hidden. Nothing in masked prediction
        asks the encoder to hand on what it sees; without this term a linear probe of its
        output finds less than one of the plain spectrum.
    decoder_heads : int
        Heads of that decoder's attention, where there is one.
    place_noise_m : float
        Standard deviation of what is added to each coordinate of a position, in metres.
    """

    name: Literal["masked_reconstruction"] = "masked_reconstruction"
    mask: MaskConfig = Field(default_factory=SpatialRadiusMaskConfig)
    signal: float = Field(default=1.0, ge=0)
    spectrum: float = Field(default=1.0, ge=0)
    visible: float = Field(default=0.5, ge=0)
    decoder_heads: int = Field(default=4, ge=1)
    place_noise_m: float = Field(default=0.0, ge=0)

    def build(self, encoder: Encoder, contract: SignalContract) -> MaskedReconstruction:
        """Build the objective that trains `encoder` on signals under `contract`.

        Raises
        ------
        ConfigError
            If patches are too short for the band, tokens show what is hidden in others, the
            backbone lets patches go, or heads of the decoder do not share the width.
        """
        tokenizer, hides_tokens = encoder.tokenizer, encoder.sites_are_channels
        if hides_tokens and isinstance(tokenizer, CodedTokenizer) and tokenizer.leaks:
            raise ConfigError(
                f"masked_reconstruction: tokens of {encoder.config.tokenizer.name} that are made "
                "of codes have seen the patches that are to be reconstructed",
                hint="set encoder.tokenizer.discrete: false",
            )
        encoder.require_every_patch()
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
        self.decode: ChannelDecoder | None = None
        if not encoder.sites_are_channels:
            self.decode = ChannelDecoder(encoder.width, config.decoder_heads)
        self.log_power = LogPower(length, contract.sfreq, contract.band_hz)
        self.predict_signal = nn.Linear(encoder.width, length)
        self.predict_spectrum = nn.Linear(encoder.width, len(self.log_power.bins))

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
            Terms: ``signal`` (Huber), ``spectrum`` and ``visible`` (mean squared errors; 1 is
            what predicting the mean spectrum gives), ``signal_explained`` (1 minus squared
            error over power; 0 is what predicting silence gives) and ``hidden_share``.
        """
        # 1. Choose what to hide.
        patches = self.encoder.tokenizer.patches(batch.signal)  # (B, C, P, L)
        hide = self.config.mask(batch, patches.shape[2], generator).to(patches.device)

        # 2. Encode the rest.
        encoded = self.encode(jittered(batch, self.config.place_noise_m, generator), hide)

        # 3. Score the samples of what was hidden; a mask never hides padding.
        target = patches[hide].float()  # (N, L)
        predicted = self.predict_signal(encoded[hide]).float()
        signal = F.smooth_l1_loss(predicted, target)

        # 4. Score the spectra of the hidden and of the visible.
        present = batch.present[:, :, None].expand_as(hide)
        rhythms = self.log_power(patches[present])  # (M, n_bins)
        rhythms = (rhythms - rhythms.mean(0)) / rhythms.std(0, correction=0).clamp_min(1e-3)
        error = (self.predict_spectrum(encoded[present]).float() - rhythms).square().mean(-1)
        spectrum, visible = error[hide[present]].mean(), error[~hide[present]].mean()

        weights = self.config
        total = weights.signal * signal + weights.spectrum * spectrum + weights.visible * visible
        terms = {
            "signal": signal.detach(),
            "spectrum": spectrum.detach(),
            "visible": visible.detach(),
            "signal_explained": 1
            - F.mse_loss(predicted.detach(), target) / target.square().mean().clamp_min(1e-12),
            "hidden_share": hide.sum() / (batch.present.sum() * patches.shape[2]),
        }
        return Loss(total, terms)

    def encode(self, batch: Batch, hide: Tensor) -> Tensor:
        """Return what is known of channels (B, C, P, D) where some patches (B, C, P) are hidden."""
        if self.decode is None:
            content: Tensor = self.encoder(batch, hide).content
            return content
        hidden = hide.repeat_interleave(self.encoder.tokenizer.patch_len, -1)
        shown = replace(batch, signal=batch.signal.masked_fill(hidden, 0.0), codes=None)
        return self.decode(self.encoder(shown), batch)

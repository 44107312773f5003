"""LaBraM's neural tokenizer (Jiang et al., ICLR 2024): codes that tell a patch's spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.nn.codebook import Codebook, Quantised
from neurofm.published.entry import (
    Published,
    Rule,
    config_of,
    constructor_values,
    rename,
    section,
)
from neurofm.published.labram import LaBraMConfig
from neurofm.published.labram_original import from_constructor, reshape, trunk_rules


class VQNSPConfig(Config):
    """Hyper-parameters of `VQNSP`.

    Parameters
    ----------
    encoder, decoder : LaBraMConfig
        Of patches, and of code vectors in place of patches.
    n_codes, code_width : int
        Size of the codebook.
    n_bins : int
        Bins of the spectrum to predict: as many as a patch has samples.
    kmeans : bool
        Start the codebook from the first batch.
    smooth_l1 : bool
        Whether spectra are compared by the smooth L1 error instead of the squared error.
    """

    encoder: LaBraMConfig = LaBraMConfig()
    decoder: LaBraMConfig = LaBraMConfig(n_filters=None, depth=3, patch_len=64)
    n_codes: int = Field(default=8192, ge=2)
    code_width: int = Field(default=64, ge=1)
    n_bins: int = Field(default=200, ge=1)
    kmeans: bool = True
    smooth_l1: bool = False

    def build(self) -> VQNSP:
        """Build the tokenizer with fresh weights."""
        return VQNSP(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectra:
    """What the decoder predicts of each patch: standardised amplitude and phase, (B, C P, bins)."""

    amplitude: Tensor
    phase: Tensor


class VQNSP(nn.Module):
    """Encoder, codebook of unit vectors, and decoder of amplitude and phase.

    Parameters
    ----------
    config : VQNSPConfig
        Hyper-parameters.
    """

    def __init__(self, config: VQNSPConfig):
        super().__init__()
        self.error = F.smooth_l1_loss if config.smooth_l1 else F.mse_loss
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build()
        self.to_code = _bottleneck(config.encoder.width, config.code_width)
        # the published loss weighs commitment by one, and unused codes are not revived
        self.codebook = Codebook(
            config.n_codes,
            config.code_width,
            normalise=True,
            commitment=1.0,
            revive_below=0,
            gradient="straight_through",
            kmeans=config.kmeans,
        )
        self.to_amplitude = _bottleneck(config.decoder.width, config.n_bins)
        self.to_phase = _bottleneck(config.decoder.width, config.n_bins)

    def features(self, patches: Tensor, names: Tensor) -> Tensor:
        """Return normalised tokens (B, C P, D) of patches (B, C, P, patch_len)."""
        return self.encoder.norm(self.encoder.encode(patches, names)[:, 1:])

    def quantise(self, patches: Tensor, names: Tensor) -> Quantised:
        """Return the codes (B, C P) of patches, and their vectors."""
        return self.codebook(self.to_code(self.features(patches, names)))

    def decode(self, content: Tensor, names: Tensor) -> Spectra:
        """Predict spectra from code vectors (B, C, P, code_width)."""
        features = self.decoder.norm(self.decoder.encode(content, names)[:, 1:])
        return Spectra(amplitude=self.to_amplitude(features), phase=self.to_phase(features))

    def forward(self, patches: Tensor, names: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss: ``commitment``, ``amplitude``, ``phase``.

        Parameters
        ----------
        patches : Tensor, shape (B, C, P, patch_len)
            Microvolts divided by 100, at 200 Hz.
        names : Tensor of int, shape (1 + C,)
            As `LaBraM.encode` takes them.
        """
        found = self.quantise(patches, names)
        guess = self.decode(found.content.unflatten(1, patches.shape[1:3]), names)
        target = target_spectra(patches)
        return {
            "commitment": found.loss,
            "amplitude": self.error(guess.amplitude, target.amplitude),
            "phase": self.error(guess.phase, target.phase),
        }


def target_spectra(patches: Tensor) -> Spectra:
    """Return amplitude and phase of patches (B, C, P, patch_len), standardised by window.

    Both halves of the spectrum are kept, as in the original. The phase of a bin without an
    imaginary part is 0 or pi of either sign, as the FFT library has it.
    """
    spectrum = torch.fft.fft(patches, dim=-1)
    return Spectra(
        amplitude=_standardise(spectrum.abs()).flatten(1, 2),
        phase=_standardise(spectrum.angle()).flatten(1, 2),
    )


def _standardise(x: Tensor) -> Tensor:
    axes = tuple(range(1, x.ndim))
    return (x - x.mean(axes, keepdim=True)) / x.std(axes, keepdim=True)


def _bottleneck(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_in), nn.Tanh(), nn.Linear(n_in, n_out))


# ---------------------------------------------------------------------------------------
# From the original


def config_from_constructor(constructor: Mapping[str, Any]) -> VQNSPConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown or lacking, or has no counterpart here.
    """
    model = "VQNSP"
    names = {
        "n_embed": "n_codes",
        "embed_dim": "code_width",
        "decoder_out_dim": "n_bins",
        "quantize_kmeans_init": "kmeans",
        "smooth_l1_loss": "smooth_l1",
        **dict.fromkeys(("encoder_config", "decoder_config", "decay")),
    }
    values = constructor_values(constructor, names, model=model, defaults={"embed_dim": 32})
    encoder, decoder = (
        section(constructor, f"{part}_config", model=model) for part in ("encoder", "decoder")
    )
    values["encoder"] = from_constructor(encoder, "finetuning", model=f"{model} encoder")
    # the decoder takes code vectors as its channels, one sample long, whatever it is told
    decoder = {**decoder, "in_chans": values["code_width"]}
    values["decoder"] = from_constructor(decoder, "finetuning", model=f"{model} decoder")
    return config_of(VQNSPConfig, values, model=model)


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    rules: list[Rule] = [
        *trunk_rules("encoder.", r"encoder\."),
        *trunk_rules("decoder.", r"decoder\."),
        (r"encode_task_layer\.(\d)\.(\w+)", r"to_code.\1.\2"),
        (r"decode_task_layer\.(\d)\.(\w+)", r"to_amplitude.\1.\2"),
        (r"decode_task_layer_angle\.(\d)\.(\w+)", r"to_phase.\1.\2"),
        (r"quantize\.embedding\.weight", "codebook.vectors"),
        (r"quantize\.cluster_size", "codebook.count"),
        (r"quantize\.embedding\.embed_avg", "codebook.total"),
        (r"quantize\.embedding\.initted", "codebook.started"),
    ]
    unused = {r"quantize\.embedding\.cluster_size": "kept by the original and never read"}
    found = reshape(rename(original, rules, unused=unused))
    if "codebook.started" in found:
        found["codebook.started"] = found["codebook.started"].bool().squeeze()
    return found


PUBLISHED_VQNSP = {
    "LaBraM VQNSP tokenizer": Published(
        from_constructor=config_from_constructor,
        weights=weights,
        parts=("nn.patch_convs", "nn.block", "nn.codebook"),
    ),
}

"""EphysTokenizer (arXiv 2602.16626): one code for each sample of each channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.nn.sample_codes import (
    AnnealedChoice,
    Chosen,
    CodeKernels,
    Padding,
    RecurrentLayers,
    RecurrentName,
)
from neurofm.published.entry import Published, Rule, config_of, constructor_values, rename


class EphysTokenizerConfig(Config):
    """Hyper-parameters of `EphysTokenizer`.

    Parameters
    ----------
    n_codes : int
        Codes, of which training leaves some unused.
    kernel : int
        Samples that a code reaches in the reconstruction.
    padding : "same" or "causal"
        To both sides, or later samples only.
    bias : bool
        Whether kernels have offsets.
    groups : int
        Groups of codes whose kernels the original keeps apart; they divide the codes.
    width, n_layers : int
        Of the recurrent layers.
    recurrent : "gru" or "lstm"
        Their kind.
    """

    n_codes: int = Field(default=128, ge=2)
    kernel: int = Field(default=10, ge=1)
    padding: Padding = "causal"
    bias: bool = True
    groups: int = Field(default=1, ge=1)
    width: int = Field(default=128, ge=1)
    n_layers: int = Field(default=1, ge=1)
    recurrent: RecurrentName = "gru"

    def build(self) -> EphysTokenizer:
        """Build the tokenizer with fresh weights."""
        return EphysTokenizer(self)


class EphysTokenizer(nn.Module):
    """Recurrent encoder, choice of a code, and a kernel for each code.

    Parameters
    ----------
    config : EphysTokenizerConfig
        Hyper-parameters.
    """

    def __init__(self, config: EphysTokenizerConfig):
        super().__init__()
        self.encoder = RecurrentLayers(config.width, config.n_layers, config.recurrent)
        self.choice = AnnealedChoice(config.width, config.n_codes)
        self.kernels = CodeKernels(
            config.n_codes,
            config.kernel,
            padding=config.padding,
            bias=config.bias,
            groups=config.groups,
        )

    def choose(self, signal: Tensor) -> Chosen:
        """Return codes (B, C, T) of standardised signals (B, C, T), and weights."""
        found = self.choice(self.encoder(signal.flatten(0, 1)))
        shape = signal.shape[:2]
        return Chosen(
            weights=found.weights.unflatten(0, shape), codes=found.codes.unflatten(0, shape)
        )

    def reconstruct(self, weights: Tensor) -> Tensor:
        """Return signals (B, C, T) from weights of codes (B, C, T, n_codes)."""
        return self.kernels(weights.flatten(0, 1)).unflatten(0, weights.shape[:2])

    def forward(self, signal: Tensor) -> Tensor:
        """Return signals (B, C, T) as their codes have them."""
        return self.reconstruct(self.choose(signal).weights)


# ---------------------------------------------------------------------------------------
# From the original


def from_constructor(constructor: Mapping[str, Any]) -> EphysTokenizerConfig:
    """Return our config from the original's arguments."""
    names = {
        "sequence_length": None,
        "n_channels": None,
        "n_tokens": "n_codes",
        "token_dim": "kernel",
        "token_kernel_padding": "padding",
        "token_kernel_bias": "bias",
        "token_groups": "groups",
        "rnn_n_units": "width",
        "rnn_type": "recurrent",
        "rnn_n_layers": "n_layers",
    }
    values = constructor_values(constructor, names, model="EphysTokenizer")
    return config_of(EphysTokenizerConfig, values, model="EphysTokenizer")


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    rules: list[Rule] = [
        (r"encoder_layer\.rnn_layers\.(.+)", r"encoder.layers.\1"),
        (r"token_weights_layer\.dense_layer\.(\w+)", r"choice.linear.\1"),
        (r"token_weights_layer\.norm_layer\.(\w+)", r"choice.norm.\1"),
        (r"token_weights_layer\._temperature", "choice.temperature"),
        (r"decoder_layer\.token_basis_layer\.(\w+)", r"kernels.\1"),
    ]
    return rename(original, rules)


PUBLISHED_EPHYS_TOKENIZER = {
    "EphysTokenizer": Published(
        from_constructor=from_constructor, weights=weights, parts=("nn.sample_codes",)
    ),
}

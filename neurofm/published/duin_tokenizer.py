"""Du-IN's tokenizer (Zheng et al., NeurIPS 2024): codes from which sEEG can be reconstructed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.nn.codebook import Codebook, Quantised
from neurofm.nn.step_convs import TransposedStepConvs
from neurofm.nn.subject_map import SubjectMap
from neurofm.published.duin import DuINConfig, StackConfig
from neurofm.published.duin_original import (
    MODEL,
    UNUSED,
    check_arguments,
    join,
    layers,
    part_values,
    per_subject,
    stack_from,
    stack_rules,
    trunk_from,
    trunk_rules,
)
from neurofm.published.entry import Published, Rule, config_of, rename


class DuINTokenizerConfig(Config):
    """Hyper-parameters of `DuINTokenizer`.

    Parameters
    ----------
    encoder : DuINConfig
        From signals to tokens.
    n_codes, code_width : int
        Size of the codebook.
    commitment, decay : float
        Weight of that loss, and of the moving average.
    kmeans : bool
        Start the codebook from the first batch.
    decoder : StackConfig
        Over quantised tokens.
    filters, kernels, strides : tuple of int
        Of the transposed convolutions; the strides' product is a patch.
    n_virtual : int
        Channels that are mapped to a subject's.
    subject_bias : bool
        Whether each subject has offsets there.
    reconstruction_weight, commitment_weight : float
        Of the terms in the sum.
    """

    encoder: DuINConfig = DuINConfig()
    n_codes: int = Field(default=2048, ge=2)
    code_width: int = Field(default=64, ge=1)
    commitment: float = Field(default=1.0, ge=0)
    decay: float = Field(default=0.99, gt=0, lt=1)
    kmeans: bool = True
    decoder: StackConfig = StackConfig(depth=4)
    filters: tuple[int, ...] = (128, 128, 128, 128, 16)
    kernels: tuple[int, ...] = (3, 3, 10, 9, 19)
    strides: tuple[int, ...] = (1, 1, 10, 1, 10)
    n_virtual: int = Field(default=16, ge=1)
    subject_bias: bool = True
    reconstruction_weight: float = Field(default=1.0, ge=0)
    commitment_weight: float = Field(default=1.0, ge=0)

    def build(self) -> DuINTokenizer:
        """Build the tokenizer with fresh weights."""
        return DuINTokenizer(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """Terms of the loss, each of shape (), before they are weighed."""

    reconstruction: Tensor
    commitment: Tensor
    total: Tensor


class DuINTokenizer(nn.Module):
    """Encoder, codebook of unit vectors, and decoder of samples.

    Parameters
    ----------
    config : DuINTokenizerConfig
        Hyper-parameters.
    """

    def __init__(self, config: DuINTokenizerConfig):
        super().__init__()
        self.config = config
        width, code_width = config.encoder.encoder.width, config.code_width
        self.encoder = config.encoder.build()
        self.to_code = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, code_width)
        )
        self.codebook = Codebook(
            config.n_codes,
            code_width,
            decay=config.decay,
            normalise=True,
            commitment=config.commitment,
            revive_below=0,
            gradient="straight_through",
            kmeans=config.kmeans,
        )
        self.from_code = nn.Sequential(nn.LayerNorm(code_width), nn.Linear(code_width, width))
        self.decoder = config.decoder.build()
        self.convs = TransposedStepConvs(width, config.filters, config.kernels, config.strides)
        self.to_virtual = nn.Linear(config.filters[-1], config.n_virtual)
        self.to_channels = SubjectMap(
            config.encoder.n_subjects,
            config.n_virtual,
            config.encoder.n_channels,
            bias=config.subject_bias,
        )

    def quantise(self, signal: Tensor, subject: Tensor) -> Quantised:
        """Return codes (B, P) of windows and their vectors; arguments as of `DuIN.forward`."""
        return self.codebook(self.to_code(self.encoder(signal, subject)))

    def decode(self, content: Tensor) -> Tensor:
        """Return signals (B, V, T) of the shared channels from code vectors (B, P, width)."""
        tokens = self.decoder(self.from_code(content))
        steps = self.convs(tokens.transpose(1, 2))
        return self.to_virtual(steps.transpose(1, 2)).transpose(1, 2)

    def reconstruct(self, content: Tensor, subject: Tensor) -> Tensor:
        """Return signals (B, n_channels, T) of subjects (B,) from code vectors (B, P, width)."""
        return self.to_channels(self.decode(content), subject)

    def terms(self, found: Quantised, guess: Tensor, signal: Tensor, counts: Tensor) -> Terms:
        """Compare a reconstruction with the signal.

        Parameters
        ----------
        found : Quantised
            What `quantise` returns.
        guess, signal : Tensor, shape (B, n_channels, T)
            Reconstructed and original.
        counts : Tensor of bool, shape (B, n_channels)
            Channels that the subject has.
        """
        far = (guess - signal).square().mean(-1)[counts].mean()
        total = self.config.reconstruction_weight * far + self.config.commitment_weight * found.loss
        return Terms(reconstruction=far, commitment=found.loss, total=total)

    def forward(self, signal: Tensor, subject: Tensor, counts: Tensor) -> Terms:
        """Return the loss of windows; arguments as of `DuIN.forward` and `terms`."""
        found = self.quantise(signal, subject)
        return self.terms(found, self.reconstruct(found.content, subject), signal, counts)


# ---------------------------------------------------------------------------------------
# From the original


def from_constructor(constructor: Mapping[str, Any]) -> DuINTokenizerConfig:
    """Return our config from the original's arguments."""
    check_arguments(constructor)
    codebook = {
        "d_model": None,
        "codex_size": "n_codes",
        "d_codex": "code_width",
        "beta": "commitment",
        "decay": "decay",
        "init_kmeans": "kmeans",
    }
    values = part_values(constructor, "vq", codebook)
    samples = {**layers(), "d_neural": None, **dict.fromkeys(("emb_len", "seg_len", "d_model"))}
    values |= part_values(constructor, "rgs", samples)
    subject = {"n_subjects": None, "d_input": "n_virtual", "d_output": None}
    values |= part_values(constructor, "desubj", {**subject, "use_bias": "subject_bias"})
    for theirs, ours in (("rgs", "reconstruction_weight"), ("vq", "commitment_weight")):
        values[ours] = constructor.get(f"{theirs}_loss_scale", 1.0)
    parts = {"encoder": trunk_from(constructor), "decoder": stack_from(constructor, "decoder")}
    return config_of(DuINTokenizerConfig, {**values, **parts}, model=MODEL)


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    rules: list[Rule] = [
        *trunk_rules(),
        *stack_rules("decoder", "decoder"),
        (r"vq_block\.pre_proj\.(\d)\.(\w+)", r"to_code.\1.\2"),
        (r"vq_block\.codex\.embeddings", "codebook.vectors"),
        (r"vq_block\.codex\.initted", "codebook.started"),
        (r"vq_block\.counts", "codebook.count"),
        (r"vq_block\.layernorm\.(\w+)", r"from_code.0.\1"),
        (r"vq_block\.post_proj\.0\.(\w+)", r"from_code.1.\1"),
        (r"rgs_block\.rgs_head\.(\d+)\.0\.1\.(\w+)", r"convs.convs.\1.\2"),
        (r"rgs_block\.rgs_head\.\d+\.0\.(\w+)", r"to_virtual.\1"),
        (r"desubj_block\.subj_layer\.W\.weight", "to_channels.weight"),
        (r"desubj_block\.subj_layer\.B\.weight", "to_channels.bias"),
    ]
    found = join(rename(original, rules, unused=UNUSED))
    if "codebook.started" in found:
        found["codebook.started"] = found["codebook.started"].bool().squeeze()
    if "codebook.vectors" in found and "codebook.count" in found:
        # the original averages vectors, not their sums: a sum is the mean times the count
        found["codebook.total"] = found["codebook.vectors"] * found["codebook.count"][:, None]
    if "to_channels.bias" in found:
        found["to_channels.bias"] = found["to_channels.bias"].T
    if "to_channels.weight" in found and "to_virtual.weight" in found:
        n_in = len(found["to_virtual.weight"])
        found["to_channels.weight"] = per_subject(found["to_channels.weight"], n_in=n_in)
    return found


PUBLISHED_DUIN_TOKENIZER = {
    "Du-IN VQ-VAE": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=(
            "nn.subject_map",
            "nn.step_convs",
            "nn.sinusoid",
            "nn.block",
            "nn.attention (full)",
            "nn.codebook",
        ),
    ),
}

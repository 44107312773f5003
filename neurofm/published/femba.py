"""FEMBA (Tegon et al., EMBC 2025): Mamba in both directions over tokens of a fixed montage.

Patches span two channels and sixteen samples (the paper's example has four and thirty-two; its
totals of parameters come out with the code's). The tokens of all groups of channels at one time
are one token of the sequence: filter slow, group fast. Published weights come with TUEG's bipolar
montage in microvolts, shifted and scaled by constants; the paper scales by the interquartile range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config, parse_config
from neurofm.nn.bidirectional import BidirectionalBlock
from neurofm.nn.mamba1 import Mamba1Config
from neurofm.nn.patch_plane import PatchPlane
from neurofm.published.entry import Published, constructor_values, rename

Pair = tuple[int, int]
HEAD_WIDTH = 256


class FembaConfig(Config):
    """Hyper-parameters of `Femba`.

    Parameters
    ----------
    n_channels, n_times : int
        Of a window.
    patch, stride : (int, int)
        Channels and samples of a patch, and from patch to patch.
    n_filters : int
        Features of a patch; a token has as many for each group of channels.
    depth : int
        Number of blocks.
    expand : int
        Inner channels of Mamba, as a multiple of the width.
    n_classes : int
        Classes of the head; 0 for the decoder of pretraining.
    head : "one", "per_channel" or "per_channel_and_class"
        Scores of the head: a class each, a channel each, or both.
    kernel_decoder : (int, int)
        Of the convolution over time and features in the decoder; odd.
    """

    n_channels: int = Field(default=22, ge=1)
    n_times: int = Field(default=1280, ge=1)
    patch: Pair = (2, 16)
    stride: Pair = (2, 16)
    n_filters: int = Field(default=79, ge=1)
    depth: int = Field(default=1, ge=1)
    expand: int = Field(default=4, ge=1)
    n_classes: int = Field(default=0, ge=0)
    head: Literal["one", "per_channel", "per_channel_and_class"] = "one"
    kernel_decoder: Pair = (31, 31)

    def build(self) -> Femba:
        """Build the model with fresh weights."""
        return Femba(self)


class Femba(nn.Module):
    """Encoder with the decoder of pretraining, or with a classifier.

    Parameters
    ----------
    config : FembaConfig
        Hyper-parameters.
    """

    def __init__(self, config: FembaConfig):
        super().__init__()
        self.config = config
        self.patches = PatchPlane(config.patch, config.n_filters, stride=config.stride)
        self.n_groups, n_patches = self.patches.n_tokens(config.n_channels, config.n_times)
        width = self.n_groups * config.n_filters
        self.when = nn.Parameter(torch.zeros(1, n_patches, width))
        mixer = Mamba1Config(expand=config.expand)
        self.blocks = nn.ModuleList(
            BidirectionalBlock(mixer.build(width), mixer.build(width), width, norm_place="post")
            for _ in range(config.depth)
        )
        self.decoder = None if config.n_classes else Decoder(config)
        self.classifier = Classifier(config, width) if config.n_classes else None

    def tokens(self, signal: Tensor) -> Tensor:
        """Map windows (B, C, T) to tokens (B, P, filters times groups)."""
        return self.patches(signal).permute(0, 2, 3, 1).flatten(2)

    def forward(self, signal: Tensor, mask: Tensor | None = None) -> Tensor:
        """Reconstruct or classify windows.

        Parameters
        ----------
        signal : Tensor, shape (B, C, T)
            Windows.
        mask : Tensor of bool, shape (B, C, T), optional
            Samples to hide, as zeros. Pretraining hides 60 % of the patches, the same ones in
            every window of a batch.

        Returns
        -------
        Tensor
            Windows as decoded, (B, C, T), shorter where patches do not fill them; or scores:
            (B, n_classes), (B, n_channels) or (B, n_channels, n_classes).
        """
        if mask is not None:
            signal = signal.masked_fill(mask, 0.0)
        x = self.tokens(signal) + self.when
        for block in self.blocks:
            x = block(x)
        if self.decoder is not None:
            return self.decoder(x)
        scores: Tensor = self.classifier(x) if self.classifier is not None else x
        return scores


class Decoder(nn.Module):
    """From tokens back to samples: a wide convolution over the map, then the patches undone."""

    def __init__(self, config: FembaConfig):
        super().__init__()
        kernel = config.kernel_decoder
        around = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
        self.n_filters = config.n_filters
        self.smooth = nn.Conv2d(1, 1, kernel, padding=around, bias=False)
        self.unpatch = nn.ConvTranspose2d(config.n_filters, 1, config.patch, stride=config.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, P, D) to windows (B, C, T)."""
        x = self.smooth(x[:, None])[:, 0].transpose(1, 2)  # (B, D, P)
        return self.unpatch(x.unflatten(1, (self.n_filters, -1)))[:, 0]


class Classifier(nn.Module):
    """A narrow Mamba that looks backwards only, and the mean of its tokens."""

    def __init__(self, config: FembaConfig, width: int):
        super().__init__()
        self.narrow = nn.Linear(width, HEAD_WIDTH)
        self.mixer = Mamba1Config(expand=2).build(HEAD_WIDTH)
        self.per_channel = config.n_channels if config.head == "per_channel_and_class" else None
        n_out = config.n_channels if config.head == "per_channel" else config.n_classes
        self.score = nn.Linear(HEAD_WIDTH, n_out * (self.per_channel or 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, P, D) to scores."""
        scores = self.score(self.mixer(F.gelu(self.narrow(x))).mean(1))
        return scores.unflatten(-1, (self.per_channel, -1)) if self.per_channel else scores


def masked_smooth_l1(found: Tensor, signal: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smooth L1 error (beta 1) on hidden samples, which trains, and on visible ones."""
    error = F.smooth_l1_loss(found, signal, reduction="none")
    return error[mask].mean(), error[~mask].mean()


HEADS = {
    **dict.fromkeys(("bc", "ml", "mcc"), "one"),
    "mc": "per_channel",
    "mmc": "per_channel_and_class",
}
NAMES = {
    "num_channels": "n_channels",
    "seq_length": "n_times",
    "patch_size": "patch",
    "stride": "stride",
    "embed_dim": "n_filters",
    "num_blocks": "depth",
    "exp": "expand",
    "num_classes": "n_classes",
    "classification_type": "head",
    "kernel_dec": "kernel_decoder",
    "kernel_1": None,  # stored by the original and not used
}
RULES = [
    (r"patch_embed\.proj\.(.*)", r"patches.\1"),
    (r"pos_embed", "when"),
    (r"mamba_blocks\.(\d+)\.mamba_fwd\.(.*)", r"blocks.\1.forwards.\2"),
    (r"mamba_blocks\.(\d+)\.mamba_rev\.(.*)", r"blocks.\1.backwards.\2"),
    (r"norm_layers\.(\d+)\.(.*)", r"blocks.\1.norm.\2"),
    (r"decoder\.dec_conv\.weight", "decoder.smooth.weight"),
    (r"decoder\.conv_transpose\.(.*)", r"decoder.unpatch.\1"),
    (r"classifier\.fc1\.(.*)", r"classifier.narrow.\1"),
    (r"classifier\.mamba_1\.(.*)", r"classifier.mixer.\1"),
    (r"classifier\.fc3\.(.*)", r"classifier.score.\1"),
]


def from_constructor(constructor: Mapping[str, Any]) -> FembaConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown or has a wrong value.
    """
    values = constructor_values(constructor, NAMES, model="FEMBA")
    if "head" in values:
        values["head"] = HEADS.get(values["head"], values["head"])
    return parse_config(FembaConfig, values, where="constructor of FEMBA")


PUBLISHED_FEMBA = {
    "FEMBA": Published(
        from_constructor=from_constructor,
        weights=lambda original: rename(original, RULES),
        parts=("nn.patch_plane", "nn.bidirectional", "nn.mamba1"),
    )
}

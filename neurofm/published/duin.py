"""Du-IN (Zheng et al., NeurIPS 2024): tokens of all of a subject's sEEG contacts at one moment."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.attention import AttentionStyle
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.sinusoid import sinusoid
from neurofm.nn.step_convs import StepConvs
from neurofm.nn.subject_map import SubjectMap


class StackConfig(Config):
    """A stack of transformer blocks that normalise the sum after each part.

    Parameters
    ----------
    width, depth, n_heads, head_width, hidden : int
        Features of a token, blocks, heads, features of a head, hidden features.
    """

    width: int = Field(default=160, ge=1)
    depth: int = Field(default=8, ge=1)
    n_heads: int = Field(default=8, ge=1)
    head_width: int = Field(default=64, ge=1)
    hidden: int = Field(default=320, ge=1)

    def build(self) -> Stack:
        """Build the stack with fresh weights."""
        return Stack(self)


class Stack(nn.Module):
    """Sines and cosines of a token's number are added, then blocks over all tokens."""

    def __init__(self, config: StackConfig):
        super().__init__()
        style = BlockStyle(
            norm_place="post",
            activation="relu",
            attention=AttentionStyle(head_width=config.head_width, qk_norm="layer"),
        )
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.n_heads,
                attention="full",
                hidden=config.hidden,
                style=style,
            )
            for _ in range(config.depth)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, P, D) to the same shape."""
        time = sinusoid(tokens.shape[1], tokens.shape[2]).to(tokens)
        x = (tokens + time)[:, None]  # a grid of one site
        for block in self.blocks:
            x = block(x, None, None)
        return x[:, 0]


class DuINConfig(Config):
    """Hyper-parameters of `DuIN`.

    Parameters
    ----------
    n_subjects, n_channels : int
        Subjects, and contacts of the one with most; about ten are chosen a subject.
    n_virtual : int
        Channels that all subjects share.
    subject_bias : bool
        Whether each subject has offsets.
    patch_len : int
        Samples in a patch; 100 at 1000 Hz.
    filters, kernels, strides : tuple of int
        Of the convolutions within a patch.
    encoder : StackConfig
        Over patches.
    """

    n_subjects: int = Field(default=1, ge=1)
    n_channels: int = Field(default=10, ge=1)
    n_virtual: int = Field(default=16, ge=1)
    subject_bias: bool = True
    patch_len: int = Field(default=100, ge=1)
    filters: tuple[int, ...] = (128, 128, 16)
    kernels: tuple[int, ...] = (19, 3, 3)
    strides: tuple[int, ...] = (10, 1, 1)
    encoder: StackConfig = StackConfig()

    def build(self) -> DuIN:
        """Build the encoder with fresh weights.

        Raises
        ------
        ConfigError
            If a patch does not give as many features as a token has.
        """
        return DuIN(self)


class DuIN(nn.Module):
    """Encoder: one token a patch for all channels together."""

    def __init__(self, config: DuINConfig):
        super().__init__()
        self.patch_len = config.patch_len
        self.subjects = SubjectMap(
            config.n_subjects, config.n_channels, config.n_virtual, bias=config.subject_bias
        )
        self.convs = StepConvs(config.n_virtual, config.filters, config.kernels, config.strides)
        found = self.convs.n_features(config.patch_len)
        if found != config.encoder.width:
            raise ConfigError(
                f"Du-IN: a patch of {config.patch_len} samples gives {found} features, and tokens "
                f"have {config.encoder.width}",
                hint=f"set encoder.width to {found}",
            )
        self.stack = config.encoder.build()

    def tokens(self, signal: Tensor, subject: Tensor) -> Tensor:
        """Return tokens (B, P, D) before they know of each other; see `forward`.

        Raises
        ------
        ConfigError
            If a window is no whole number of patches.
        """
        if signal.shape[-1] % self.patch_len:
            raise ConfigError(
                f"Du-IN: a window of {signal.shape[-1]} samples is no whole number of patches of "
                f"{self.patch_len}",
                hint=f"cut windows of a multiple of {self.patch_len} samples",
            )
        x = self.subjects(signal, subject)
        patches = x.unflatten(-1, (-1, self.patch_len)).transpose(1, 2)  # (B, P, V, L)
        return self.convs(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])

    def forward(self, signal: Tensor, subject: Tensor) -> Tensor:
        """Encode windows.

        Parameters
        ----------
        signal : Tensor, shape (B, n_channels, T)
            Bipolar, each channel of mean zero and variance one, at 1000 Hz.
        subject : Tensor of int, shape (B,)
            Whose they are.

        Returns
        -------
        Tensor, shape (B, P, D)
            Tokens.
        """
        return self.stack(self.tokens(signal, subject))


class Perceptron(nn.Module):
    """Linear maps with ReLU between them, of the widths given."""

    def __init__(self, *widths: int):
        super().__init__()
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)

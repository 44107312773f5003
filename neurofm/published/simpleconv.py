"""SimpleConv, the convolutional decoder of Défossez et al. (Nat. Mach. Intell. 2023)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.nn.spatial_merger import SpatialMerger

UNKNOWN = -0.1  # both coordinates of a sensor without a position, in the original's data


class SimpleConvConfig(Config):
    """Hyper-parameters of `SimpleConv`.

    Parameters
    ----------
    n_channels, n_out : int
        Sensors in, features out.
    width, depth, kernel : int
        Features of the first block, blocks, and samples of each convolution.
    growth : float
        Features of a block as a multiple of those of the one before.
    dilation_growth, dilation_period : int
        Each block looks this many times as far as the one before, and begins anew after a
        period; 0 never does.
    n_merged, merger_features : int
        Virtual channels, and features of positions; 0 leaves the merger out.
    drops_unlocated : bool
        Whether sensors without a position are set to zero first.
    n_initial, initial_depth : int
        Features and number of the first linear maps, with bends between; 0 leaves them out.
    initial_bend : bool
        Whether one follows the last of them.
    n_subjects : int
        Subjects that are told apart.
    subject_matrix : "square", "to_width" or "none"
        Whether each subject has a matrix, and whether it gives as many features as it takes, or
        `width`.
    subject_width, subject_scale : int, float
        Features of each subject's vector, and what it is multiplied by; 0 leaves it out.
    glu_every, glu_context : int
        A gated layer follows every so many blocks, and sees that many samples on both sides.
    layer_scale : float, optional
        Start value of the factors of what a block adds.
    leak : float, optional
        Slope below zero; None bends by GELU.
    out : "complex", "linear" or "none"
        Two maps with a bend between, one, or the last block itself.
    skip, batch_norm : bool
        Whether blocks of equal width are added to what came in, and normalised.
    """

    n_channels: int = Field(ge=1)
    n_out: int = Field(ge=1)
    width: int = Field(default=320, ge=1)
    depth: int = Field(default=10, ge=1)
    kernel: int = Field(default=3, ge=1)
    growth: float = Field(default=1.0, gt=0)
    dilation_growth: int = Field(default=2, ge=1)
    dilation_period: int = Field(default=0, ge=0)
    n_merged: int = Field(default=0, ge=0)
    merger_features: int = Field(default=2048, ge=2)
    drops_unlocated: bool = False
    n_initial: int = Field(default=0, ge=0)
    initial_depth: int = Field(default=1, ge=1)
    initial_bend: bool = False
    n_subjects: int = Field(default=200, ge=1)
    subject_matrix: Literal["square", "to_width", "none"] = "none"
    subject_width: int = Field(default=0, ge=0)
    subject_scale: float = 1.0
    glu_every: int = Field(default=0, ge=0)
    glu_context: int = Field(default=0, ge=0)
    layer_scale: float | None = None
    leak: float | None = 0.0
    out: Literal["complex", "linear", "none"] = "none"
    skip: bool = False
    batch_norm: bool = False

    def build(self) -> SimpleConv:
        """Build the model with fresh weights."""
        return SimpleConv(self)

    def bend(self, x: Tensor) -> Tensor:
        """Apply the activation."""
        return F.gelu(x) if self.leak is None else F.leaky_relu(x, self.leak)

    @property
    def widths(self) -> list[int]:
        """Features of each block."""
        return [round(self.width * self.growth**i) for i in range(self.depth)]

    def dilation(self, block: int) -> int:
        """Return samples from tap to tap in a block."""
        step = block % self.dilation_period if self.dilation_period else block
        return self.dilation_growth**step


class ConvBlock(nn.Module):
    """A dilated convolution, a norm, a bend, a scale; what came in, where widths are equal."""

    def __init__(
        self, config: SimpleConvConfig, n_in: int, n_out: int, number: int, *, bends: bool
    ):
        super().__init__()
        self.config = config
        self.bends = bends
        dilation = config.dilation(number)
        self.conv = nn.Conv1d(
            n_in, n_out, config.kernel, padding=config.kernel // 2 * dilation, dilation=dilation
        )
        self.norm = nn.BatchNorm1d(n_out) if config.batch_norm and bends else None
        self.skip = config.skip and n_in == n_out
        self.scale = None
        if config.layer_scale is not None and self.skip:
            self.scale = nn.Parameter(torch.full((n_out,), config.layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n_in, T) to (B, n_out, T)."""
        out = self.inner(x)
        return out + x if self.skip else out

    def inner(self, x: Tensor) -> Tensor:
        """Return what is added."""
        out = self.conv(x)
        if self.norm is not None:
            out = self.norm(out)
        if self.bends:
            out = self.config.bend(out)
        return out if self.scale is None else out * self.scale[:, None]


class SimpleConv(nn.Module):
    """Merger, subject layers and convolutions: a vector for every sample.

    Parameters
    ----------
    config : SimpleConvConfig
        Hyper-parameters.
    """

    def __init__(self, config: SimpleConvConfig):
        super().__init__()
        self.config = config
        n = config.n_channels
        self.merger = self.subject_matrix = self.subject_vector = None
        if config.n_merged:
            self.merger = SpatialMerger(config.n_merged, config.merger_features)
            n = config.n_merged
        self.initial = nn.ModuleList()
        for _ in range(config.initial_depth if config.n_initial else 0):
            self.initial.append(nn.Conv1d(n, config.n_initial, 1))
            n = config.n_initial
        if config.subject_matrix != "none":
            n_to = n if config.subject_matrix == "square" else config.width
            drawn = torch.randn(config.n_subjects, n, n_to) / n**0.5
            self.subject_matrix, n = nn.Parameter(drawn), n_to
        if config.subject_width:
            self.subject_vector = nn.Embedding(config.n_subjects, config.subject_width)
            n += config.subject_width
        widths = [n, *config.widths]
        if config.out == "none":
            widths[-1] = config.n_out
        self.blocks = nn.ModuleList()
        self.gates = nn.ModuleDict()
        for i, (n_in, n_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            bends = config.out != "none" or i < config.depth - 1
            self.blocks.append(ConvBlock(config, n_in, n_out, i, bends=bends))
            if config.glu_every and (i + 1) % config.glu_every == 0:
                around = config.glu_context
                self.gates[str(i)] = nn.Conv1d(n_out, 2 * n_out, 1 + 2 * around, padding=around)
        self.final = _final(config)

    def forward(self, signal: Tensor, position: Tensor, located: Tensor, subject: Tensor) -> Tensor:
        """Decode every sample.

        Parameters
        ----------
        signal : Tensor, shape (B, C, T)
            Standardised.
        position : Tensor, shape (B, C, 2)
            On a layout scaled to 0..1.
        located : Tensor of bool, shape (B, C)
            False where a sensor has no position.
        subject : Tensor of int, shape (B,)
            Who is recorded.

        Returns
        -------
        Tensor, shape (B, n_out, T)
            Features.
        """
        x = self.enter(signal, position, located, subject)
        if self.subject_vector is not None:
            vector = self.subject_vector(subject)[..., None].expand(-1, -1, x.shape[-1])
            x = torch.cat((x, self.config.subject_scale * vector), dim=1)
        return self.final(self.convolve(x))

    def enter(self, signal: Tensor, position: Tensor, located: Tensor, subject: Tensor) -> Tensor:
        """Merge, map and bring to the subject's own channels; arguments as in `forward`."""
        x = self.map(self.merge(signal, position, located))
        if self.subject_matrix is not None:
            x = torch.einsum("bct,bcd->bdt", x, self.subject_matrix[subject])
        return x

    def merge(self, signal: Tensor, position: Tensor, located: Tensor) -> Tensor:
        """Return virtual channels, or the sensors; arguments as in `forward`."""
        if self.config.drops_unlocated:
            signal = signal.masked_fill(~located[..., None], 0.0)
        return signal if self.merger is None else self.merger(signal, position, located)

    def map(self, x: Tensor) -> Tensor:
        """Apply the first linear maps to channels (B, C, T)."""
        for i, linear in enumerate(self.initial, 1):
            x = linear(x)
            if i < len(self.initial) or self.config.initial_bend:
                x = self.config.bend(x)
        return x

    def convolve(self, x: Tensor) -> Tensor:
        """Run the blocks and gates."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if str(i) in self.gates:
                x = F.glu(self.gates[str(i)](x), dim=1)
        return x


class _ComplexOut(nn.Module):
    """Two maps of single samples with a bend between."""

    def __init__(self, config: SimpleConvConfig):
        super().__init__()
        self.config = config
        width = config.widths[-1]
        self.widen = nn.Conv1d(width, 2 * width, 1)
        self.narrow = nn.ConvTranspose1d(2 * width, config.n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.config.bend(self.widen(x)))


def _final(config: SimpleConvConfig) -> nn.Module:
    if config.out == "complex":
        return _ComplexOut(config)
    if config.out == "linear":
        return nn.ConvTranspose1d(config.widths[-1], config.n_out, 1)
    return nn.Identity()

"""SimpleConv, the convolutional decoder of Défossez et al. (Nat. Mach. Intell. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.spatial_merger import SpatialMerger
from neurofm.published.entry import Published, Rule, constructor_values, rename

BOOST = 5.0  # the original keeps layer scales divided by this, so that they learn faster
UNKNOWN = -0.1  # both coordinates of a sensor without a position, in the original's data


class SimpleConvConfig(Config):
    """Hyper-parameters of `SimpleConv`.

    Parameters
    ----------
    n_channels, n_out : int
        Sensors in, features out.
    width, depth, kernel : int
        Features, blocks, and samples of each convolution.
    dilation_growth, dilation_period : int
        Each block looks this many times as far as the one before, and begins anew after a
        period; 0 never does.
    n_merged, merger_features : int
        Virtual channels, and features of positions; 0 leaves the merger out.
    n_initial : int
        Features of the first linear map; 0 leaves it out.
    n_subjects : int
        Subjects that are told apart.
    subject_matrix : bool
        Whether each subject has a matrix.
    subject_width : int
        Features of each subject's vector; 0 leaves it out.
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
    dilation_growth: int = Field(default=2, ge=1)
    dilation_period: int = Field(default=0, ge=0)
    n_merged: int = Field(default=0, ge=0)
    merger_features: int = Field(default=2048, ge=2)
    n_initial: int = Field(default=0, ge=0)
    n_subjects: int = Field(default=200, ge=1)
    subject_matrix: bool = False
    subject_width: int = Field(default=0, ge=0)
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
        if config.layer_scale is not None and self.skip and bends:
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
        self.merger = self.initial = self.subject_matrix = self.subject_vector = None
        if config.n_merged:
            self.merger = SpatialMerger(config.n_merged, config.merger_features)
            n = config.n_merged
        if config.n_initial:
            self.initial = nn.Conv1d(n, config.n_initial, 1)
            n = config.n_initial
        if config.subject_matrix:
            self.subject_matrix = nn.Parameter(torch.randn(config.n_subjects, n, n) / n**0.5)
        if config.subject_width:
            self.subject_vector = nn.Embedding(config.n_subjects, config.subject_width)
            n += config.subject_width
        widths = [n, *[config.width] * config.depth]
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
            x = torch.cat((x, vector), dim=1)
        return self.final(self.convolve(x))

    def enter(self, signal: Tensor, position: Tensor, located: Tensor, subject: Tensor) -> Tensor:
        """Merge, map and bring to the subject's own channels; arguments as in `forward`."""
        x = signal if self.merger is None else self.merger(signal, position, located)
        if self.initial is not None:
            x = self.initial(x)
        if self.subject_matrix is not None:
            x = torch.einsum("bct,bcd->bdt", x, self.subject_matrix[subject])
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
        self.widen = nn.Conv1d(config.width, 2 * config.width, 1)
        self.narrow = nn.ConvTranspose1d(2 * config.width, config.n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.config.bend(self.widen(x)))


def _final(config: SimpleConvConfig) -> nn.Module:
    if config.out == "complex":
        return _ComplexOut(config)
    if config.out == "linear":
        return nn.ConvTranspose1d(config.width, config.n_out, 1)
    return nn.Identity()


# ---------------------------------------------------------------------------------------
# From the original


def from_constructor(constructor: Mapping[str, Any]) -> SimpleConvConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown, or more than one kind of signal is asked for.
    """
    names = {
        "in_channels": "n_channels",
        "out_channels": "n_out",
        "hidden": "width",
        "depth": "depth",
        "kernel_size": "kernel",
        "dilation_growth": "dilation_growth",
        "dilation_period": "dilation_period",
        "merger": "merger",
        "merger_channels": "n_merged",
        "merger_pos_dim": "merger_features",
        "merger_dropout": None,
        "initial_linear": "n_initial",
        "n_subjects": "n_subjects",
        "subject_layers": "subject_matrix",
        "subject_dim": "subject_width",
        "glu": "glu_every",
        "glu_context": "glu_context",
        "scale": "layer_scale",
        "gelu": "gelu",
        "relu_leakiness": "leak",
        "complex_out": "complex",
        "linear_out": "linear",
        "skip": "skip",
        "batch_norm": "batch_norm",
    }
    values = constructor_values(constructor, names, model="SimpleConv")
    for name in ("n_channels", "width"):
        if list(values[name]) != ["meg"]:
            raise ConfigError(f"SimpleConv: {name} of {list(values[name])}; only meg is known here")
        values[name] = values[name]["meg"]
    values.setdefault("subject_width", 64)  # the original's default
    if values.pop("gelu", False):
        values["leak"] = None
    if not values.pop("merger", False):
        values["n_merged"] = 0
    values["dilation_period"] = values.get("dilation_period") or 0
    linear, complex_ = values.pop("linear", False), values.pop("complex", False)
    values["out"] = "linear" if linear else "complex" if complex_ else "none"
    return SimpleConvConfig.model_validate(values)


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    block = r"encoders\.meg\.sequence\.(\d+)\."
    rules: list[Rule] = [
        (r"merger\.heads", "merger.heads"),
        (r"initial_linear\.0\.(\w+)", r"initial.\1"),
        (r"subject_layers\.weights", "subject_matrix"),
        (r"subject_embedding\.embedding\.weight", "subject_vector.weight"),
        (block + r"0\.(\w+)", r"blocks.\1.conv.\2"),
        (block + r"1\.(\w+)", r"blocks.\1.norm.\2"),
        (block + r"3\.scale", r"blocks.\1.scale"),
        (r"encoders\.meg\.glus\.(\d+)\.0\.(\w+)", r"gates.\1.\2"),
        (r"final\.0\.(\w+)", r"final.widen.\1"),
        (r"final\.2\.(\w+)", r"final.narrow.\1"),
        (r"final\.(weight|bias)", r"final.\1"),
    ]
    found = rename(original, rules)
    for name in [n for n in found if n.endswith(".scale")]:
        found[name] = BOOST * found[name]
    return found


PUBLISHED_SIMPLECONV = {
    "SimpleConv (brain decoder with spatial merger and subject layer)": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=("nn.spatial_merger", "published.simpleconv"),
    ),
}

"""BENDR (Kostas et al. 2021): strided convolutions and a transformer, trained by contrast."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from neurofm.config import Config
from neurofm.errors import ConfigError, SignalError
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.strided_convs import StridedConv
from neurofm.published.entry import (
    Published,
    Rule,
    config_of,
    constructor_values,
    rename,
    section,
)

GROUPS_OF_POSITION = 16
WIDENED = 3  # the transformer is this many times as wide as the encoder


class BENDRConfig(Config):
    """Hyper-parameters of `BENDR`.

    Parameters
    ----------
    n_channels : int
        Channels in; 20 slots of the 10-20 system and an amplitude, in the published order.
    width : int
        Features of an encoded step.
    kernels, strides : tuple of int
        Of the encoder's convolutions; even kernels are made odd by one more sample.
    projection : bool
        Whether a convolution of single steps follows them.
    depth, n_heads, hidden : int
        Of the transformer.
    activation : "gelu" or "relu"
        Of its feed-forward layers.
    position_kernel : int
        Steps that the convolution of positions sees; 0 leaves it out.
    start : float, optional
        Value of every feature of the start token; None leaves it out.
    """

    n_channels: int = Field(default=20, ge=1)
    width: int = Field(default=512, ge=2, multiple_of=2)
    kernels: tuple[int, ...] = (3, 2, 2, 2, 2, 2)
    strides: tuple[int, ...] = (3, 2, 2, 2, 2, 2)
    projection: bool = False
    depth: int = Field(default=8, ge=1)
    n_heads: int = Field(default=8, ge=1)
    hidden: int = Field(default=3076, ge=1)
    activation: Literal["gelu", "relu"] = "gelu"
    position_kernel: int = Field(default=25, ge=0)
    start: float | None = -5.0

    def build(self) -> BENDR:
        """Build the model with fresh weights.

        Raises
        ------
        ConfigError
            If there are not as many strides as kernels, or the width has no 16 groups.
        """
        if len(self.kernels) != len(self.strides):
            raise ConfigError(
                f"BENDR: {len(self.kernels)} kernels and {len(self.strides)} strides",
                hint="give one of each for every convolution",
            )
        if self.position_kernel and self.width % GROUPS_OF_POSITION:
            raise ConfigError(
                f"BENDR: width {self.width} is no multiple of {GROUPS_OF_POSITION}",
                hint="positions are convolved in that many groups",
            )
        return BENDR(self)


class BENDR(nn.Module):
    """Encoder and contextualiser.

    Parameters
    ----------
    config : BENDRConfig
        Hyper-parameters.
    """

    def __init__(self, config: BENDRConfig):
        super().__init__()
        self.config = config
        width, inner = config.width, WIDENED * config.width
        shapes = [*zip(config.kernels, config.strides, strict=True)]
        if config.projection:
            shapes.append((1, 1))
        self.stages = nn.ModuleList(
            StridedConv(width if i else config.n_channels, width, *shape)
            for i, shape in enumerate(shapes)
        )
        self.position = None
        if kernel := config.position_kernel:
            around, groups = kernel // 2, GROUPS_OF_POSITION
            position = nn.Conv1d(width, width, kernel, padding=around, groups=groups)
            self.position = weight_norm(position, dim=2)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, inner)
        self.mask = nn.Parameter(torch.randn(width) * width**-0.5)
        style = BlockStyle(norm="none", activation=config.activation)
        self.blocks = nn.ModuleList(
            Block(inner, config.n_heads, attention="full", hidden=config.hidden, style=style)
            for _ in range(config.depth)
        )
        self.narrow = nn.Linear(inner, width)

    def encode(self, signal: Tensor) -> Tensor:
        """Map signals (B, C, T) at 256 Hz to steps (B, D, T over the strides, 96)."""
        for stage in self.stages:
            signal = stage(signal)
        return signal

    def hide(
        self, steps: Tensor, where: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        """Replace steps (B, S) of `where` by the mask vector; zero `features` (B, D)."""
        if where is not None:
            steps = torch.where(where[:, None], self.mask[:, None], steps)
        return steps if features is None else steps.masked_fill(features[..., None], 0.0)

    def condition(self, steps: Tensor) -> Tensor:
        """Add positions to steps (B, D, S), normalise and widen them: (B, S, 3 D)."""
        x = steps if self.position is None else steps + F.gelu(self.position(steps))
        return self.widen(self.norm(x.transpose(1, 2)))

    def contextualise(self, steps: Tensor) -> Tensor:
        """Return contexts (B, D, 1 + S) of steps (B, D, S); the first is the start token's."""
        x = self.condition(steps)
        if self.config.start is not None:
            start = x.new_full((len(x), 1, x.shape[-1]), self.config.start)
            x = torch.cat((start, x), dim=1)
        x = x[:, None]
        for block in self.blocks:
            x = block(x, None, None)
        return self.narrow(x[:, 0]).transpose(1, 2)

    def forward(self, signal: Tensor) -> Tensor:
        """Return contexts (B, D, 1 + S) of signals (B, C, T)."""
        return self.contextualise(self.encode(signal))


def evaluation_mask(n_windows: int, n_steps: int, rate: float, span: int) -> Tensor:
    """Return the same hidden steps for every window: spans at equal distances, (B, S).

    Raises
    ------
    SignalError
        If all steps would be hidden.
    """
    n_spans = max(1, int(n_steps * rate * 0.5))
    if n_steps <= span * n_spans:
        raise SignalError(f"BENDR: {n_spans} spans of {span} steps would hide all of {n_steps}")
    starts = (n_steps // n_spans) * torch.arange(n_spans)
    hidden = (starts[:, None] + torch.arange(span)).flatten().clamp_max(n_steps - 1)
    mask = torch.zeros(n_windows, n_steps, dtype=torch.bool)
    mask[:, hidden] = True
    return mask


def contrast(steps: Tensor, contexts: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Return how alike each step is to its context, and to steps drawn from its window.

    Parameters
    ----------
    steps : Tensor, shape (B, D, S)
        Encoded, nothing hidden.
    contexts : Tensor, shape (B, D, S)
        Without the start token's.
    others : Tensor, shape (B, S, n, D)
        Drawn steps; those that equal the context do not count.
    temperature : float
        Cosines are divided by it.

    Returns
    -------
    Tensor, shape (B S, 1 + n)
        Scores; the first is of the context.
    """
    context = contexts.transpose(1, 2)[:, :, None]
    same = (context == others).all(-1)
    targets = torch.cat((context, others), dim=2)
    scores = F.cosine_similarity(steps.transpose(1, 2)[:, :, None], targets, dim=-1) / temperature
    hidden = F.pad(same, (1, 0))
    return scores.masked_fill(hidden, float("-inf")).flatten(0, 1)


def drawn_steps(steps: Tensor, draw: Tensor) -> Tensor:
    """Return steps (B, D, S) of each window by number: `draw` (B, S n) gives (B, S, n, D)."""
    found = steps.transpose(1, 2).gather(1, draw[..., None].expand(-1, -1, steps.shape[1]))
    return found.unflatten(1, (steps.shape[2], -1))


# ---------------------------------------------------------------------------------------
# From the original


def from_constructor(constructor: Mapping[str, Any]) -> BENDRConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown, or the arguments of a part are lacking.
    """
    model = "BENDR"
    parts = dict.fromkeys(("encoder", "contextualizer", "contrastive"))
    constructor_values(constructor, parts, model=model)
    encoder: dict[str, str | None] = {
        "in_features": "n_channels",
        "encoder_h": "width",
        "enc_width": "kernels",
        "enc_downsample": "strides",
        "projection_head": "projection",
        "dropout": None,
    }
    values = constructor_values(
        section(constructor, "encoder", model=model),
        encoder,
        model=f"{model} encoder",
        defaults={"encoder_h": 256},
    )
    contextualizer: dict[str, str | None] = {
        "hidden_feedforward": "hidden",
        "heads": "n_heads",
        "layers": "depth",
        "activation": "activation",
        "position_encoder": "position_kernel",
        "start_token": "start",
        # told of the encoder, or of training alone
        **dict.fromkeys(("in_features", "dropout", "layer_drop", "finetuning")),
        **dict.fromkeys(("mask_p_t", "mask_p_c", "mask_t_span", "mask_c_span")),
    }
    values |= constructor_values(
        section(constructor, "contextualizer", model=model),
        contextualizer,
        model=f"{model} contextualizer",
    )
    return config_of(BENDRConfig, values, model=model)


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names; its last norm is never used."""
    layer = r"contextualizer\.transformer_layers\.(\d+)\."
    position = "position.parametrizations.weight.original"
    rules: list[Rule] = [
        (r"encoder\.encoder\.Encoder_(\d+)\.0\.(\w+)", r"stages.\1.conv.\2"),
        (r"encoder\.encoder\.Encoder_(\d+)\.2\.(\w+)", r"stages.\1.norm.\2"),
        *_projection(original),
        (r"contextualizer\.input_conditioning\.1\.(\w+)", r"norm.\1"),
        (r"contextualizer\.input_conditioning\.4\.(\w+)", r"widen.\1"),
        (r"contextualizer\.mask_replacement", "mask"),
        (r"contextualizer\.output_layer\.(\w+)", r"narrow.\1"),
        (r"contextualizer\.relative_position\.0\.bias", "position.bias"),
        (r"contextualizer\.relative_position\.0\.weight_g", position + "0"),
        (r"contextualizer\.relative_position\.0\.weight_v", position + "1"),
        (layer + r"linear1\.(\w+)", r"blocks.\1.feedforward.widen.\2"),
        (layer + r"linear2\.(\w+)", r"blocks.\1.feedforward.narrow.\2"),
        (layer + r"self_attn\.in_proj_(\w+)", r"blocks.\1.attention.project_in.\2"),
        (layer + r"self_attn\.out_proj\.(\w+)", r"blocks.\1.attention.project_out.\2"),
    ]
    unused = {r"contextualizer\.norm\.\w+": "in the state dict, and in no forward"}
    found = rename(original, rules, unused=unused)
    for name in ("widen.weight", "narrow.weight"):
        if name in found:
            found[name] = found[name].squeeze(-1)  # convolutions of one step
    return found


def _projection(original: Mapping[str, Tensor]) -> list[Rule]:
    """Return the rules for the convolution after the numbered ones."""
    start = r"encoder\.encoder\.Encoder_\d+\.0\.bias"
    n_stages = sum(re.fullmatch(start, name) is not None for name in original)
    at = r"encoder\.encoder\.projection-1\."
    return [
        (at + r"0\.(\w+)", rf"stages.{n_stages}.conv.\1"),
        (at + r"2\.(\w+)", rf"stages.{n_stages}.norm.\1"),
    ]


PUBLISHED_BENDR = {
    "BENDR (convolutional encoder + contextualizer)": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=("nn.strided_convs", "nn.block", "nn.attention (full)"),
    ),
}

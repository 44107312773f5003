"""BrainOmni (Xiao et al., NeurIPS 2025): latent sources of EEG and MEG, told by their codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.codebook import Quantised
from neurofm.nn.rotary import Rotary
from neurofm.published import braintokenizer
from neurofm.published.entry import Published, Rule, config_of, constructor_values, rename
from neurofm.tokenizers.brain_parts import BrainPartsConfig, cut

EPS = 1e-6
BASE = 10_000.0


class BrainOmniConfig(Config):
    """Hyper-parameters of `BrainOmni`.

    Parameters
    ----------
    tokenizer : BrainPartsConfig
        The frozen tokenizer.
    overlap : float
        Share of a tokenizer window that the next one repeats.
    width, depth, n_heads : int
        Of the blocks; half the heads for sources, half for time.
    n_levels : int
        Levels of codes that are predicted.
    """

    tokenizer: BrainPartsConfig = BrainPartsConfig(unknown=False)
    overlap: float = Field(default=0.25, ge=0, lt=1)
    width: int = Field(default=256, ge=2)
    depth: int = Field(default=12, ge=1)
    n_heads: int = Field(default=8, ge=2)
    n_levels: int = Field(default=4, ge=1)

    def build(self) -> BrainOmni:
        """Build the model with fresh weights."""
        return BrainOmni(self)


class BrainOmni(nn.Module):
    """Quantised sources, blocks over sources and time, and scores of every code.

    Parameters
    ----------
    config : BrainOmniConfig
        Hyper-parameters.
    """

    def __init__(self, config: BrainOmniConfig):
        super().__init__()
        self.config = config
        inner = config.tokenizer.width
        self.tokenizer = config.tokenizer.build().requires_grad_(False)
        self.mask_token = nn.Parameter(0.02 * torch.randn(inner))
        same = inner == config.width
        self.project_in = nn.Identity() if same else nn.Linear(inner, config.width)
        style = BlockStyle(norm="rms", norm_eps=EPS, activation="selu")
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.n_heads,
                attention="swapped_halves",
                hidden=4 * config.width,
                style=style,
            )
            for _ in range(config.depth)
        )
        self.rotary = Rotary(
            config.width // config.n_heads,
            base=BASE,
            pairs="adjacent",
            spread_over=config.n_heads // 2,
        )
        self.head = nn.Linear(config.width, config.n_levels * config.tokenizer.n_codes)

    @torch.no_grad()
    def tokenize(self, signal: Tensor, geometry: Tensor, kind: Tensor) -> Quantised:
        """Return quantised sources.

        Parameters
        ----------
        signal : Tensor, shape (B, C, T)
            At 256 Hz.
        geometry : Tensor, shape (B, C, 6)
            Position and orientation, centred and scaled by kind of device.
        kind : Tensor of int, shape (B, C)
            0 EEG, 1 magnetometer, 2 gradiometer.

        Returns
        -------
        Quantised
            Content (B, S, W, D) and codes (B, S, W, Q) for W moments.
        """
        windows = cut(signal, self.config.tokenizer.window_len, self.config.overlap)
        sources = self.tokenizer.sources(windows, self.tokenizer.sensors(geometry, kind))
        found = self.tokenizer.quantise(sources)
        return Quantised(
            content=found.content.flatten(2, 3), codes=found.codes.flatten(2, 3), loss=found.loss
        )

    def enter(self, tokens: Tensor) -> Tensor:
        """Add to each source (B, S, W, D) the query that found it."""
        return tokens + self.tokenizer.to_sources.queries.detach()[:, None]

    def encode(self, tokens: Tensor) -> Tensor:
        """Return features (B, S, W, width) of unit length; the last block is for pretraining."""
        x = self._run(self.project_in(self.enter(tokens)), len(self.blocks) - 1)
        return F.normalize(x, dim=-1, eps=EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of codes, (B, S, W, Q, K)."""
        x = self._run(self.project_in(self.enter(tokens)), len(self.blocks))
        return self.head(x).unflatten(-1, (self.config.n_levels, -1))

    def _run(self, x: Tensor, depth: int) -> Tensor:
        turn = self.rotary(x.shape[2], x)
        for block in self.blocks[:depth]:
            x = block(x, None, turn)
        return x


def hide(tokens: Tensor, where: Tensor, instead: Tensor, mask_token: Tensor) -> Tensor:
    """Replace what is to be predicted, as the published pretraining does.

    Parameters
    ----------
    tokens : Tensor, shape (B, S, W, D)
        Quantised sources.
    where : Tensor of bool, shape (B, S, W)
        What is hidden.
    instead : Tensor of int, shape (B, S, W)
        For each hidden token, the flat index of the token that stands in for it, or -1 for the
        mask token.
    mask_token : Tensor, shape (D,)
        Learned.
    """
    stand_in = tokens.flatten(0, 2)[instead.clamp_min(0)]
    stand_in = torch.where((instead < 0)[..., None], mask_token, stand_in)
    return torch.where(where[..., None], stand_in, tokens)


# ---------------------------------------------------------------------------------------
# From the original


def from_constructor(constructor: Mapping[str, Any]) -> BrainOmniConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown, or has a value without a counterpart here.
    """
    ours = {
        "overlap_ratio": "overlap",
        "lm_dim": "width",
        "lm_depth": "depth",
        "lm_head": "n_heads",
        "num_quantizers_used": "n_levels",
        "lm_dropout": None,
        "mask_ratio": None,
    }
    tokenizer = {k: v for k, v in constructor.items() if k not in ours}
    values = constructor_values(
        {k: v for k, v in constructor.items() if k in ours}, ours, model="BrainOmni"
    )
    values["tokenizer"] = braintokenizer.from_constructor(tokenizer)
    if "n_heads" in values:
        values["n_heads"] -= values["n_heads"] % 2  # half of an odd number is rounded down there
    return config_of(BrainOmniConfig, values, model="BrainOmni")


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    rules: list[Rule] = [
        ("mask_token", "mask_token"),
        (r"projection\.(\w+)", r"project_in.\1"),
        (r"predict_head\.(\w+)", r"head.\1"),
        (r"blocks\.(\d+)\.pre_attn_norm\.weight", r"blocks.\1.norm_attention.weight"),
        (r"blocks\.(\d+)\.pre_ff_norm\.weight", r"blocks.\1.norm_feedforward.weight"),
        (r"blocks\.(\d+)\.ff\.layer\.0\.(\w+)", r"blocks.\1.feedforward.widen.\2"),
        (r"blocks\.(\d+)\.ff\.layer\.2\.(\w+)", r"blocks.\1.feedforward.narrow.\2"),
    ]
    for theirs, to in (("spatial_attn", "across_sites"), ("time_attn", "across_patches")):
        at = rf"blocks\.(\d+)\.{theirs}\."
        rules.append((at + r"qkv\.(\w+)", rf"blocks.\1.attention.{to}.project_in.\2"))
        rules.append((at + r"proj\.(\w+)", rf"blocks.\1.attention.{to}.project_out.\2"))
    n_ratios = braintokenizer.n_ratios_of(original, "tokenizer.")
    rules += braintokenizer.rules("tokenizer.", r"tokenizer\.", n_ratios)
    unused = {r"blocks\.\d+\.time_attn\.rope_embedding_layer\.\w+": "a table that is computed here"}
    return braintokenizer.as_flags(rename(original, rules, unused=unused))


PUBLISHED_BRAINOMNI = {
    "BrainOmni": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=(
            "tokenizers.brain_parts",
            "nn.block",
            "nn.attention (swapped_halves)",
            "nn.rotary",
        ),
    ),
}

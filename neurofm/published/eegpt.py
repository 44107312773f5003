"""EEGPT (Wang et al., NeurIPS 2024): summary tokens of each moment, aligned and reconstructed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.attention import AttentionStyle
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.rotary import Rotary
from neurofm.published.entry import (
    Published,
    Rule,
    config_of,
    constructor_values,
    norm_eps,
    rename,
    section,
)

N_NAMES = 62  # electrodes of the published table
EPS = 1e-6
BASE = 10_000.0
PATCHES_A_TURN = 2.0  # times are halved before they become angles


class EEGPTConfig(Config):
    """Hyper-parameters of `EEGPT`.

    Parameters
    ----------
    patch_len : int
        Samples in a patch; 64 at 256 Hz.
    width, n_summary, depth, n_heads : int
        Of the encoder: features, summary tokens of each patch, blocks, heads.
    predictor_width, predictor_depth, predictor_heads : int
        Of the predictor.
    reconstructor_width, reconstructor_depth, reconstructor_heads : int
        Of the reconstructor.
    mlp_ratio : float
        Hidden features of feed-forward layers, as a multiple of the width.
    qkv_bias : bool
        Whether queries, keys and values have offsets.
    norm_eps : float
        Added to the variance by every learned norm.
    """

    patch_len: int = Field(default=64, ge=1)
    width: int = Field(default=512, ge=1)
    n_summary: int = Field(default=4, ge=1)
    depth: int = Field(default=8, ge=1)
    n_heads: int = Field(default=8, ge=1)
    predictor_width: int = Field(default=512, ge=1)
    predictor_depth: int = Field(default=8, ge=1)
    predictor_heads: int = Field(default=8, ge=1)
    reconstructor_width: int = Field(default=512, ge=1)
    reconstructor_depth: int = Field(default=8, ge=1)
    reconstructor_heads: int = Field(default=8, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    qkv_bias: bool = True
    norm_eps: float = Field(default=EPS, gt=0)

    def build(self) -> EEGPT:
        """Build the model with fresh weights."""
        return EEGPT(self)

    def blocks(self, width: int, depth: int, n_heads: int) -> nn.ModuleList:
        """Return a stack of blocks."""
        style = BlockStyle(norm_eps=self.norm_eps, attention=AttentionStyle(bias=self.qkv_bias))
        hidden = int(width * self.mlp_ratio)
        return nn.ModuleList(
            Block(width, n_heads, attention="full", hidden=hidden, style=style)
            for _ in range(depth)
        )


def _half_turned(width: int, n_heads: int) -> Rotary:
    """Return angles for half the features of a head, which is all that EEGPT turns."""
    return Rotary(width // n_heads // 2, base=BASE, pairs="adjacent")


class EEGPTEncoder(nn.Module):
    """Attention across the channels of one patch, and summary tokens that gather them.

    Parameters
    ----------
    config : EEGPTConfig
        Hyper-parameters.
    """

    def __init__(self, config: EEGPTConfig):
        super().__init__()
        self.project = nn.Linear(config.patch_len, config.width)
        self.names = nn.Embedding(N_NAMES, config.width)
        self.summary = nn.Parameter(0.02 * torch.randn(config.n_summary, config.width))
        self.blocks = config.blocks(config.width, config.depth, config.n_heads)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def embed(self, patches: Tensor) -> Tensor:
        """Map patches (B, P, C, patch_len) to tokens (B, P, C, D) without place."""
        return self.project(patches)

    def forward(self, patches: Tensor, names: Tensor, visible: Tensor | None = None) -> Tensor:
        """Summarise patches.

        Parameters
        ----------
        patches : Tensor, shape (B, P, C, patch_len)
            Millivolts under average reference, at 256 Hz.
        names : Tensor of int, shape (C,)
            Rows of the table of electrodes.
        visible : Tensor of int, shape (P', C'), optional
            Numbers patch * C + channel of those that are seen.

        Returns
        -------
        Tensor, shape (B, P or P', n_summary, D)
            Summary tokens.
        """
        x = self.tokens(patches, names, visible)
        for block in self.blocks[:-1]:
            x = block(x[:, None], None, None)[:, 0]
        # of the last block, all that goes on
        summary = self.blocks[-1].some(x[:, -len(self.summary) :], x)  # type: ignore[operator]
        return self.norm(summary).unflatten(0, (len(patches), -1))

    def tokens(self, patches: Tensor, names: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return what goes into the blocks, (B P, C + n_summary, D); arguments as in `forward`."""
        x = self.embed(patches) + self.names(names)
        if visible is not None:
            x = x.flatten(1, 2)[:, visible]
        x = x.flatten(0, 1)
        return torch.cat((x, self.summary.expand(len(x), -1, -1)), dim=1)


class EEGPTPredictor(nn.Module):
    """Summary tokens of all patches, from those of some.

    Parameters
    ----------
    config : EEGPTConfig
        Hyper-parameters.
    """

    def __init__(self, config: EEGPTConfig):
        super().__init__()
        width = config.predictor_width
        self.project_in = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(config.n_summary, width))
        self.blocks = config.blocks(width, config.predictor_depth, config.predictor_heads)
        self.rotary = _half_turned(width, config.predictor_heads)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.project_out = nn.Linear(width, config.width)

    def forward(self, summary: Tensor, times: Tensor, n_patches: int) -> Tensor:
        """Predict.

        Parameters
        ----------
        summary : Tensor, shape (B, P', n_summary, D)
            Of the patches seen.
        times : Tensor of int, shape (P',)
            Which patches these are.
        n_patches : int
            P.

        Returns
        -------
        Tensor, shape (B, P, n_summary, D)
            For every patch.
        """
        x = self.mask_token.expand(len(summary), n_patches, -1, -1).clone()
        x[:, times] = self.project_in(summary)
        x = x.transpose(1, 2)  # a grid: summary tokens are its sites
        when = torch.arange(n_patches, device=x.device) / PATCHES_A_TURN
        turn = self.rotary.at(when, x)
        for block in self.blocks:
            x = block(x, None, turn)
        return self.project_out(self.norm(x)).transpose(1, 2)


class EEGPTReconstructor(nn.Module):
    """Samples of patches that were not seen, from summary tokens of all.

    Parameters
    ----------
    config : EEGPTConfig
        Hyper-parameters.
    """

    def __init__(self, config: EEGPTConfig):
        super().__init__()
        width = config.reconstructor_width
        self.project_in = nn.Linear(config.width, width)
        self.names = nn.Embedding(N_NAMES, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = config.blocks(width, config.reconstructor_depth, config.reconstructor_heads)
        self.rotary = _half_turned(width, config.reconstructor_heads)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.project_out = nn.Linear(width, config.patch_len)

    def forward(self, summary: Tensor, names: Tensor, hidden: Tensor) -> Tensor:
        """Reconstruct patches.

        Parameters
        ----------
        summary : Tensor, shape (B, P, n_summary, D)
            Of every patch.
        names : Tensor of int, shape (C,)
            Rows of the table of electrodes.
        hidden : Tensor of int, shape (n,)
            Numbers patch * C + channel of what to reconstruct.

        Returns
        -------
        Tensor, shape (B, n, patch_len)
            Samples.
        """
        n_windows, n_patches, n_summary, _ = summary.shape
        queries = self.mask_token + self.names(names[hidden % len(names)])
        x = torch.cat(
            (self.project_in(summary).flatten(1, 2), queries.expand(n_windows, -1, -1)), dim=1
        )
        patch = torch.arange(n_patches, device=x.device).repeat_interleave(n_summary)
        when = torch.cat((patch, hidden // len(names))) / PATCHES_A_TURN
        turn = self.rotary.at(when, x)
        x = x[:, None]
        for block in self.blocks:
            x = block(x, None, turn)
        return self.project_out(self.norm(x[:, 0, -len(hidden) :]))


class EEGPT(nn.Module):
    """Encoder, its slow copy, predictor and reconstructor, as they are pretrained.

    Parameters
    ----------
    config : EEGPTConfig
        Hyper-parameters.
    """

    def __init__(self, config: EEGPTConfig):
        super().__init__()
        self.config = config
        self.encoder = EEGPTEncoder(config)
        self.target_encoder = EEGPTEncoder(config).requires_grad_(False)
        self.predictor = EEGPTPredictor(config)
        self.reconstructor = EEGPTReconstructor(config)

    def patches(self, signal: Tensor) -> Tensor:
        """Cut signals (B, C, T) into patches (B, P, C, patch_len).

        Raises
        ------
        ConfigError
            If a window is no whole number of patches.
        """
        length = self.config.patch_len
        if signal.shape[-1] % length:
            raise ConfigError(
                f"EEGPT: a window of {signal.shape[-1]} samples is no whole number of patches of "
                f"{length}",
                hint=f"cut windows of a multiple of {length} samples",
            )
        return signal.unflatten(-1, (-1, length)).transpose(1, 2)

    def targets(self, signal: Tensor, names: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is to be predicted: summary tokens of the slow copy, and patches.

        Both are normalised, by token and by patch.
        """
        patches = self.patches(signal)
        with torch.no_grad():
            summary = self.target_encoder(patches, names)
            summary = F.layer_norm(summary, summary.shape[-1:])
        samples = patches.flatten(1, 2)[:, hidden]
        return summary, F.layer_norm(samples, samples.shape[-1:])


def combine(seen: Tensor, predicted: Tensor, times: Tensor) -> Tensor:
    """Put summary tokens that were seen in place of those predicted, (B, P, n_summary, D)."""
    out = predicted.clone()
    out[:, times] = seen
    return out


# ---------------------------------------------------------------------------------------
# From the original


def from_constructor(constructor: Mapping[str, Any]) -> EEGPTConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown or has no counterpart here, or those of a part are lacking.
    """
    model = "EEGPT"
    parts = ("encoder", "predictor", "reconstructor")
    names = {"patch_size": "patch_len", "mlp_ratio": "mlp_ratio", "qkv_bias": "qkv_bias"}
    known = {**names, **dict.fromkeys((*parts, "img_size", "norm_layer"))}
    values = constructor_values(constructor, known, model=model)
    values["norm_eps"] = norm_eps(constructor.get("norm_layer"), model=model)
    sizes = {"embed_dim": "width", "embed_num": "n_summary", "depth": "depth"}
    values |= constructor_values(
        section(constructor, "encoder", model=model),
        {**sizes, "num_heads": "n_heads"},
        model=f"{model} encoder",
        defaults={"embed_dim": 768, "embed_num": 1, "depth": 12, "num_heads": 12},
    )
    for part in parts[1:]:
        ours = {
            "embed_dim": None,
            "embed_num": None,
            f"{part}_embed_dim": f"{part}_width",
            "depth": f"{part}_depth",
            "num_heads": f"{part}_heads",
        }
        values |= constructor_values(
            section(constructor, part, model=model),
            ours,
            model=f"{model} {part}",
            defaults={f"{part}_embed_dim": 384, "depth": 6, "num_heads": 12},
            only={"use_part_pred": True} if part == "predictor" else {},
        )
    return config_of(EEGPTConfig, values, model=model)


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    rules: list[Rule] = []
    for part, stack in (
        (r"encoder", "blocks"),
        (r"target_encoder", "blocks"),
        (r"predictor", "predictor_blocks"),
        (r"reconstructor", "reconstructor_blocks"),
    ):
        at, to = rf"{part}\.{stack}\.(\d+)\.", rf"{part}.blocks.\1."
        rules += [
            (at + r"norm1\.(\w+)", to + r"norm_attention.\2"),
            (at + r"norm2\.(\w+)", to + r"norm_feedforward.\2"),
            (at + r"attn\.qkv\.(\w+)", to + r"attention.project_in.\2"),
            (at + r"attn\.proj\.(\w+)", to + r"attention.project_out.\2"),
            (at + r"mlp\.fc1\.(\w+)", to + r"feedforward.widen.\2"),
            (at + r"mlp\.fc2\.(\w+)", to + r"feedforward.narrow.\2"),
            (rf"{part}\.chan_embed\.weight", f"{part}.names.weight"),
            (rf"{part}\.patch_embed\.proj\.(\w+)", rf"{part}.project.\1"),
            (rf"{part}\.summary_token", f"{part}.summary"),
            (rf"{part}\.mask_token", f"{part}.mask_token"),
            (rf"{part}\.(?:{part}_)?norm\.(\w+)", rf"{part}.norm.\1"),
            (rf"{part}\.{part}_embed\.(\w+)", rf"{part}.project_in.\1"),
            (rf"{part}\.{part}_proj\.(\w+)", rf"{part}.project_out.\1"),
        ]
    unused = {r"\w+\.time_embed\.freqs": "frequencies that are computed here, and not trained"}
    found = rename(original, rules, unused=unused)
    for name, value in found.items():
        if name.endswith(("summary", "mask_token")):
            found[name] = value.reshape(-1, value.shape[-1])
        elif name.endswith("project.weight"):
            found[name] = value.flatten(1)
    if "reconstructor.mask_token" in found:
        found["reconstructor.mask_token"] = found["reconstructor.mask_token"].flatten()
    return found


PUBLISHED_EEGPT = {
    "EEGPT (encoder, predictor, reconstructor)": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=("nn.block", "nn.attention (full)", "nn.rotary"),
    ),
}

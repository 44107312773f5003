"""LaBraM (Jiang et al., ICLR 2024): a table of electrode names, a transformer over all patches."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.attention import AttentionStyle
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.norm import NormName
from neurofm.nn.patch_convs import PatchConvs, labram_convs

N_GROUPS = 4
N_NAMES = 129  # 128 electrode names, and one row before them for the class token
N_PATCHES = 16
EPS = 1e-6
Form = Literal["finetuning", "pretraining"]


class LaBraMConfig(Config):
    """Hyper-parameters of `LaBraM`.

    Parameters
    ----------
    patch_len : int
        Samples in a patch; 200, at 200 Hz.
    width : int
        Features of a token: filters times 25 steps.
    n_filters : int
        Filters of the temporal convolutions. None takes features in place of samples, through
        one linear map: the form of the tokenizer's decoder.
    depth, n_heads : int
        Blocks, and heads of each.
    head_width : int, optional
        Features of a head; by default heads share the width.
    mlp_ratio : float
        Hidden features of the feed-forward layer, as a multiple of the width, rounded down.
    qkv_bias : bool
        Whether queries and values have offsets; keys never do.
    qk_norm : "layer", optional
        Normalise queries and keys.
    norm_eps, qk_norm_eps : float
        Added to the variance by the norms, and by those of queries and keys.
    layer_scale : float, optional
        Start value of the factors of what a block adds.
    n_out : int
        Classes, or codes; 0 leaves the head out.
    pooling : "mean" or "class"
        Whether the fine-tuning form normalises the mean of all but the class token, or takes the
        normalised class token.
    form : "finetuning" or "pretraining"
        Pooling, a norm and a head; or a norm and scores of every patch, with a mask token.
    """

    patch_len: int = Field(default=200, ge=1)
    width: int = Field(default=200, ge=1)
    n_filters: int | None = Field(default=8, ge=1)
    depth: int = Field(default=12, ge=1)
    n_heads: int = Field(default=10, ge=1)
    head_width: int | None = Field(default=None, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    qkv_bias: bool = False
    qk_norm: NormName | None = "layer"
    norm_eps: float = Field(default=EPS, gt=0)
    qk_norm_eps: float = Field(default=EPS, gt=0)
    layer_scale: float | None = 0.1
    n_out: int = Field(default=0, ge=0)
    pooling: Literal["mean", "class"] = "mean"
    form: Form = "finetuning"

    def build(self) -> LaBraM:
        """Build the model with fresh weights.

        Raises
        ------
        ConfigError
            If the filters' output is not as wide as a token.
        """
        return LaBraM(self)


class LaBraM(nn.Module):
    """Encoder, with a class token that is counted as the first.

    In the fine-tuning form the class token has the place of row 0 of the names; in the published
    pretraining form that of the first channel. Both are kept, since weights depend on them.

    Parameters
    ----------
    config : LaBraMConfig
        Hyper-parameters.
    """

    def __init__(self, config: LaBraMConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.convs: nn.Module
        if config.n_filters is None:
            self.convs = nn.Linear(config.patch_len, width)
        else:
            self.convs = _patch_convs(config.n_filters, config)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.names = nn.Parameter(torch.zeros(N_NAMES, width))
        self.times = nn.Parameter(torch.zeros(N_PATCHES, width))
        style = BlockStyle(
            norm_eps=config.norm_eps,
            attention=AttentionStyle(
                bias=config.qkv_bias,
                head_width=config.head_width,
                qk_norm=config.qk_norm,
                norm_eps=config.qk_norm_eps,
            ),
            layer_scale=config.layer_scale,
        )
        hidden = int(width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(width, config.n_heads, attention="full", hidden=hidden, style=style)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = nn.Linear(width, config.n_out) if config.n_out else nn.Identity()
        pretraining = config.form == "pretraining"
        self.mask_token = nn.Parameter(torch.zeros(width)) if pretraining else None

    def embed(self, patches: Tensor) -> Tensor:
        """Map patches (B, C, P, patch_len) to tokens (B, C P, D) without place."""
        return self.convs(patches.flatten(1, 2))

    def place(self, x: Tensor, names: Tensor, n_patches: int) -> Tensor:
        """Add places to tokens (B, C P, D) and put the class token before them."""
        channel, time = self.names[names], self.times[:n_patches]
        x = x + (channel[1:, None] + time).flatten(0, 1)
        first = channel[1] if self.config.form == "pretraining" else channel[0]
        start = (self.class_token + first).expand(len(x), 1, -1)
        return torch.cat((start, x), dim=1)

    def encode(self, patches: Tensor, names: Tensor, hide: Tensor | None = None) -> Tensor:
        """Encode patches.

        Parameters
        ----------
        patches : Tensor, shape (B, C, P, patch_len)
            Microvolts divided by 100, at 200 Hz.
        names : Tensor of int, shape (1 + C,)
            Zero for the class token, then one plus each channel's index among LaBraM's names.
        hide : Tensor of bool, shape (B, C P), optional
            Patches whose tokens the mask token replaces; only in the pretraining form.

        Returns
        -------
        Tensor, shape (B, 1 + C P, D)
            After the last block, before the norm.

        Raises
        ------
        ConfigError
            If there are more patches than the table of times has rows, or nothing to hide with.
        """
        if patches.shape[2] > N_PATCHES:
            raise ConfigError(
                f"LaBraM: {patches.shape[2]} patches in a window; its table of times ends at "
                f"{N_PATCHES}",
                hint=f"cut windows of at most {N_PATCHES} s",
            )
        x = self.embed(patches)
        if hide is not None:
            if self.mask_token is None:
                raise ConfigError(
                    "LaBraM: the fine-tuning form has no mask token",
                    hint="build it with form: pretraining",
                )
            x = torch.where(hide[..., None], self.mask_token, x)
        x = self.place(x, names, patches.shape[2])[:, None]  # a grid of one site
        for block in self.blocks:
            x = block(x, None, None)
        return x[:, 0]

    def forward(self, patches: Tensor, names: Tensor, hide: Tensor | None = None) -> Tensor:
        """Return class scores (B, n_out), or in the pretraining form scores (B, C P, n_out)."""
        x = self.encode(patches, names, hide)
        if self.config.form == "pretraining":
            return self.head(self.norm(x)[:, 1:])
        return self.head(self.pool(x))

    def pool(self, x: Tensor) -> Tensor:
        """Return one vector a window, (B, D), of tokens (B, 1 + C P, D) before the norm."""
        if self.config.pooling == "class":
            return self.norm(x[:, 0])
        return self.norm(x[:, 1:].mean(1))


def _patch_convs(n_filters: int, config: LaBraMConfig) -> PatchConvs:
    convs = labram_convs(n_filters, N_GROUPS)
    if convs.n_features(config.patch_len) != config.width:
        raise ConfigError(
            f"LaBraM: {n_filters} filters give {convs.n_features(config.patch_len)} features of a "
            f"patch, and width is {config.width}",
            hint=f"set width to {convs.n_features(config.patch_len)}",
        )
    return convs

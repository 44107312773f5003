"""LUNA (Döner et al., NeurIPS 2025): queries gather any montage, a transformer over time.

Where paper and code differ, this follows the code. One thing of the code is left out unless asked
for: in a batch of several windows it gives a window's patches the positions of other windows.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.magnitude_phase import MagnitudePhase
from neurofm.nn.octaves import octaves, to_unit_box
from neurofm.nn.patch_convs import PatchConvs
from neurofm.nn.rotary import Rotary
from neurofm.nn.unify import Unify
from neurofm.published.luna_parts import Classify, Reconstruct

N_GROUPS = 4
BASE = 10_000.0
JITTER = 0.02  # of positions in training, in heads


class LUNAConfig(Config):
    """Hyper-parameters of `LUNA`.

    Parameters
    ----------
    patch_len : int
        Samples in a patch; 40 at 256 Hz.
    n_queries : int
        Queries that gather the channels of a patch.
    width : int
        Features of a channel's token; a patch has `n_queries` times as many.
    depth, n_heads : int
        Blocks over time, and heads a query.
    mlp_ratio : float
        Hidden features of the blocks over time, as a multiple of their width.
    n_classes : int
        Classes; 0 for a head that reconstructs samples.
    mixes_windows : bool
        Do as the published code: patch s of window b takes the positions and names of window
        (b S + s) mod B. It matters only where a batch holds several layouts.
    """

    patch_len: int = Field(default=40, ge=8, multiple_of=4)
    n_queries: int = Field(default=4, ge=1)
    width: int = Field(default=64, ge=4, multiple_of=4)
    depth: int = Field(default=8, ge=1)
    n_heads: int = Field(default=2, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    n_classes: int = Field(default=0, ge=0)
    mixes_windows: bool = False

    def build(self) -> LUNA:
        """Build the model with fresh weights.

        Raises
        ------
        ConfigError
            If the filters' output is not as wide as a token.
        """
        return LUNA(self)


class LUNA(nn.Module):
    """Encoder, and the head that its config names.

    Parameters
    ----------
    config : LUNAConfig
        Hyper-parameters.
    """

    def __init__(self, config: LUNAConfig):
        super().__init__()
        self.config = config
        width, inner = config.width, config.n_queries * config.width
        self.convs = _patch_convs(config)
        self.spectrum = MagnitudePhase(config.patch_len, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.place = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, width),
        )
        self.unify = Unify(config.n_queries, width, config.n_heads)
        n_heads = config.n_heads * config.n_queries
        self.rotary = Rotary(inner // n_heads, base=BASE, pairs="adjacent")
        self.blocks = nn.ModuleList(
            Block(
                inner,
                n_heads,
                attention="full",
                hidden=int(inner * config.mlp_ratio),
                style=BlockStyle(norm_hidden=True),
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(inner)
        self.classify = self.reconstruct = None
        if config.n_classes:
            self.classify = Classify(inner, config.n_heads, config.n_classes)
        else:
            self.reconstruct = Reconstruct(config.patch_len, width, config.n_heads)

    def patches(self, signal: Tensor) -> Tensor:
        """Cut signals (B, C, T) into patches (B, C, S, patch_len).

        Raises
        ------
        ConfigError
            If a window is no whole number of patches.
        """
        length = self.config.patch_len
        if signal.shape[-1] % length:
            raise ConfigError(
                f"LUNA: a window of {signal.shape[-1]} samples is no whole number of patches of "
                f"{length}",
                hint=f"cut windows of a multiple of {length} samples",
            )
        return signal.unflatten(-1, (-1, length))

    def embed(self, patches: Tensor) -> Tensor:
        """Map patches (B, C, S, patch_len) to features of their course, (B, C, S, E)."""
        return self.convs(patches.flatten(1, 2)).unflatten(1, patches.shape[1:3])

    def locate(self, position: Tensor, jitter: Tensor | None = None) -> Tensor:
        """Encode positions (B, C, 3) in any unit, (B, C, E).

        `jitter`, of standard deviation one, moves them a little, as in pretraining.
        """
        position = to_unit_box(position)
        if jitter is not None:
            position = position + JITTER * jitter
        return self.place(octaves(position, self.config.width))

    def repeat(self, x: Tensor, n_patches: int) -> Tensor:
        """Give what channels are (B, C, E) to each of their patches, (B S, C, E)."""
        if self.config.mixes_windows:
            return x.repeat(n_patches, 1, 1)
        return x.repeat_interleave(n_patches, 0)

    def tokens(self, signal: Tensor, place: Tensor, hide: Tensor | None = None) -> Tensor:
        """Return one token for each channel of each patch, (B S, C, E); see `encode`."""
        # channels of a patch side by side from the start: what comes in is the least to rearrange
        patches = self.patches(signal).transpose(1, 2).contiguous()  # (B, S, C, patch_len)
        x = self.embed(patches) + self.spectrum(patches)
        if hide is not None:
            hidden = self.patches(hide).any(-1).transpose(1, 2)
            x = torch.where(hidden[..., None], self.mask_token, x)
        if self.config.mixes_windows:
            return x.flatten(0, 1) + self.repeat(place, patches.shape[1])
        return x.add_(place[:, None]).flatten(0, 1)

    def encode(self, signal: Tensor, place: Tensor, hide: Tensor | None = None) -> Tensor:
        """Encode windows.

        Parameters
        ----------
        signal : Tensor, shape (B, C, T)
            Each channel of mean zero and variance one, at 256 Hz.
        place : Tensor, shape (B, C, E)
            What `locate` returns.
        hide : Tensor of bool, shape (B, C, T), optional
            Samples whose patches the mask token replaces.

        Returns
        -------
        Tensor, shape (B, S, Q E)
            Normalised.
        """
        x = self.unify(self.tokens(signal, place, hide)).flatten(1)
        x = x.unflatten(0, (len(signal), -1))[:, None]  # a grid of one site
        turn = self.rotary(x.shape[2], x)
        for block in self.blocks:
            x = block(x, None, turn)
        return self.norm(x[:, 0])

    def forward(
        self,
        signal: Tensor,
        position: Tensor,
        *,
        names: Tensor | None = None,
        hide: Tensor | None = None,
        jitter: Tensor | None = None,
    ) -> Tensor:
        """Return scores (B, n_classes), or reconstructed signals (B, C, T).

        Parameters
        ----------
        signal, hide : Tensor
            As `encode` takes them.
        position : Tensor, shape (B, C, 3)
            Of channels; of a pair, the point between.
        names : Tensor of int, shape (B, C), optional
            Rows of the table of channels, which the head that reconstructs needs.
        jitter : Tensor, shape (B, C, 3), optional
            Standard normal noise, as in pretraining.

        Raises
        ------
        ConfigError
            If signals are to be reconstructed and `names` are not given.
        """
        place = self.locate(position, jitter)
        x = self.encode(signal, place, hide)
        if self.classify is not None:
            return self.classify(x)
        if self.reconstruct is None or names is None:
            raise ConfigError(
                "LUNA: channels are reconstructed by their names, and none are given",
                hint="pass names: rows of the published table of channels",
            )
        n_patches = x.shape[1]
        query = self.repeat(place + self.reconstruct.names(names), n_patches)
        latents = x.flatten(0, 1).unflatten(-1, (self.config.n_queries, -1))
        samples = self.reconstruct(query, latents).unflatten(0, (-1, n_patches))
        return samples.transpose(1, 2).flatten(2)


def _patch_convs(config: LUNAConfig) -> PatchConvs:
    kernel, n_filters = config.patch_len // 2 - 1, config.width // 4
    convs = PatchConvs(
        n_filters,
        N_GROUPS,
        kernels=(kernel, 3, 3),
        strides=(config.patch_len // 4, 1, 1),
        paddings=(kernel // 2, 1, 1),
        filters_fast=True,
    )
    if convs.n_features(config.patch_len) != config.width:
        raise ConfigError(
            f"LUNA: a patch of {config.patch_len} samples gives "
            f"{convs.n_features(config.patch_len)} features, and width is {config.width}",
            hint="choose a patch_len that is a multiple of 4",
        )
    return convs

"""CBraMod (Wang et al., ICLR 2025): criss-cross attention over patches and their spectra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.block import Block
from neurofm.nn.depthwise_conv import DepthwiseConv
from neurofm.nn.patch_convs import PatchConvs
from neurofm.nn.polar import magnitude
from neurofm.published.entry import Published, config_of, constructor_values, rename

N_FILTERS, N_GROUPS = 25, 5
PLACE_KERNEL = (19, 7)  # channels, patches


class CBraModConfig(Config):
    """Hyper-parameters of `CBraMod`.

    Parameters
    ----------
    patch_len : int
        Samples in a patch; 200, at 200 Hz.
    width : int
        Features of a token: 25 filters times 8 steps.
    hidden : int
        Hidden features of the feed-forward layer.
    depth, n_heads : int
        Blocks, and heads of each: half across channels, half across patches.
    n_out : int
        Samples that the reconstruction gives of a patch.
    """

    patch_len: int = Field(default=200, ge=25)
    width: int = Field(default=200, ge=2)
    hidden: int = Field(default=800, ge=1)
    depth: int = Field(default=12, ge=1)
    n_heads: int = Field(default=8, ge=2)
    n_out: int = Field(default=200, ge=1)

    def build(self) -> CBraMod:
        """Build the model with fresh weights.

        Raises
        ------
        ConfigError
            If the filters' output is not as wide as a token.
        """
        return CBraMod(self)


class CBraMod(nn.Module):
    """Encoder and reconstruction.

    A masked patch is replaced by a learned one before both branches, so that it has a spectrum.
    Places come from a convolution over the order of channels, which is therefore part of the
    model's input.

    Parameters
    ----------
    config : CBraModConfig
        Hyper-parameters.
    """

    def __init__(self, config: CBraModConfig):
        super().__init__()
        width = config.width
        self.convs = PatchConvs(
            N_FILTERS,
            N_GROUPS,
            kernels=(49, 3, 3),
            strides=(25, 1, 1),
            paddings=(24, 1, 1),
            filters_fast=False,
        )
        if self.convs.n_features(config.patch_len) != width:
            raise ConfigError(
                f"CBraMod: patches of {config.patch_len} samples give "
                f"{self.convs.n_features(config.patch_len)} features, and width is {width}",
                hint=f"set width to {self.convs.n_features(config.patch_len)}",
            )
        self.spectrum = nn.Linear(config.patch_len // 2 + 1, width)
        self.place = DepthwiseConv(width, PLACE_KERNEL)
        self.mask_patch = nn.Parameter(torch.zeros(config.patch_len))
        self.blocks = nn.ModuleList(
            Block(width, config.n_heads, attention="split_halves", hidden=config.hidden)
            for _ in range(config.depth)
        )
        self.reconstruct = nn.Linear(width, config.n_out)

    def embed(self, patches: Tensor, hide: Tensor | None = None) -> Tensor:
        """Map patches (B, C, P, patch_len), those of `hide` (B, C, P) replaced, to tokens."""
        if hide is not None:
            patches = torch.where(hide[..., None], self.mask_patch, patches)
        n_channels = patches.shape[1]
        samples = self.convs(patches.flatten(1, 2)).unflatten(1, (n_channels, -1))
        frequencies = torch.fft.rfft(patches, dim=-1, norm="forward")
        tokens = samples + self.spectrum(magnitude(frequencies))
        return tokens + self.place(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def encode(self, patches: Tensor, hide: Tensor | None = None) -> Tensor:
        """Return tokens after the last block, which no norm follows, (B, C, P, D)."""
        x = self.embed(patches, hide)
        for block in self.blocks:
            x = block(x, None, None)
        return x

    def forward(self, patches: Tensor, hide: Tensor | None = None) -> Tensor:
        """Reconstruct patches.

        Parameters
        ----------
        patches : Tensor, shape (B, C, P, patch_len)
            Microvolts divided by 100, at 200 Hz.
        hide : Tensor of bool, shape (B, C, P), optional
            Patches to predict.

        Returns
        -------
        Tensor, shape (B, C, P, n_out)
            Every patch.
        """
        return self.reconstruct(self.encode(patches, hide))


def from_constructor(constructor: Mapping[str, Any]) -> CBraModConfig:
    """Return our config from the original's arguments."""
    names = {
        "in_dim": "patch_len",
        "d_model": "width",
        "out_dim": "n_out",
        "dim_feedforward": "hidden",
        "seq_len": None,  # places come from a convolution, of any length
        "n_layer": "depth",
        "nhead": "n_heads",
    }
    values = constructor_values(constructor, names, model="CBraMod", defaults={"nhead": 8})
    values["n_heads"] -= values["n_heads"] % 2  # half of an odd number is rounded down there
    return config_of(CBraModConfig, values, model="CBraMod")


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    layer = r"encoder\.layers\.(\d+)\."
    rules = [
        (r"patch_embedding\.mask_encoding", "mask_patch"),
        (r"patch_embedding\.positional_encoding\.0\.(\w+)", r"place.\1"),
        (r"patch_embedding\.spectral_proj\.0\.(\w+)", r"spectrum.\1"),
        (layer + r"self_attn_s\.in_proj_(\w+)", r"blocks.\1.attention.across_sites.project_in.\2"),
        (
            layer + r"self_attn_t\.in_proj_(\w+)",
            r"blocks.\1.attention.across_patches.project_in.\2",
        ),
        (
            layer + r"self_attn_s\.out_proj\.(\w+)",
            r"blocks.\1.attention.across_sites.project_out.\2",
        ),
        (
            layer + r"self_attn_t\.out_proj\.(\w+)",
            r"blocks.\1.attention.across_patches.project_out.\2",
        ),
        (layer + r"norm1\.(\w+)", r"blocks.\1.norm_attention.\2"),
        (layer + r"norm2\.(\w+)", r"blocks.\1.norm_feedforward.\2"),
        (layer + r"linear1\.(\w+)", r"blocks.\1.feedforward.widen.\2"),
        (layer + r"linear2\.(\w+)", r"blocks.\1.feedforward.narrow.\2"),
        (r"proj_out\.0\.(\w+)", r"reconstruct.\1"),
    ]
    for step in range(3):
        rules.append((rf"patch_embedding\.proj_in\.{3 * step}\.(\w+)", rf"convs.convs.{step}.\1"))
        rules.append(
            (rf"patch_embedding\.proj_in\.{3 * step + 1}\.(\w+)", rf"convs.norms.{step}.\1")
        )
    found = rename(original, rules)
    for name in [n for n in found if _is_kernel(n)]:
        found[name] = found[name].squeeze(2)  # 2-D kernels of height one
    return found


def _is_kernel(name: str) -> bool:
    """Tell whether a weight of ours is a kernel of the patch convolutions."""
    return name.startswith("convs.convs.") and name.endswith(".weight")


PUBLISHED_CBRAMOD = {
    "CBraMod": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=("nn.patch_convs", "nn.block", "nn.attention (split_halves)"),
    ),
}

"""The encoder: a tokenizer and a backbone, and the token that stands for what is hidden."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.backbones.packed import encode_packed
from neurofm.backbones.pyramid import PyramidConfig
from neurofm.backbones.table import BackboneConfig
from neurofm.backbones.transformer import TransformerConfig
from neurofm.config import Config
from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, SignalError
from neurofm.nn.packed_kernels import PackName
from neurofm.signals import Batch, Grid
from neurofm.tokenizers.patch import LinearPatchConfig
from neurofm.tokenizers.table import TokenizerConfig


class EncoderConfig(Config):
    """Architecture of an encoder: all a checkpoint needs to build it again.

    Parameters
    ----------
    width : int
        Features of a token.
    tokenizer : TokenizerConfig
        How signal becomes tokens.
    backbone : BackboneConfig
        How tokens are mixed.
    padding : "mask" or "pack"
        What becomes of windows of different numbers of channels in a batch: padding is masked,
        which costs as if it were signal, or left out, which costs sorting. No number changes.
    packed_by : "auto", "varlen", "flex" or "calls"
        What keeps windows apart in a transformer's attention where padding is left out: flash
        attention of varying lengths (half precision on a GPU), FlexAttention (forward alone, but
        on a GPU), or a call for each number of channels. By default the first that the device
        has, and calls on a processor; what cannot do it gives way to the next.
    """

    width: int = Field(default=128, ge=2)
    tokenizer: TokenizerConfig = LinearPatchConfig()
    backbone: BackboneConfig = TransformerConfig()
    padding: Literal["mask", "pack"] = "mask"
    packed_by: PackName = "auto"

    def build(self, contract: SignalContract) -> Encoder:
        """Build an encoder for signals under `contract`, with fresh weights.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, or heads the width.
        """
        return Encoder(self, contract)


class Encoder(nn.Module):
    """Windows in, encoded tokens out.

    Parameters
    ----------
    config : EncoderConfig
        Architecture.
    contract : SignalContract
        The signals it is for.
    """

    def __init__(self, config: EncoderConfig, contract: SignalContract):
        super().__init__()
        self.config = config
        self.width = config.width
        self.tokenizer = config.tokenizer.build(contract, config.width)
        self.backbone = config.backbone.build(config.width)
        self.mask_token = nn.Parameter(torch.empty(config.width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, batch: Batch, hide: Tensor | None = None) -> Grid:
        """Encode windows.

        Parameters
        ----------
        batch : Batch
            Standardised windows.
        hide : Tensor of bool, shape (B, S, P), optional
            Tokens whose content is replaced by the learned mask token before encoding;
            their place is kept.

        Returns
        -------
        Grid
            Encoded tokens in `content`, shape (B, S, P, D), after the final norm; zeros
            where nothing is present. Of a backbone with summary tokens these alone are the sites.

        Raises
        ------
        ContractError
            If the batch has another sampling rate.
        SignalError
            If a tensor has the wrong shape.
        ConfigError
            If tokens are hidden and the backbone lets patches go, hidden ones among them.
        """
        grid = self.tokenizer(batch)
        if hide is not None:
            if hide.shape != grid.present.shape or hide.dtype is not torch.bool:
                raise SignalError(
                    f"hide is {hide.dtype} of shape {tuple(hide.shape)}, expected torch.bool of "
                    f"shape {tuple(grid.present.shape)}: windows, sites, patches"
                )
            self.require_every_patch()
            mask_token = self.mask_token.to(grid.content.dtype)
            grid = grid.evolve(content=torch.where(hide[..., None], mask_token, grid.content))
        if self.config.padding == "pack":
            return encode_packed(self.backbone, grid, self.config.packed_by)
        encoded: Grid = self.backbone(grid)
        return encoded

    @property
    def summarises(self) -> bool:
        """Whether summary tokens go out, and no sites."""
        backbone = self.config.backbone
        return isinstance(backbone, TransformerConfig) and backbone.n_summary > 0

    @property
    def sites_are_channels(self) -> bool:
        """Whether an encoded token is one of a channel, with that channel's number."""
        return self.tokenizer.sites_are_channels and not self.summarises

    def require_every_patch(self) -> None:
        """Make sure that every patch has an encoding: some are to be predicted.

        Raises
        ------
        ConfigError
            If the backbone lets patches go.
        """
        backbone = self.config.backbone
        if isinstance(backbone, PyramidConfig) and backbone.shortens:
            raise ConfigError(
                "tokens were hidden to be predicted, and the pyramid lets patches go: "
                "some would have no encoding",
                hint="leave n_out out of backbone.layers",
            )

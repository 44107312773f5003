"""Transformer over a grid of sites and patches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from neurofm.config import Config
from neurofm.nn.attention import AttentionName
from neurofm.nn.block import Block
from neurofm.nn.rotary import Rotary
from neurofm.signals import Grid


class TransformerConfig(Config):
    """Hyper-parameters of `Transformer`.

    Parameters
    ----------
    depth : int
        Number of blocks.
    n_heads : int
        Heads of each block; even for criss-cross attention.
    mlp_ratio : float
        Hidden features of the feed-forward layer, as a multiple of the width.
    dropout : float
        Share of features dropped in training.
    attention : "full" or "criss_cross"
        All tokens of a window at once, or across sites and across time in turn by half of
        the heads each.
    """

    name: Literal["transformer"] = "transformer"
    depth: int = Field(default=4, ge=1)
    n_heads: int = Field(default=8, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    attention: AttentionName = "criss_cross"

    def build(self, width: int) -> Transformer:
        """Build the module for tokens of `width` features.

        Raises
        ------
        ConfigError
            If the heads do not fit the width.
        """
        return Transformer(self, width)


class Transformer(nn.Module):
    """Pre-norm blocks and a final norm; time enters as rotary angles, space as place.

    Parameters
    ----------
    config : TransformerConfig
        Hyper-parameters.
    width : int
        Features of a token.
    """

    def __init__(self, config: TransformerConfig, width: int):
        super().__init__()
        self.config = config
        self.width = width
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.n_heads,
                attention=config.attention,
                hidden=max(1, round(width * config.mlp_ratio)),
                dropout=config.dropout,
            )
            for _ in range(config.depth)
        )
        self.rotary = Rotary(width // config.n_heads)
        self.norm = nn.LayerNorm(width)
        for block in self.blocks:
            if isinstance(block, Block):
                block.initialise(config.depth)

    def forward(self, grid: Grid) -> Grid:
        """Encode tokens.

        Parameters
        ----------
        grid : Grid
            Content (B, S, P, D) and place of each token.

        Returns
        -------
        Grid
            The same grid with encoded content: zeros where nothing is present.
        """
        absent = ~grid.present[..., None]
        x = grid.tokens.masked_fill(absent, 0.0)
        # asked once a pass, since the answer has to come back from the device
        present = None if bool(grid.present.all()) else grid.present
        turn = self.rotary(x.shape[2], x)
        for block in self.blocks:
            x = block(x, present, turn)
        return grid.evolve(content=self.norm(x).masked_fill(absent, 0.0))

"""Mamba over a grid of sites and patches."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.backbones.stream import Stream, after
from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.attention import AttentionName, AttentionStyle
from neurofm.nn.bidirectional import BidirectionalBlock
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.mamba1 import Mamba1Config, MambaState
from neurofm.nn.mamba2 import Mamba2Config
from neurofm.nn.memory import Memory
from neurofm.nn.norm import NormName, build_norm
from neurofm.nn.rotary import Rotary
from neurofm.nn.scan_order import ScanOrder, sequences
from neurofm.signals import Grid

MixerConfig = Annotated[Mamba1Config | Mamba2Config, Field(discriminator="name")]


class MambaConfig(Config):
    """Hyper-parameters of `Mamba`.

    Parameters
    ----------
    depth : int
        Number of blocks.
    mixer : Mamba1Config or Mamba2Config
        What a block mixes with.
    bidirectional : bool
        Add a second mixer, with weights of its own, that reads from the end, as FEMBA does
        (Tegon et al. 2025). Without it a token knows nothing of those after it in the scan, and
        attention looks at no later patch; then, unless sequences run over time first, patches may
        come one after the other (`Mamba.step`).
    scan : "time_within_site", "site_within_time" or "per_site"
        How the grid becomes sequences: all patches of a site, then the next site; all sites of a
        patch, then the next patch; or one sequence a site, which leaves mixing between sites to
        attention.
    norm : "layer" or "rms"
        Normalisation of tokens.
    norm_place : "pre" or "post"
        Normalise what goes into a block and, once, what comes out of the last; or what comes out
        of each.
    dropout : float
        Share of features dropped in training.
    attention_every : int, optional
        Make every so-many-th block one of attention and a feed-forward layer; by default none is.
    attention : str
        Which tokens attend to which in those blocks (`neurofm.nn.attention.ATTENTIONS`).
    n_heads : int
        Heads of those blocks.
    mlp_ratio : float
        Hidden features of their feed-forward layer, as a multiple of the width.
    """

    name: Literal["mamba"] = "mamba"
    depth: int = Field(default=4, ge=1)
    mixer: MixerConfig = Mamba2Config()
    bidirectional: bool = True
    scan: ScanOrder = "time_within_site"
    norm: NormName = "layer"
    norm_place: Literal["pre", "post"] = "pre"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    attention_every: int | None = Field(default=None, ge=1)
    attention: AttentionName = "criss_cross"
    n_heads: int = Field(default=8, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)

    def build(self, width: int) -> Mamba:
        """Build the module for tokens of `width` features.

        Raises
        ------
        ConfigError
            If the heads of the mixer or of attention do not fit the width.
        """
        return Mamba(self, width)

    def block(self, number: int, width: int) -> BidirectionalBlock | Block:
        """Build block `number`, from one."""
        if self.attention_every and number % self.attention_every == 0:
            return Block(
                width,
                self.n_heads,
                attention=self.attention,
                hidden=max(1, round(width * self.mlp_ratio)),
                style=BlockStyle(
                    norm=self.norm,
                    norm_place=self.norm_place,
                    dropout=self.dropout,
                    attention=AttentionStyle(causal=not self.bidirectional),
                ),
            )
        return BidirectionalBlock(
            self.mixer.build(width),
            self.mixer.build(width) if self.bidirectional else None,
            width,
            norm=self.norm,
            norm_place=self.norm_place,
            dropout=self.dropout,
        )


class Mamba(nn.Module):
    """Blocks of Mamba, with some of attention between them where asked for, and a final norm.

    Space enters as place and, where sequences run across sites, as their order, which follows
    from positions and not from the order of channels. Tokens that are padding are left out of
    the sequences.

    Parameters
    ----------
    config : MambaConfig
        Hyper-parameters.
    width : int
        Features of a token.
    """

    def __init__(self, config: MambaConfig, width: int):
        super().__init__()
        self.config = config
        self.width = width
        self.blocks = nn.ModuleList(config.block(i + 1, width) for i in range(config.depth))
        self.rotary = Rotary(width // config.n_heads) if config.attention_every else None
        self.norm = build_norm(config.norm, width) if config.norm_place == "pre" else nn.Identity()
        for block in self.blocks:
            if isinstance(block, BidirectionalBlock | Block):
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
        order = sequences(grid, self.config.scan)
        present = grid.mask
        turn = None if self.rotary is None else self.rotary(x.shape[2], x)

        inside: Tensor | None = None  # the same tokens as sequences, while Mamba follows Mamba
        for block in self.blocks:
            if isinstance(block, Block):
                x = x if inside is None else order.put(inside, x)
                x, inside = block(x, present, turn), None
            else:
                inside = block(order.take(x) if inside is None else inside, order)
        x = x if inside is None else order.put(inside, x)
        return grid.evolve(content=self.norm(x).masked_fill(absent, 0.0))

    def step(
        self, grid: Grid, state: Stream[MambaState | Memory | None] | None = None
    ) -> tuple[Grid, Stream[MambaState | Memory | None]]:
        """Encode the next patches of windows; as `Transformer.step`.

        Raises
        ------
        ConfigError
            If what comes later reaches a token.
        SignalError
            If windows or sites are others than before.
        """
        if self.config.bidirectional or self.config.scan == "time_within_site":
            raise ConfigError(
                "this Mamba cannot encode one patch after the other: its tokens know of later ones",
                hint="train it with backbone.bidirectional: false and backbone.scan: per_site "
                "or site_within_time",
            )
        if state is not None:
            state.require(grid)
        absent = ~grid.present[..., None]
        x = grid.tokens.masked_fill(absent, 0.0)
        order = sequences(grid, self.config.scan)
        turn = None
        if self.rotary is not None:
            first = 0 if state is None else state.n_patches
            turn = self.rotary.at(torch.arange(first, first + x.shape[2], device=x.device), x)

        kept: list[MambaState | Memory | None] = []
        for i, block in enumerate(self.blocks):
            before = None if state is None else state.kept[i]
            if isinstance(block, BidirectionalBlock):
                begun = before if isinstance(before, MambaState) else None
                inside, now = block.step(order.take(x), order.length, begun)
                x = order.put(inside, x)
                kept.append(now)
            else:
                past = Memory(before if isinstance(before, Memory) else None)
                x = block(x, grid.present, turn, past)
                kept.append(past)
        found = grid.evolve(content=self.norm(x).masked_fill(absent, 0.0))
        return found, after(grid, state, tuple(kept))

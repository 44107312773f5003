"""Transformer over a grid of sites and patches."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.backbones.stream import Stream, after
from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.added_time import TimeName, build_time
from neurofm.nn.attention import AttentionName, AttentionStyle
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.feedforward import ActivationName
from neurofm.nn.memory import Memory
from neurofm.nn.mixing import Presence
from neurofm.nn.norm import NormName, build_norm
from neurofm.nn.packed_kernels import PackName
from neurofm.nn.packing import Packing
from neurofm.nn.rotary import BASE, Rotary
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
    attention : str
        All tokens of a window at once (``full``); across sites and across time in turn by
        half of the heads each (``criss_cross``) or by half of the features each
        (``split_halves``, ``swapped_halves``); by every other block (``factorised``); across
        ``sites`` or ``patches`` alone; or all at a cost that grows with their number and not its
        square (``linear``), as in BIOT.
    norm, norm_eps, norm_place, qk_norm, activation, layer_scale, drop_path
        As in `neurofm.nn.block.BlockStyle`; `drop_path` grows linearly to its value with depth.
    bias : bool
        Whether projections of queries, keys, values and of the feed-forward layer have offsets.
    causal : bool
        No token sees a later patch; then patches may come one after the other
        (`Transformer.step`).
    time : "rotary", "sinusoid", "learned", "conv" or "none"
        How tokens know when they were: attention sees how many patches lie between two; or waves,
        a learned row or a convolution over patches is added to tokens; or not at all. Linear
        attention sees none.
    rotary_base : float
        See `neurofm.nn.rotary.Rotary`.
    time_rows, time_kernel : int
        Patches of the longest window that has learned rows; patches that the convolution sees.
    n_summary : int
        Learned tokens that join the sites of every patch; what goes out then is these alone, as in
        EEGPT. None by default.
    """

    name: Literal["transformer"] = "transformer"
    depth: int = Field(default=4, ge=1)
    n_heads: int = Field(default=8, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    attention: AttentionName | Literal["factorised"] = "criss_cross"
    norm: NormName = "layer"
    norm_eps: float | None = Field(default=None, gt=0)
    norm_place: Literal["pre", "post"] = "pre"
    qk_norm: NormName | None = None
    activation: ActivationName = "gelu"
    bias: bool = True
    layer_scale: float | None = Field(default=None, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    causal: bool = False
    time: TimeName = "rotary"
    rotary_base: float = Field(default=BASE, gt=1)
    time_rows: int = Field(default=256, ge=1)
    time_kernel: int = Field(default=7, ge=1)
    n_summary: int = Field(default=0, ge=0)

    def build(self, width: int) -> Transformer:
        """Build the module for tokens of `width` features.

        Raises
        ------
        ConfigError
            If the heads do not fit the width, or attention and time each other.
        """
        if self.time == "conv" and self.causal:
            raise ConfigError(
                "a convolution over patches looks at later ones, and the transformer is causal",
                hint="set backbone.time to rotary, sinusoid or learned",
            )
        if self.time == "rotary" and self.attention == "linear":
            raise ConfigError(
                "linear attention sees no rotary angles, so tokens would not know when they were",
                hint="set backbone.time to sinusoid, learned or conv",
            )
        return Transformer(self, width)

    def style(self, number: int) -> BlockStyle:
        """Return how block `number`, from zero, is made."""
        return BlockStyle(
            norm=self.norm,
            norm_place=self.norm_place,
            norm_eps=self.norm_eps,
            attention=AttentionStyle(
                bias=self.bias, qk_norm=self.qk_norm, norm_eps=self.norm_eps, causal=self.causal
            ),
            activation=self.activation,
            bias=self.bias,
            layer_scale=self.layer_scale,
            dropout=self.dropout,
            drop_path=self.drop_path * number / max(1, self.depth - 1),
        )

    def attention_of(self, number: int) -> AttentionName:
        """Return which tokens attend to which in block `number`, from zero."""
        if self.attention == "factorised":
            return "patches" if number % 2 else "sites"
        return self.attention


class Transformer(nn.Module):
    """Blocks and a final norm; time enters as rotary angles, space as place.

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
                attention=config.attention_of(number),
                hidden=max(1, round(width * config.mlp_ratio)),
                style=config.style(number),
            )
            for number in range(config.depth)
        )
        self.rotary = None
        if config.time == "rotary":
            self.rotary = Rotary(width // config.n_heads, base=config.rotary_base)
        self.time = build_time(
            config.time, width, n_rows=config.time_rows, kernel=config.time_kernel
        )
        self.summary: nn.Parameter | None = None
        if config.n_summary:
            self.summary = nn.Parameter(torch.empty(config.n_summary, width))
            nn.init.trunc_normal_(self.summary, std=0.02)
        self.norm = build_norm(config.norm, width, config.norm_eps)
        for block in self.blocks:
            if isinstance(block, Block):
                block.initialise(config.depth)

    def forward(self, grid: Grid, *, pack: PackName | None = None) -> Grid:
        """Encode tokens.

        Parameters
        ----------
        grid : Grid
            Content (B, S, P, D) and place of each token.
        pack : str, optional
            Leave out sites that are padding instead of masking them, where that can be done, and
            keep windows apart in this way; see `neurofm.backbones.packed`.

        Returns
        -------
        Grid
            The same grid with encoded content, or the summary tokens: zeros where nothing is
            present.
        """
        grid = self.joined(grid)
        packing = None if pack is None else Packing.of(grid.present, pack)
        if packing is None:
            absent = ~grid.present[..., None]
            # `grid.mask` is asked once a pass
            x = self.mix(grid.tokens.masked_fill(absent, 0.0), grid.mask)
            x = x.masked_fill(absent, 0.0)
        else:
            x = packing.put(self.mix(packing.take(grid.tokens), packing), grid.content)
        return self.left(grid.evolve(content=x))

    def mix(self, x: Tensor, present: Presence) -> Tensor:
        """Encode tokens (B, S, P, D), or a pack (1, N, P, D) with its `Packing`."""
        if self.time is not None:
            x = self.time(x)
        turn = None if self.rotary is None else self.rotary(x.shape[2], x)
        for block in self.blocks:
            x = block(x, present, turn)
        return self.norm(x)

    def joined(self, grid: Grid) -> Grid:
        """Return the grid with summary tokens as its last sites, if there are any."""
        if self.summary is None:
            return grid
        n_windows, _, n_patches = grid.present.shape
        shape = (n_windows, len(self.summary), n_patches)
        summary = self.summary[:, None].expand(*shape, -1)
        shown = grid.present.any(1, keepdim=True).expand(shape)
        return Grid(
            content=torch.cat((grid.tokens, summary.to(grid.content.dtype)), dim=1),
            place=grid.content.new_zeros(()).expand(n_windows, 1, 1, self.width),
            present=torch.cat((grid.present, shown), dim=1),
            whole=grid.whole,
        )

    def left(self, grid: Grid) -> Grid:
        """Return the summary tokens of what `joined` made, or the grid as it is."""
        if self.summary is None:
            return grid
        n = len(self.summary)
        content, present = grid.content[:, -n:], grid.present[:, -n:]
        place = grid.place.expand(-1, n, -1, -1)
        return Grid(content=content, place=place, present=present, whole=grid.whole)

    def step(self, grid: Grid, state: Stream[Memory] | None = None) -> tuple[Grid, Stream[Memory]]:
        """Encode the next patches of windows.

        Patches that come one after the other, in stretches of any length, are encoded as if they
        had come at once.

        Parameters
        ----------
        grid : Grid
            The next patches, P of them; windows and sites are those of all steps.
        state : Stream, optional
            Where the stream stopped; None starts one.

        Returns
        -------
        grid : Grid
            The same grid with encoded content.
        state : Stream
            Where it stops.

        Raises
        ------
        ConfigError
            If a token sees later patches.
        SignalError
            If windows or sites are others than before.
        """
        apart = self.config.attention == "sites" and self.config.time != "conv"
        if not self.config.causal and not apart:
            raise ConfigError(
                "a transformer whose tokens see later patches cannot encode one after the other",
                hint="train it with backbone.causal: true",
            )
        if state is not None:
            state.require(grid)
        n_before = 0 if state is None else state.n_patches
        pasts = [Memory(None if state is None else state.kept[i]) for i in range(len(self.blocks))]
        joined = self.joined(grid)
        absent = ~joined.present[..., None]
        x = joined.tokens.masked_fill(absent, 0.0)
        if self.time is not None:
            x = self.time(x, n_before)
        turn = None
        if self.rotary is not None:
            when = torch.arange(n_before, n_before + x.shape[2], device=x.device)
            turn = self.rotary.at(when, x)
        for block, past in zip(self.blocks, pasts, strict=True):
            x = block(x, joined.present, turn, past)
        found = self.left(joined.evolve(content=self.norm(x).masked_fill(absent, 0.0)))
        return found, after(grid, state, tuple(pasts))

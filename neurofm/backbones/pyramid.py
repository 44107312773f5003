"""A pyramid over the past of each site, after MEG-GPT: what is near as it is, the rest in groups.

B windows, S sites, P patches, D width; G groups of patches, M patches that go out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, NoReturn

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.feedforward import ActivationName, FeedForward
from neurofm.nn.initialise import initialise_linear
from neurofm.nn.norm import NormName, build_norm
from neurofm.nn.patched_attention import PatchedAttention, causal_view
from neurofm.nn.rotary import BASE, Rotary, Turn
from neurofm.signals import Grid


class PyramidLayerConfig(Config):
    """One layer of the pyramid.

    Parameters
    ----------
    group : int
        Patches that are seen as one once all of them are over; 1 for each by itself. Groups are
        counted back from the last patch of the window.
    near : int
        Patches that are also seen one by one: a token's own and those right before it.
    n_out : int, optional
        Patches that go on, the last ones; the others are absent from then on. By default all.
    sites : bool
        Let the sites of each patch attend to each other first.
    """

    group: int = Field(default=1, ge=1)
    near: int = Field(default=0, ge=0)
    n_out: int | None = Field(default=None, ge=1)
    sites: bool = False


LAYERS = tuple(
    PyramidLayerConfig(group=n, near=n if n > 1 else 0, sites=n == 1 or n == 8)
    for n in (1, 4, 4, 8, 8)
)


class PyramidConfig(Config):
    """Hyper-parameters of `Pyramid`.

    The released MEG-GPT has groups of 1, 4, 4, 8 and 8 samples, sites apart, patches that get
    fewer from layer to layer, and no rotary encoding: its tokens know their time from a table.
    Those groups are the default here, and what lies between a token and the last group that is
    over is seen one by one, so that every token knows all of its past.

    Parameters
    ----------
    layers : tuple of PyramidLayerConfig
        From the first to the last.
    n_heads : int
        Heads of every attention.
    mlp_ratio : float
        Hidden features of the feed-forward layers, as a multiple of the width.
    dropout : float
        Share of features dropped of what is added, in training.
    norm : "layer" or "rms"
        Of what goes into attention and feed-forward layers, and of what comes out at the end.
    activation : str
        Of the feed-forward layers.
    causal : bool
        See only what is over; otherwise all groups, and what is near on both sides.
    rotary : bool
        Whether queries and keys are turned by their time, a group by that of its last patch.
    rotary_base : float
        See `neurofm.nn.rotary.Rotary`.
    """

    name: Literal["pyramid"] = "pyramid"
    layers: tuple[PyramidLayerConfig, ...] = Field(default=LAYERS, min_length=1)
    n_heads: int = Field(default=8, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    norm: NormName = "layer"
    activation: ActivationName = "gelu"
    causal: bool = True
    rotary: bool = True
    rotary_base: float = Field(default=BASE, gt=1)

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def shortens(self) -> bool:
        """Whether layers let patches go."""
        return any(layer.n_out is not None for layer in self.layers)

    def build(self, width: int) -> Pyramid:
        """Build the module for tokens of `width` features.

        Raises
        ------
        ConfigError
            If the heads do not fit the width.
        """
        return Pyramid(self, width)


class View(NamedTuple):
    """Who sees whom in a layer, once patches are filled up to whole groups.

    Attributes
    ----------
    fill : int
        Patches put before the first.
    sees : Tensor of bool, shape (M, G) or (M, G + filled patches)
        Which groups and, where any are near, which patches a patch that goes out sees.
    turns : tuple of Turn, or None
        Rotary angles of queries and keys.
    """

    fill: int
    sees: Tensor
    turns: tuple[Turn, Turn] | None


class PyramidLayer(nn.Module):
    """Attention of each site to its past in groups, then a feed-forward layer; each is added."""

    def __init__(self, config: PyramidConfig, layer: PyramidLayerConfig, width: int):
        super().__init__()
        hidden = max(1, round(width * config.mlp_ratio))
        self.layer = layer
        self.causal = config.causal
        self.sites = None
        if layer.sites:
            style = BlockStyle(
                norm=config.norm, activation=config.activation, dropout=config.dropout
            )
            self.sites = Block(width, config.n_heads, attention="sites", hidden=hidden, style=style)
        self.norm_time = build_norm(config.norm, width)
        self.time = PatchedAttention(
            width, config.n_heads, patch_len=layer.group, n_recent=None if layer.near else 0
        )
        self.norm_feedforward = build_norm(config.norm, width)
        self.feedforward = FeedForward(width, hidden, config.dropout, activation=config.activation)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, present: Tensor | None, rotary: Rotary | None
    ) -> tuple[Tensor, Tensor | None]:
        """Mix and map tokens.

        Parameters
        ----------
        x : Tensor, shape (B, S, P, D)
            Tokens.
        present : Tensor of bool, shape (B, S, P), or None
            False where a token is padding.
        rotary : Rotary, optional
            Gives angles.

        Returns
        -------
        x : Tensor, shape (B, S, M, D)
            Those that go on.
        present : Tensor of bool, shape (B, S, M), or None
            Which of them are present.
        """
        if self.sites is not None:
            x = self.sites(x, present, None)
        view = self.view(x, rotary)
        past = self.norm_time(x)
        keys = None
        if present is not None:
            past = past.masked_fill(~present[..., None], 0.0)
            keys = self._present(self._filled(present[..., None], view.fill)[..., 0]).flatten(0, 1)
        past = self._filled(past, view.fill).flatten(0, 1)
        gathered = self.time(past, past, view.sees, present=keys, turns=view.turns)
        n_out = view.sees.shape[0]
        x = x[:, :, -n_out:] + self.dropout(gathered).unflatten(0, x.shape[:2])
        x = x + self.dropout(self.feedforward(self.norm_feedforward(x)))
        return x, None if present is None else present[:, :, -n_out:]

    def view(self, x: Tensor, rotary: Rotary | None) -> View:
        """Return who sees whom among patches x (B, S, P, D)."""
        n_patches, group = x.shape[2], self.layer.group
        fill = -n_patches % group
        n_filled = n_patches + fill
        n_groups = n_filled // group
        n_out = min(self.layer.n_out or n_patches, n_patches)
        when = torch.arange(n_filled, device=x.device)
        out = when[-n_out:]
        if self.causal:
            sees = causal_view(n_out, n_groups, group, device=x.device)
        else:
            sees = torch.ones(n_out, n_groups, dtype=torch.bool, device=x.device)
        key_when = when[group - 1 :: group]
        if self.layer.near:
            lag = out[:, None] - when
            near = (lag.abs() < self.layer.near) & (when >= fill)
            sees = torch.cat((sees, near & (lag >= 0) if self.causal else near), dim=1)
            key_when = torch.cat((key_when, when))
        turns = None
        if rotary is not None:
            turns = rotary.at(out, x), rotary.at(key_when, x)
        return View(fill, sees, turns)

    def _filled(self, x: Tensor, fill: int) -> Tensor:
        """Put so many zeros before patches (B, S, P, ...): fewer than a group."""
        group = self.layer.group
        if group == 1:
            return x
        # not as many as needed, but a group, less the rest: one program for windows of any length
        return F.pad(x, (0, 0, group, 0))[:, :, group - fill :]

    def _present(self, filled: Tensor) -> Tensor:
        """Return which keys are, of filled patches that are, (B, S, ...) to (B, S, keys)."""
        groups = filled.unflatten(-1, (-1, self.layer.group)).any(-1)
        return torch.cat((groups, filled), dim=-1) if self.layer.near else groups


class Pyramid(nn.Module):
    """Layers of the pyramid and a final norm.

    Parameters
    ----------
    config : PyramidConfig
        Hyper-parameters.
    width : int
        Features of a token.
    """

    def __init__(self, config: PyramidConfig, width: int):
        super().__init__()
        self.config = config
        self.width = width
        self.layers = nn.ModuleList(PyramidLayer(config, layer, width) for layer in config.layers)
        self.rotary = None
        if config.rotary:
            self.rotary = Rotary(width // config.n_heads, base=config.rotary_base)
        self.norm = build_norm(config.norm, width)
        self.initialise()

    def forward(self, grid: Grid) -> Grid:
        """Encode tokens.

        Parameters
        ----------
        grid : Grid
            Content (B, S, P, D) and place of each token.

        Returns
        -------
        Grid
            The same grid with encoded content: zeros where nothing is present, and where layers
            let patches go, which then are absent.
        """
        n_patches = grid.present.shape[2]
        x = self.mix(grid.tokens.masked_fill(~grid.present[..., None], 0.0), grid.mask)
        gone = n_patches - x.shape[2]
        x = F.pad(self.norm(x), (0, 0, gone, 0))
        if not gone:
            return grid.evolve(content=x.masked_fill(~grid.present[..., None], 0.0))
        present = F.pad(grid.present[:, :, gone:], (gone, 0))
        return grid.evolve(content=x.masked_fill(~present[..., None], 0.0), present=present)

    def mix(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Return tokens (B, S, P, D) after the last layer, (B, S, M, D), before the norm."""
        for layer in self.layers:
            x, present = layer(x, present, self.rotary)
        return x

    def step(self, grid: Grid, state: object = None) -> NoReturn:
        """Refuse: a pyramid cannot take patches one after the other.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(
            "a pyramid cannot encode one patch after the other: its groups are counted back from "
            "the last patch, so each new one changes all of them",
            hint="encode the last window again, or stream a causal transformer or Mamba",
        )

    def initialise(self) -> None:
        """Draw weights; what is added to the stream starts smaller the deeper the stack."""
        added = (2 * sum(1 + layer.sites for layer in self.config.layers)) ** 0.5
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and ".merge_" not in name:
                last = name.endswith(("project_out", "feedforward.narrow"))
                initialise_linear(module, added if last else 1.0)

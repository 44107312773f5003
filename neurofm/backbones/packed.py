"""Grids with padding through a backbone as if there were none: only what is present is computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.backbones.transformer import Transformer
from neurofm.nn.packed_kernels import PackName
from neurofm.nn.packing import Packing
from neurofm.signals import Grid


def encode_packed(backbone: nn.Module, grid: Grid, by: PackName = "auto") -> Grid:
    """Encode windows of different numbers of sites without padding between them.

    A transformer takes the sites of all windows side by side, and its attention keeps windows
    apart. Others take the windows of one number of sites at a time.

    Parameters
    ----------
    backbone : Module
        Grid to Grid.
    grid : Grid
        Tokens (B, S, P, D).
    by : "auto", "varlen", "flex" or "calls"
        What keeps windows apart in a transformer's attention; see
        `neurofm.nn.packed_kernels.kernel_for`.

    Returns
    -------
    Grid
        What the backbone gives, with zeros where nothing is present. Where nothing is padding,
        where a site is present in some of its patches only, and in what is compiled, which has
        to know how many tokens there are, it is what it always does.
    """
    if torch.compiler.is_compiling() or grid.mask is None:
        return _encode(backbone, grid)
    if isinstance(backbone, Transformer):
        found: Grid = backbone(grid, pack=by)
        return found
    packing = Packing.of(grid.present)
    return _encode(backbone, grid) if packing is None else _in_buckets(backbone, grid, packing)


def _in_buckets(backbone: nn.Module, grid: Grid, packing: Packing) -> Grid:
    content, present, start = [], [], 0
    for n, size in packing.buckets:
        index = packing.index[start : start + n * size].unflatten(0, (n, size))
        found = _encode(backbone, _sites(grid, index))
        content.append(found.content.flatten(0, 1))
        present.append(found.present.flatten(0, 1))
        start += n * size
    if not content:
        return grid.evolve(content=torch.zeros_like(grid.content))
    return grid.evolve(
        content=packing.put(torch.cat(content)[None], grid.content),
        present=packing.put(torch.cat(present)[None], grid.present),
    )


def _encode(backbone: nn.Module, grid: Grid) -> Grid:
    found: Grid = backbone(grid)
    return found


def _sites(grid: Grid, index: Tensor) -> Grid:
    """Take the sites that `index` (n, size) numbers along (B, S), all of them present."""

    def take(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.flatten(0, 1)[index]

    return grid.evolve(
        content=take(grid.content),
        place=take(grid.place),
        present=take(grid.present),
        position=take(grid.position),
        located=take(grid.located),
        whole=True,
    )

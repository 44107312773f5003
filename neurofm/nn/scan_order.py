"""A grid of tokens as sequences for what has an order, such as Mamba, and back.

B windows, S sites, P patches, D width, N sequences of L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from neurofm.signals import Grid

ScanOrder = Literal["time_within_site", "site_within_time", "per_site"]
CELLS = 128  # a side of the head's box
BOX_M = 0.32  # 2.5 mm a cell: about as near as contacts come


@dataclass(frozen=True)
class Sequences:
    """Which token of a grid comes where.

    Attributes
    ----------
    index : Tensor of int64, shape (N, L)
        The token at each place of each sequence, counted along (S, P) of its window, or along P
        for sequences of one site. Tokens that are present come first, so that those that are not
        can neither take a place between others nor reach them.
    backwards : Tensor of int64, shape (N, L)
        The place of each token in a sequence read from its last present token to its first.
    length : Tensor of int64, shape (N,)
        Tokens of each sequence that are present.
    """

    index: Tensor
    backwards: Tensor
    length: Tensor

    def take(self, x: Tensor) -> Tensor:
        """Return tokens (B, S, P, D) as sequences (N, L, D)."""
        flat = x.reshape(*self.index.shape, x.shape[-1])
        return gather(flat, self.index)

    def put(self, y: Tensor, like: Tensor) -> Tensor:
        """Return sequences (N, L, D) as tokens, shape of `like` (B, S, P, D)."""
        index = self.index[..., None].expand_as(y)
        return torch.empty_like(y).scatter_(1, index, y).reshape(like.shape)

    def reverse(self, y: Tensor) -> Tensor:
        """Read sequences (N, L, D) from their last token to their first; twice is not at all."""
        return gather(y, self.backwards)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Take rows of x (N, L, D) by index (N, L)."""
    return torch.gather(x, 1, index[..., None].expand(-1, -1, x.shape[-1]))


def sequences(grid: Grid, order: ScanOrder) -> Sequences:
    """Lay a grid out as sequences.

    Parameters
    ----------
    grid : Grid
        Tokens.
    order : "time_within_site", "site_within_time" or "per_site"
        All patches of a site, then the next site; all sites of a patch, then the next patch; or
        one sequence a site. Sites come in the order of `site_order`, whatever theirs in the grid.

    Returns
    -------
    Sequences
        For B windows, or B S for ``per_site``.
    """
    present = grid.present
    n_windows, n_sites, n_patches = present.shape
    if order == "per_site":
        present = present.flatten(0, 1)
        index = torch.arange(n_patches, device=present.device).expand(present.shape[0], -1)
    else:
        first = site_order(grid)[:, :, None] * n_patches  # (B, S, 1): number of a site's first
        index = first + torch.arange(n_patches, device=present.device)
        index = (index.transpose(1, 2) if order == "site_within_time" else index).flatten(1)
        present = present.flatten(1)
    return _present_first(index, torch.gather(present, 1, index))


def _present_first(index: Tensor, present: Tensor) -> Sequences:
    front = torch.sort((~present).to(torch.uint8), dim=1, stable=True).indices
    length = present.sum(1, keepdim=True)
    place = torch.arange(index.shape[1], device=index.device).expand_as(index)
    backwards = torch.where(place < length, length - 1 - place, place)
    return Sequences(torch.gather(index, 1, front), backwards, length[:, 0])


def site_order(grid: Grid) -> Tensor:
    """Return sites in an order that follows from where they are, shape (B, S).

    Sites that have no position at all, such as latent sources, keep their order, which is learned.
    """
    n_windows, n_sites = grid.present.shape[:2]
    if grid.position is None or grid.located is None:
        return torch.arange(n_sites, device=grid.present.device).expand(n_windows, -1)
    return order_through_head(grid.position, grid.located, grid.place[:, :, 0])


def order_through_head(position: Tensor, located: Tensor, place: Tensor) -> Tensor:
    """Sort sites along a curve through the head that passes neighbours one after the other.

    The order of channels in a file says nothing, and must not matter. Sites of one cell of the
    curve (the coils of a triplet), and those without a position, are sorted by what else is known
    of their place.

    Parameters
    ----------
    position : Tensor, shape (B, S, 3)
        Metres in the head frame.
    located : Tensor of bool, shape (B, S)
        Where `position` is known; the others come last.
    place : Tensor, shape (B, S, D)
        An encoding of position, orientation and kind.

    Returns
    -------
    Tensor of int64, shape (B, S)
        The number of the site at each place.
    """
    cell = ((position.float() / BOX_M + 0.5) * CELLS).nan_to_num().clamp(0, CELLS - 1).long()
    along = torch.where(located, _interleave(cell), CELLS**3)
    order = torch.sort(_fingerprint(place), dim=1, stable=True).indices
    return torch.gather(order, 1, torch.sort(along.gather(1, order), dim=1, stable=True).indices)


def _interleave(cell: Tensor) -> Tensor:
    """Return the place of cells (..., 3) on a Z-order curve."""
    n_bits = CELLS.bit_length() - 1
    bits = (cell[..., None] >> torch.arange(n_bits, device=cell.device)) & 1  # (..., 3, n_bits)
    # shifted before it is turned: inductor has the strides of a power of turned numbers wrong
    weights = (1 << torch.arange(3 * n_bits, device=cell.device)).view(n_bits, 3).T
    return (bits * weights).sum((-1, -2))


def _fingerprint(place: Tensor) -> Tensor:
    """Return one number a site of places (B, S, D), equal where places are."""
    place = place.detach().float()
    return place @ torch.arange(place.shape[-1], device=place.device).float().add(1).cos()

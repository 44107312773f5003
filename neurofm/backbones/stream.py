"""Patches that come one after the other: what a backbone keeps between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from neurofm.errors import SignalError
from neurofm.signals import Grid

Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class Stream(Generic[Kept]):
    """Where a stream stopped. A step leaves it as it is, so one can go on from it twice.

    Attributes
    ----------
    n_windows, n_sites : int
        Of every grid of the stream.
    n_patches : int
        How many came so far.
    kept : tuple
        What each block keeps.
    """

    n_windows: int
    n_sites: int
    n_patches: int
    kept: tuple[Kept, ...]

    def require(self, grid: Grid) -> None:
        """Refuse patches of other windows or sites than came before.

        Raises
        ------
        SignalError
            If there are more or fewer.
        """
        found = tuple(grid.present.shape[:2])
        if found != (self.n_windows, self.n_sites):
            raise SignalError(
                f"the stream is of {self.n_windows} windows of {self.n_sites} sites, "
                f"and the next patches are of {found[0]} windows of {found[1]} sites",
                hint="start another stream, with no state",
            )


def after(grid: Grid, before: Stream[Kept] | None, kept: tuple[Kept, ...]) -> Stream[Kept]:
    """Return where a stream stops after the patches of `grid`."""
    n_windows, n_sites, n_patches = grid.present.shape
    return Stream(n_windows, n_sites, n_patches + (before.n_patches if before else 0), kept)

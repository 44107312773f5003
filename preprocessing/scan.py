"""Which channels carry a signal: counted block by block, so that no recording is held whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# a channel that does not change from one sample to the next this often was not connected
_FLAT_SHARE = 0.98
# one that is at its smallest or largest value this often has run into the amplifier's limits
_CLIPPED_SHARE = 0.02


class Scan:
    """What the samples of every channel are like, as far as they have been seen.

    Parameters
    ----------
    n_channels : int
        Rows of the blocks to come.
    """

    def __init__(self, n_channels: int):
        self.n_times = 0
        self.lowest = np.full(n_channels, np.inf)
        self.highest = np.full(n_channels, -np.inf)
        self._wrong = np.zeros(n_channels, int)
        self._repeats = np.zeros(n_channels, int)
        self._at_lowest = np.zeros(n_channels, int)
        self._at_highest = np.zeros(n_channels, int)
        self._last = np.full(n_channels, np.nan)

    def add(self, block: np.ndarray) -> None:
        """Count the next stretch of samples, shape (C, n).

        Blocks come in order and without gaps; where they are cut makes no difference.
        """
        if not block.shape[1]:
            return
        self.n_times += block.shape[1]
        # a row at a time: it stays in the processor's cache for all that is counted
        for i, row in enumerate(block):
            self._add_row(i, row)
        self._last[:] = block[:, -1]

    def _add_row(self, i: int, row: np.ndarray) -> None:
        low, high = float(row.min()), float(row.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            self._wrong[i] += np.count_nonzero(~np.isfinite(row))
            return
        self._repeats[i] += np.count_nonzero(row[1:] == row[:-1]) + int(row[0] == self._last[i])
        if low <= self.lowest[i]:
            before = self._at_lowest[i] if low == self.lowest[i] else 0
            self.lowest[i] = low
            self._at_lowest[i] = before + np.count_nonzero(row == row.dtype.type(low))
        if high >= self.highest[i]:
            before = self._at_highest[i] if high == self.highest[i] else 0
            self.highest[i] = high
            self._at_highest[i] = before + np.count_nonzero(row == row.dtype.type(high))

    def unusable(self) -> dict[int, str]:
        """Return rows that carry no signal, and why."""
        why: dict[int, str] = {}
        for i in range(len(self._wrong)):
            flat = self._repeats[i] / max(1, self.n_times - 1)
            if self._wrong[i]:
                why[i] = f"{self._wrong[i]} of {self.n_times} samples are NaN or infinite"
            elif self.lowest[i] == self.highest[i] == 0:
                why[i] = "all samples are zero"
            elif self.lowest[i] == self.highest[i]:
                why[i] = f"constant at {self.lowest[i]:.3g}"
            elif flat > _FLAT_SHARE:
                why[i] = f"flat for {flat:.1%} of the time"
        return why

    def clipping_notes(self, ch_names: Sequence[str]) -> list[str]:
        """Name the usable channels that have run into the amplifier's limits."""
        unusable = self.unusable()
        notes = []
        for i, name in enumerate(ch_names):
            share = (self._at_lowest[i] + self._at_highest[i]) / max(1, self.n_times)
            if i not in unusable and share > _CLIPPED_SHARE:
                notes.append(f"{name} is at its limits for {share:.0%} of the time")
        return notes

"""Which channels carry a signal: counted block by block, so that no recording is held whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# a channel that does not change from one sample to the next this often was not connected
_FLAT_SHARE = 0.98
# one that is at its smallest or largest value this often has run into the amplifier's limits
_CLIPPED_SHARE = 0.02
# no finite number in 32 bits, which is what recordings are kept in
_BEYOND = float(np.finfo(np.float32).max)
# a limit is met again and again, and for several samples: the one highest peak is no limit
_RUN = 3
_RUNS = 2
# stretches remembered for each channel; one that is cut off more often has no good moments
_MOST_RUNS = 10_000


class Scan:
    """What the samples of every channel are like, as far as they have been seen.

    Parameters
    ----------
    n_channels : int
        Rows of the blocks to come.
    scale : float or ndarray, shape (C,)
        What their samples are multiplied by to be in SI units.
    """

    def __init__(self, n_channels: int, scale: float | np.ndarray = 1.0):
        self._scale = np.broadcast_to(scale, n_channels)
        self.n_times = 0
        self.lowest = np.full(n_channels, np.inf)
        self.highest = np.full(n_channels, -np.inf)
        self._wrong = np.zeros(n_channels, int)
        self._repeats = np.zeros(n_channels, int)
        self._at_lowest = np.zeros(n_channels, int)
        self._at_highest = np.zeros(n_channels, int)
        self._last = np.full(n_channels, np.nan)
        self._low_runs: list[list[tuple[int, int]]] = [[] for _ in range(n_channels)]
        self._high_runs: list[list[tuple[int, int]]] = [[] for _ in range(n_channels)]

    def add(self, block: np.ndarray) -> None:
        """Count the next stretch of samples, shape (C, n).

        Blocks come in order and without gaps; where they are cut makes no difference.
        """
        if not block.shape[1]:
            return
        self.n_times += block.shape[1]
        low, high = block.min(axis=1), block.max(axis=1)
        repeats = block[:, 1:] == block[:, :-1]
        if np.count_nonzero(repeats):
            self._repeats += [np.count_nonzero(row) for row in repeats]
        self._repeats += block[:, 0] == self._last
        self._last[:] = block[:, -1]
        # most stretches hold neither a new extreme nor one of the old, and are done here
        told = ~((low > self.lowest) & (high < self.highest))
        for i in np.flatnonzero(told).tolist():
            self._add_row(i, block[i], float(low[i]), float(high[i]))

    def _add_row(self, i: int, row: np.ndarray, low: float, high: float) -> None:
        if not (abs(low) < _BEYOND and abs(high) < _BEYOND):
            self._wrong[i] += np.count_nonzero(~(np.abs(row) < _BEYOND))
            return
        start = self.n_times - len(row)
        if low <= self.lowest[i]:
            hits = np.flatnonzero(row == row.dtype.type(low))
            if low < self.lowest[i]:
                self.lowest[i], self._at_lowest[i], self._low_runs[i] = low, 0, []
            self._at_lowest[i] += len(hits)
            _extend(self._low_runs[i], hits + start)
        if high >= self.highest[i]:
            hits = np.flatnonzero(row == row.dtype.type(high))
            if high > self.highest[i]:
                self.highest[i], self._at_highest[i], self._high_runs[i] = high, 0, []
            self._at_highest[i] += len(hits)
            _extend(self._high_runs[i], hits + start)

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
                why[i] = f"constant at {self.lowest[i] * self._scale[i]:.3g}"
            elif flat > _FLAT_SHARE:
                why[i] = f"flat for {flat:.1%} of the time"
        return why

    def at_limits(self, i: int) -> float:
        """Return the share of a channel's samples at its smallest or largest value."""
        return float((self._at_lowest[i] + self._at_highest[i]) / max(1, self.n_times))

    def clipped(self, rows: Sequence[int] | np.ndarray, join: int) -> list[tuple[int, int]]:
        """Return the stretches in which some channel was at the limits of its amplifier.

        Parameters
        ----------
        rows : sequence of int
            The channels.
        join : int
            Stretches that lie no more samples apart are one.

        Returns
        -------
        list of (int, int)
            First samples, and those after the last, in order.
        """
        runs = sorted(
            run
            for i in rows
            for side in (self._low_runs[i], self._high_runs[i])
            if len(long := [run for run in side if run[1] - run[0] >= _RUN]) >= _RUNS
            for run in long
        )
        joined: list[tuple[int, int]] = []
        for start, stop in runs:
            if joined and start - joined[-1][1] <= join:
                joined[-1] = joined[-1][0], max(stop, joined[-1][1])
            else:
                joined.append((start, stop))
        return joined

    def clipping_notes(self, ch_names: Sequence[str]) -> list[str]:
        """Name the usable channels that have run into the amplifier's limits."""
        unusable = self.unusable()
        notes = []
        for i, name in enumerate(ch_names):
            share = self.at_limits(i)
            if i not in unusable and share > _CLIPPED_SHARE:
                notes.append(f"{name} is at its limits for {share:.0%} of the time")
        return notes


def _extend(runs: list[tuple[int, int]], hits: np.ndarray) -> None:
    """Append stretches of consecutive `hits`; what touches the last stretch prolongs it."""
    cuts = np.flatnonzero(hits[1:] - hits[:-1] > 1)
    firsts, lasts = hits[[0, *(cuts + 1)]], hits[[*cuts, -1]] + 1
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        if runs and runs[-1][1] == first:
            runs[-1] = runs[-1][0], last
        elif len(runs) < _MOST_RUNS:
            runs.append((first, last))

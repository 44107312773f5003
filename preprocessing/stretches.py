"""Stretches of a recording, enough to tell what its channels are like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neurofm.signals import Recording

# Stretches looked at: as telling as all of a long recording, at a cost that does not grow.
_STRETCH_S = 4.0
_MOST_STRETCHES = 16


class Stretches:
    """Stretches of 4 s spread over the good parts of a recording.

    Parameters
    ----------
    recording : Recording
        What they are cut from; stretches that touch a ``BAD`` span are left out.

    Attributes
    ----------
    starts : list of int
        Their first samples.
    n_times : int
        Samples in each.
    """

    def __init__(self, recording: Recording):
        self._recording = recording
        self.n_times = max(1, round(_STRETCH_S * recording.sfreq))
        starts: list[int] = []
        for start_s, stop_s in recording.good_spans():
            first, last = np.ceil(start_s * recording.sfreq), stop_s * recording.sfreq
            starts += range(
                int(first), int(min(last, recording.n_times)) - self.n_times + 1, self.n_times
            )
        chosen = np.linspace(0, len(starts) - 1, min(len(starts), _MOST_STRETCHES))
        self.starts = [starts[i] for i in np.unique(chosen.round().astype(int))]
        self._blocks: list[np.ndarray] | None = None

    def of(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield centred stretches, float32, shape (len(rows), n); all are read once."""
        if self._blocks is None:
            self._blocks = []
            for start in self.starts:
                block = np.asarray(self._recording.signal[:, start : start + self.n_times])
                self._blocks.append(block - block.mean(axis=1, keepdims=True))
        for block in self._blocks:
            yield block[rows]

"""Quality: a few numbers a channel, kept beside the signal."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofm.contract import robust_sd
from neurofm.preprocessing.harmonise import dropped_channels
from neurofm.preprocessing.history import marked_bad
from neurofm.signals import Recording

_EXTREME = 8.0
# Samples of all channels looked at together: few enough to stay in the processor's cache.
_STRETCH = 8192


def measure_quality(recording: Recording) -> dict[str, Any]:
    """Describe a harmonised recording.

    Parameters
    ----------
    recording : Recording
        In SI units, band-passed.

    Returns
    -------
    dict
        By channel: `robust_sd` in SI units, `extreme_share` (samples beyond 8 robust standard
        deviations) and `flat_share` (samples equal to the one before). For the recording:
        `good_share`, the part of its length that no ``BAD`` annotation covers; `dropped`, why
        channels are not there; and `bad`, why channels that are there are marked bad.
    """
    sd = robust_sd(recording.signal)
    limit = (_EXTREME * sd).astype(np.float32)[:, None]
    extreme, repeated = np.zeros(len(sd), int), np.zeros(len(sd), int)
    last = np.full((len(sd), 1), np.nan, np.float32)
    for _, block in recording.blocks(_STRETCH):
        extreme += _counted(np.abs(block) > limit)
        repeated += _counted(block[:, 1:] == block[:, :-1])
        repeated += block[:, 0] == last[:, 0]
        last = block[:, -1:]
    good_s = sum(stop - start for start, stop in recording.good_spans())
    return {
        "robust_sd": [float(f"{v:.4g}") for v in sd],
        "extreme_share": _shares(extreme, recording.n_times),
        "flat_share": _shares(repeated, recording.n_times - 1),
        "good_share": round(good_s / recording.duration_s, 6),
        "dropped": dropped_channels(recording),
        "bad": marked_bad(recording),
    }


def _counted(hits: np.ndarray) -> list[int] | int:
    # row by row: with an axis given, numpy makes integers of every truth value first
    return [int(np.count_nonzero(row)) for row in hits] if np.count_nonzero(hits) else 0


def _shares(hits: np.ndarray, of: int) -> list[float]:
    return [round(float(v), 6) for v in hits / max(1, of)]

"""Counts into values: one multiplication, and a clip where there is something to clip."""

from __future__ import annotations

from collections import Counter

import numpy as np


class Factors:
    """What counts are multiplied by, a value a channel.

    Most channels of a recording share one value, those with large artefacts have another: one
    value for all multiplies twice as fast, and the others are multiplied again.

    Parameters
    ----------
    values : ndarray of float32, shape (C,)
        All positive.

    Attributes
    ----------
    values : ndarray of float32, shape (C,)
        As given.
    """

    __slots__ = ("_common", "_largest", "_others", "values")

    def __init__(self, values: np.ndarray):
        self.values = values
        values.flags.writeable = False
        common, _ = Counter(values.tolist()).most_common(1)[0]
        self._common = np.float32(common)
        self._largest = float(values.max())
        self._others = np.flatnonzero(values != self._common).tolist()

    def scale(self, counts: np.ndarray, out: np.ndarray, clip: float | None = None) -> None:
        """Write the product with `counts` to `out`, held within plus and minus `clip`.

        Parameters
        ----------
        counts : ndarray of int16, shape (C, n)
            What the store holds.
        out : ndarray of float32, shape (C, n)
            Written over.
        clip : float, optional
            Largest magnitude.
        """
        # told of the counts: half as many bytes, and still in the cache
        loud = clip is not None and self._exceed(counts, clip)
        if 2 * len(self._others) > len(self.values):
            out[...] = counts
            np.multiply(out, self.values[:, None], out=out)
        else:
            np.multiply(counts, self._common, out=out)
            for row in self._others:
                np.multiply(counts[row], self.values[row], out=out[row])
        if clip is not None and loud:
            np.clip(out, -clip, clip, out=out)

    def _exceed(self, counts: np.ndarray, clip: float) -> bool:
        """Tell whether a product may be beyond `clip`; rounding is given a part in a million.

        Most windows hold nothing to clip, and two passes over their counts tell it.
        """
        safe = clip * (1 - 1e-6)
        least = safe / self._largest
        if counts.max(initial=0) <= least and counts.min(initial=0) >= -least:
            return False
        if not self._others:
            return True
        limit = safe / self.values.astype(np.float64)
        high, low = counts.max(axis=1, initial=0), counts.min(axis=1, initial=0)
        return bool((high > limit).any() or (low < -limit).any())

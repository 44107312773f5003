"""Samples as they lie in the file, where a file is nothing but samples of all channels in turn.

MNE makes them float64 in SI units and sorts them by channel: half the time of preprocessing. Here
they are sorted in the cache, as float32 that hold the file's own numbers exactly; what they are
in SI units is one factor a channel, which a linear filter can be given afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import numpy as np

from neurofm.errors import SourceError

# Numbers sorted at a time.
_TILE = 1 << 18
# Samples compared with what MNE reads, at either end.
_COMPARED = 64
# Types whose every value float32 can hold.
_EXACT = ("<i2", "<f4", ">i2", ">f4", "|i1", "|u1", "<u2", ">u2")


class DirectReader:
    """A file of interleaved samples.

    Parameters
    ----------
    path : Path
        The file.
    dtype : dtype
        Type of one sample in it.
    n_channels : int
        Channels in the file.
    picks : ndarray of int
        Those that are read.
    scale : ndarray of float64, shape (C,)
        SI units per unit of the file.
    """

    def __init__(
        self, path: Path, dtype: np.dtype, n_channels: int, picks: np.ndarray, scale: np.ndarray
    ):
        self.scale = scale
        self._path, self._dtype = path, dtype
        self._n_channels, self._picks = n_channels, picks
        self._all = np.array_equal(picks, np.arange(n_channels))
        self._file = path.open("rb", buffering=0)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return samples in units of the file, float32, shape (C, stop - start).

        Raises
        ------
        SourceError
            If they cannot be read.
        """
        out = np.empty((len(self._picks), stop - start), np.float32)
        step = max(1, _TILE // self._n_channels)
        try:
            self._file.seek(start * self._n_channels * self._dtype.itemsize)
            for at in range(0, stop - start, step):
                n = min(step, stop - start - at)
                tile = np.fromfile(self._file, self._dtype, n * self._n_channels)
                rows = tile.reshape(n, self._n_channels).T
                out[:, at : at + n] = rows if self._all else rows[self._picks]
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{self._path}: its samples from {start} on cannot be read: {error}",
                hint="the file is probably damaged; get it again",
            ) from None
        return out


def direct_reader(raw: mne.io.BaseRaw, picks: Any, scale: Any = 1.0) -> DirectReader | None:
    """Return a reader of the file itself; None where it is anything but interleaved samples.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Not preloaded, as MNE has opened it.
    picks : sequence of int
        The channels.
    scale : float or ndarray, shape (C, 1)
        Factor beside the file's own.
    """
    dtype = _dtype(raw)
    if dtype is None or raw.preload or len(raw.filenames) != 1 or raw.first_samp:
        return None
    picks = np.asarray(picks)
    n_channels = int(raw._raw_extras[0].get("orig_nchan", 0))
    path = Path(str(raw.filenames[0]))
    if path.stat().st_size != raw.n_times * n_channels * dtype.itemsize:
        return None
    factors = np.asarray(raw._cals)[picks] * np.broadcast_to(np.ravel(scale), len(picks))
    reader = DirectReader(path, dtype, n_channels, picks, factors)
    return reader if _alike(reader, raw, picks, scale) else None


def _dtype(raw: mne.io.BaseRaw) -> np.dtype | None:
    """Return the type of interleaved samples of formats that have them and nothing else."""
    if type(raw).__name__ == "RawEEGLAB":
        return np.dtype("<f4")
    if type(raw).__name__ != "RawBrainVision":
        return None
    extras = raw._raw_extras[0]
    known = {"short": "<i2", "single": "<f4"}
    name = known.get(extras["fmt"]) if isinstance(extras["fmt"], str) else None
    return np.dtype(name) if name and extras["order"] == "F" else None


def _alike(reader: DirectReader, raw: mne.io.BaseRaw, picks: np.ndarray, scale: Any) -> bool:
    """Tell whether both readers read the same: what is not understood is left to MNE."""
    n = min(_COMPARED, raw.n_times)
    for start in (0, raw.n_times - n):
        theirs = raw.get_data(picks=picks, start=start, stop=start + n, verbose="error") * scale
        ours = reader.read(start, start + n) * reader.scale[:, None]
        if not np.allclose(ours, theirs, rtol=1e-12, atol=0, equal_nan=True):
            return False
    return True

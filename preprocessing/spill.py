"""What is being made of a recording: in a file without a name where it is long."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from neurofm.errors import StoreError

# Samples of all channels read at a time where a stride is asked for.
_STRETCH = 65_536
# Bytes up to which a signal stays in memory: what a recording of half an hour needs, and little
# beside what a process that filters has imported and holds.
_IN_MEMORY = 100_000_000


class SpilledSignal:
    """An array (C, T) of float32, written once and read a stretch at a time.

    Up to 100 MB it is in memory, and on disk beyond. The file has no name from the beginning:
    whatever becomes of the process, nothing stays behind. It slices like an array; what comes
    out is in memory.

    Parameters
    ----------
    shape : (int, int)
        Channels and samples.
    folder : Path, optional
        Where there is space for it; by default where temporary files go.

    Raises
    ------
    StoreError
        If the folder cannot be written to.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int], folder: Path | None = None):
        self.shape = shape
        self._folder = folder or Path(tempfile.gettempdir())
        self.remembered: dict[str, np.ndarray] = {}
        self._thin: tuple[int, np.ndarray] | None = None
        small = shape[0] * shape[1] * 4 <= _IN_MEMORY
        self._array = np.full(shape, np.nan, np.float32) if small else None
        if small:
            return
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._refused(error) from None

    def write(self, start: int, block: np.ndarray) -> None:
        """Write the samples (C, n) from `start` on.

        Raises
        ------
        StoreError
            If the disk is full.
        """
        self._thin = None
        self.remembered.clear()
        if self._array is not None:
            self._array[:, start : start + block.shape[1]] = block
            return
        block = np.ascontiguousarray(block, np.float32)
        try:
            for row, samples in enumerate(block):
                self._put(memoryview(samples).cast("B"), self._at(row, start))
        except OSError as error:
            raise self._refused(error) from None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, times = index if isinstance(index, tuple) else (index, slice(None))
        start, stop, step = times.indices(self.shape[1])
        if step == 1:
            return self._read(start, stop)[rows]
        if (start, stop) == (0, self.shape[1]):
            return self._thinned(step)[rows]
        return self._read(start, stop)[:, ::step][rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:, :].astype(dtype or self.dtype, copy=False)

    def _thinned(self, step: int) -> np.ndarray:
        """Return every `step`-th sample; kept, as every scale is measured on the same ones."""
        if self._thin is None or self._thin[0] != step:
            out = np.empty((self.shape[0], -(-self.shape[1] // step)), np.float32)
            stretch = max(1, _STRETCH // step)
            for at in range(0, out.shape[1], stretch):
                part = self._read(at * step, min((at + stretch) * step, self.shape[1]))
                out[:, at : at + stretch] = part[:, ::step]
            self._thin = step, out
        return self._thin[1]

    def _read(self, start: int, stop: int) -> np.ndarray:
        if self._array is not None:
            return self._array[:, start : max(start, stop)]
        out = np.empty((self.shape[0], max(0, stop - start)), np.float32)
        for row in range(len(out) if out.size else 0):
            view = memoryview(out[row]).cast("B")
            at = self._at(row, start)
            while view:
                n = os.preadv(self._file.fileno(), [view], at)
                if not n:
                    raise StoreError(f"{self._folder}: a part of the filtered samples is missing")
                view, at = view[n:], at + n
        return out

    def _put(self, view: memoryview, at: int) -> None:
        while view:
            n = os.pwrite(self._file.fileno(), view, at)
            view, at = view[n:], at + n

    def _at(self, row: int, start: int) -> int:
        return (row * self.shape[1] + start) * 4

    def _refused(self, error: OSError) -> StoreError:
        n_bytes = self.shape[0] * self.shape[1] * 4
        return StoreError(
            f"{self._folder}: no room for {n_bytes / 1e6:.0f} MB of filtered samples: "
            f"{error.strerror or error}",
            hint="free space there, or choose another path for the store",
        )

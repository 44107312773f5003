"""Open a store and read from it: the index in memory, everything else when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurofm.contract import SignalContract
from neurofm.errors import StoreError, did_you_mean
from neurofm.sensors import Sensors
from neurofm.signals import Entities, Event, Recording
from neurofm.store.array import SignalArray
from neurofm.store.index import read_index
from neurofm.store.layout import REPAIR, read_json, recording_path
from neurofm.store.remote import Location, location
from neurofm.store.root import read_root
from neurofm.store.verify import verify
from neurofm.store.windows import ShardReader, fits_memory

KNOWN_ARRAYS = 4096  # about 2 kB each
KNOWN_MONTAGES = 1024  # about 5 kB each
_FLOAT32, _INT16 = np.dtype(np.float32), np.dtype(np.int16)


def open_store(path: str | Location) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    path : str, Path or RemotePath
        Folder or URL of the store; a `RemotePath` carries options such as an endpoint.

    Returns
    -------
    Store
        Its index and its recordings.

    Raises
    ------
    StoreError
        If there is no store, one of another format, or its index is damaged.
    """
    return Store(path)


class Store:
    """Recordings under one contract, in SI units or standardised.

    It may be used by several threads at once, and goes to another process as its path.

    Parameters
    ----------
    path : str, Path or RemotePath
        Folder or URL of the store.

    Attributes
    ----------
    path : Path or RemotePath
        Absolute path of the folder, or the URL.
    contract : SignalContract
        What every recording has been made to be.
    """

    def __init__(self, path: str | Location):
        self.path: Location = location(path).absolute()
        self.contract: SignalContract
        _, self.contract = read_root(self.path)
        self._index = read_index(self.path)
        self._shards = ShardReader(whole=fits_memory(int(self._index["n_bytes"].sum())))
        self._array: Callable[[str], SignalArray] = lru_cache(KNOWN_ARRAYS)(self._load_array)
        self._montage: dict[int, Sensors] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return (open_store, (self.path,))

    def __repr__(self) -> str:
        hours = self._index["duration_s"].sum() / 3600
        return f"Store({str(self.path)!r}: {len(self._index)} recordings, {hours:.1f} h)"

    def __len__(self) -> int:
        return len(self._index)

    @property
    def index(self) -> pd.DataFrame:
        """One row a recording, by recording_id."""
        return self._index

    # -----------------------------------------------------------------------------------
    # What is known of a recording

    def sensors(self, recording_id: str) -> Sensors:
        """Return the channels of a recording; one object for all that share a montage."""
        montage = int(self._montages[self._row(recording_id)])
        found = self._montage.get(montage)
        if found is None:
            found = Sensors.from_dict(self.attributes(recording_id)["sensors"])
            if len(self._montage) >= KNOWN_MONTAGES:
                self._montage = {}
            self._montage[montage] = found
        return found

    def events(self, recording_id: str) -> tuple[Event, ...]:
        """Return annotations and triggers, by onset."""
        return tuple(Event(**event) for event in self.attributes(recording_id)["events"])

    def quality(self, recording_id: str) -> dict[str, Any]:
        """Return what was measured of the signal when it was written."""
        return dict(self.attributes(recording_id)["quality"])

    def provenance(self, recording_id: str) -> dict[str, Any]:
        """Return where the recording came from, and every step applied (``history``)."""
        return dict(self.attributes(recording_id)["provenance"])

    def divisor(self, recording_id: str) -> np.ndarray:
        """Return the SI value of one standard unit of each channel, float32 (C,)."""
        return self._array(recording_id).divisor.copy()

    def recording(self, recording_id: str) -> Recording:
        """Return a whole recording, in SI units."""
        about = self.attributes(recording_id)
        grid = self._array(recording_id).grid
        signal = np.empty((grid.n_channels, grid.n_times), np.float32)
        self.read_into(recording_id, 0, signal)
        return Recording(
            signal=signal,
            sfreq=self.contract.sfreq,
            sensors=self.sensors(recording_id),
            entities=Entities(**about["entities"]),
            events=self.events(recording_id),
            history=tuple(about["provenance"]["history"]),
        )

    # -----------------------------------------------------------------------------------
    # Samples

    def read(self, recording_id: str, start_s: float, stop_s: float) -> np.ndarray:
        """Return the samples between two times.

        Parameters
        ----------
        recording_id : str
            The recording.
        start_s, stop_s : float
            Seconds from its first sample, rounded to the nearest sample.

        Returns
        -------
        ndarray of float32, shape (C, n)
            In SI units.

        Raises
        ------
        StoreError
            If the recording is unknown, shorter, or damaged.
        """
        array = self._array(recording_id)
        start, stop = (round(s * self.contract.sfreq) for s in (start_s, stop_s))
        if start >= stop:
            raise StoreError(f"{recording_id}: nothing to read from {start_s:g} to {stop_s:g} s")
        out = np.empty((array.grid.n_channels, stop - start), np.float32)
        self.read_into(recording_id, start, out)
        return out

    def read_into(self, recording_id: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) float32 with SI units from sample `start` on.

        Raises
        ------
        StoreError
            As `read`, or if `out` is not (C, n) float32.
        """
        array = self._array(recording_id)
        self._require_inside(array, start, out)
        self._shards.scaled_into(array, start, out, array.to_si)

    def expect(self, windows: Sequence[tuple[str, int]], n_times: int) -> None:
        """Be told what this thread is about to read: the disk begins with all of it at once.

        Parameters
        ----------
        windows : sequence of (str, int)
            Recordings and first samples.
        n_times : int
            Samples of each.
        """
        self._shards.expect((self._array(name), start, start + n_times) for name, start in windows)

    def read_standard_into(self, recording_id: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) float32 with standardised, clipped samples from `start` on.

        Raises
        ------
        StoreError
            As `read_into`.
        """
        array = self._array(recording_id)
        self._require_inside(array, start, out)
        self._shards.scaled_into(array, start, out, array.to_standard, self.contract.clip)

    @property
    def forkable(self) -> bool:
        """Whether it may be read after a fork: from a disk, not through a client's connections."""
        return isinstance(self.path, Path)

    @property
    def clip(self) -> float:
        """Largest magnitude of a standardised sample."""
        return self.contract.clip

    def standard_scale(self, recording_id: str) -> np.ndarray:
        """Return standard units per count of each channel, float32 (C,), not to be written to."""
        return self._array(recording_id).to_standard.values

    def read_counts_into(self, recording_id: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) int16 with counts, to be scaled by `standard_scale` and clipped.

        Raises
        ------
        StoreError
            As `read_into`.
        """
        array = self._array(recording_id)
        self._require_inside(array, start, out, _INT16)
        self._shards.counts_into(array, start, out)

    def verify(self) -> list[str]:
        """Read every sample of every recording, and check what is known of it.

        Returns
        -------
        list of str
            What is wrong, a line each; empty when all is well.
        """
        return verify(self)

    # -----------------------------------------------------------------------------------

    @cached_property
    def _row_numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._index["recording_id"])}

    @cached_property
    def _montages(self) -> np.ndarray:
        return pd.factorize(self._index["montage"])[0]

    @cached_property
    def _lengths(self) -> np.ndarray:
        return self._index["n_times"].to_numpy(np.int64)

    def _row(self, recording_id: str) -> int:
        number = self._row_numbers.get(recording_id)
        if number is None:
            raise StoreError(
                f"no recording {recording_id!r} in {self.path}, which holds {len(self)}",
                hint=did_you_mean(recording_id, self._row_numbers) or "`.index` lists them",
            )
        return number

    def attributes(self, recording_id: str) -> dict[str, Any]:
        """Return everything the recording's group says of it, as plain values."""
        self._row(recording_id)
        path = recording_path(self.path, recording_id) / "zarr.json"
        about: dict[str, Any] = read_json(path, recording_id).get("attributes", {})
        needed = ("row", "entities", "sensors", "events", "quality", "provenance")
        if absent := [key for key in needed if key not in about]:
            raise StoreError(f"{recording_id}: {path} lacks {', '.join(absent)}", hint=REPAIR)
        return about

    def _load_array(self, recording_id: str) -> SignalArray:
        n_times = self._lengths[self._row(recording_id)]
        path = recording_path(self.path, recording_id) / "signal"
        array = SignalArray.load(path, recording_id)
        if array.grid.n_times != n_times:
            raise StoreError(
                f"{recording_id}: {array.grid.n_times} samples on disk, {n_times} in the index",
                hint=REPAIR,
            )
        return array

    def _require_inside(
        self,
        array: SignalArray,
        start: int,
        out: np.ndarray,
        dtype: np.dtype[Any] = _FLOAT32,
    ) -> None:
        grid = array.grid
        if out.ndim != 2 or out.shape[0] != grid.n_channels or out.dtype != dtype:
            raise StoreError(
                f"{array.name}: cannot read {grid.n_channels} channels of {dtype.name} into "
                f"{out.dtype} {out.shape}"
            )
        if start < 0 or start + out.shape[1] > grid.n_times:
            sfreq = self.contract.sfreq
            raise StoreError(
                f"{array.name}: asked for {start / sfreq:g} to {(start + out.shape[1]) / sfreq:g} "
                f"s; the recording is {grid.n_times / sfreq:g} s long"
            )

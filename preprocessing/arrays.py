"""Arrays: NumPy, HDF5 and MATLAB files whose layout the config describes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import mne
import numpy as np
from pydantic import Field, field_validator

from neurofm.errors import SourceError, did_you_mean
from neurofm.preprocessing.lazy import (
    EDGE,
    VOLTS,
    ElectricKind,
    LazyRaw,
    Marked,
    Unit,
    annotate,
    make_info,
)
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.mirror import fetch
from neurofm.preprocessing.naming import pattern_regex
from neurofm.preprocessing.read import Part, Reader

Axis = Literal["window", "channel", "time"]


class ArrayReader(Reader):
    """An array in a ``.npy``, ``.npz``, HDF5 or MATLAB file.

    NumPy and HDF5 arrays are read a stretch at a time, ``.npz`` and MATLAB files before 7.3
    as a whole. Nothing is ever unpickled.

    Parameters
    ----------
    key : str, optional
        Which array of the file; in HDF5 a path such as ``sub-1/eeg``. May hold fields such as
        ``{subject}/{run}/eeg``: then every array that matches is a recording of its own.
    axes : tuple of "window", "channel" and "time"
        What the dimensions are, in the array's order. Windows follow each other with an edge
        between them.
    sfreq : float
        Sampling rate in hertz.
    ch_names : tuple of str
        The channels, in the array's order; by default those of `names_key`.
    names_key : str, optional
        Array of the same file that holds the names.
    unit : str
        What the numbers are in.
    kind : str
        The kind of the channels.
    labels_key : str, optional
        Array of the same file with one class a window; each becomes an event.
    contiguous : bool
        True if each window goes on where the one before ended.
    """

    name: Literal["array"]
    key: str | None = None
    axes: tuple[Axis, ...] = ("channel", "time")
    sfreq: float = Field(gt=0)
    ch_names: tuple[str, ...] = ()
    names_key: str | None = None
    unit: Unit
    kind: ElectricKind = "eeg"
    labels_key: str | None = None
    contiguous: bool = False

    library: ClassVar[str] = "NumPy or h5py"
    endings: ClassVar[tuple[str, ...]] = (".npy", ".npz", ".h5", ".hdf5", ".mat")

    @field_validator("axes")
    @classmethod
    def _complete(cls, value: tuple[Axis, ...]) -> tuple[Axis, ...]:
        if sorted(value) not in (["channel", "time"], ["channel", "time", "window"]):
            raise ValueError("axes must be channel and time, or window, channel and time")
        return value

    @property
    def part(self) -> str:
        """The array's key."""
        return self.key or ""

    def parts(self, path: Path) -> list[Part] | None:
        """Return every array that `key` matches, where it holds fields.

        Raises
        ------
        SourceError
            If the file cannot be read, or holds no such array.
        """
        if "{" not in self.part:
            return None
        fetch([path])
        regex = pattern_regex(self.part.strip("/"))
        found = [(key, regex.fullmatch(key)) for key in known_arrays(path)]
        parts = [
            Part(key, self.model_copy(update={"key": key}), match.groupdict())
            for key, match in found
            if match is not None
        ]
        if not parts:
            raise SourceError(
                f"{path}: no array matches {self.key!r}; found {_some([k for k, _ in found])}",
                hint="correct `key` in the source's reader",
            )
        return parts

    def companions(self, path: Path) -> list[Path]:
        """Return nothing: an array file is one file."""
        return []

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Open the array and check that it has the layout the config says.

        Raises
        ------
        SourceError
            If there is no such array, or its shape, type or names are not what the config says.
        """
        shape = self._checked_shape(path)
        n = dict(zip(self.axes, shape, strict=True))
        names = list(self.ch_names) or self._names(path, n["channel"])
        if len(names) != n["channel"]:
            raise SourceError(
                f"{path}: the array has {n['channel']} channels (shape {shape}, axes "
                f"{', '.join(self.axes)}), there are {len(names)} channel names",
                hint="correct `axes` or `ch_names` in the source's reader",
            )
        n_windows = n.get("window", 1)
        info = make_info(names, self.sfreq, self.kind, path)
        raw = LazyRaw(path, info, n_windows * n["time"], self._block_reader(path, n["time"]))
        annotate(raw, self._events(path, n_windows, n["time"] / self.sfreq))
        return raw

    def _checked_shape(self, path: Path) -> tuple[int, ...]:
        array, close = open_array(path, self.key)
        try:
            shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        finally:
            close()
        where = f"{path}: the array{f' {self.key!r}' if self.key else ''}"
        if dtype.kind not in "fiu":
            raise SourceError(f"{where} holds {dtype}, not real numbers")
        if len(shape) != len(self.axes) or 0 in shape:
            raise SourceError(
                f"{where} has shape {shape}; `axes` says {', '.join(self.axes)}",
                hint="correct `axes` or `key` in the source's reader",
            )
        return shape

    def _names(self, path: Path, n_channels: int) -> list[str]:
        if self.names_key is None:
            return [f"CH{i + 1}" for i in range(n_channels)]
        array, close = open_array(path, self.names_key)
        try:
            return [_text(value) for value in np.asarray(array).ravel()]
        finally:
            close()

    def _block_reader(self, path: Path, n_times: int) -> Callable[[int, int], np.ndarray]:
        scale = VOLTS[self.unit]
        order = [self.axes.index(a) for a in ("window", "channel", "time") if a in self.axes]

        def read(start: int, stop: int) -> np.ndarray:
            first, last = start // n_times, -(-stop // n_times)
            spans = {"window": slice(first, last), "channel": slice(None), "time": slice(None)}
            if "window" not in self.axes:
                spans["time"] = slice(start, stop)
            array, close = open_array(path, self.key)
            try:
                block = np.asarray(array[tuple(spans[a] for a in self.axes)], float)
            finally:
                close()
            block = block.transpose(order)
            if "window" in self.axes:
                block = block.transpose(1, 0, 2).reshape(block.shape[1], -1)
                block = block[:, start - first * n_times : stop - first * n_times]
            return block * scale

        return read

    def _events(self, path: Path, n_windows: int, window_s: float) -> list[Marked]:
        events: list[Marked] = []
        if not self.contiguous:
            events += [(i * window_s, 0.0, EDGE) for i in range(1, n_windows)]
        if self.labels_key is None:
            return events
        array, close = open_array(path, self.labels_key)
        try:
            labels = [_text(value) for value in np.asarray(array).ravel()]
        finally:
            close()
        if len(labels) != n_windows:
            raise SourceError(
                f"{path}: {n_windows} windows, but {len(labels)} labels in {self.labels_key!r}",
                hint="correct `labels_key` or `axes` in the source's reader",
            )
        return events + [(i * window_s, window_s, text) for i, text in enumerate(labels)]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    number = isinstance(value, int | float | np.number)
    return f"{value:g}" if number else str(value)


def open_array(path: Path, key: str | None) -> tuple[Any, Callable[[], None]]:
    """Open an array without reading it, where its format allows that.

    Parameters
    ----------
    path : Path
        A ``.npy``, ``.npz``, HDF5 or MATLAB file.
    key : str, optional
        Which array; needed where there are several.

    Returns
    -------
    array : array-like
        Has `shape` and `dtype`, and can be sliced.
    close : callable
        Lets go of the file.

    Raises
    ------
    SourceError
        If the file is none of these, or holds no such array.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False), _nothing
    chosen = _one(path, key, known_arrays(path))
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return archive[chosen], _nothing
    if _is_hdf5(path):
        import h5py

        store = h5py.File(path, "r")
        return store[chosen], store.close
    from scipy.io import loadmat

    return np.squeeze(loadmat(path, variable_names=[chosen])[chosen]), _nothing


def known_arrays(path: Path) -> list[str]:
    """Return the names of all arrays in a file.

    Raises
    ------
    SourceError
        If it is of none of the formats.
    """
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return list(archive.files)
    if _is_hdf5(path):
        import h5py

        with h5py.File(path, "r") as store:
            return _arrays_in(store)
    if path.suffix.lower() == ".mat":
        from scipy.io import whosmat

        return [name for name, *_ in whosmat(path)]
    raise SourceError(f"{path}: neither a NumPy file nor HDF5, whatever its name says")


def _nothing() -> None:
    """Close what needs no closing."""


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        for offset in (0, 512):  # MATLAB writes a block of text before the HDF5 file
            file.seek(offset)
            if file.read(8) == b"\x89HDF\r\n\x1a\n":
                return True
    return False


def _arrays_in(store: Any) -> list[str]:
    """Return the paths of all arrays of an open HDF5 file."""
    import h5py

    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(name)

    store.visititems(visit)
    return found


def _one(path: Path, key: str | None, known: list[str]) -> str:
    if key is None and len(known) == 1:
        return known[0]
    if key is not None and key.strip("/") in known:
        return key.strip("/")
    raise SourceError(
        f"{path}: "
        + (f"no array {key!r}" if key else f"{len(known)} arrays, and no `key` to choose one")
        + f"; found {_some(known)}",
        hint=did_you_mean(key or "", known) or "name it: `reader: {name: array, key: …}`",
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") or "none"

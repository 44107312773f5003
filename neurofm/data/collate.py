"""Windows together: one batch, filled in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from neurofm.data.buffers import Buffers, Memory
from neurofm.data.plan import WindowRef
from neurofm.errors import ConfigError, SensorError
from neurofm.readers import CodeReader, CountReader, WindowReader
from neurofm.sensors import Sensors
from neurofm.signals import Batch, subject_code

MONTAGES = 256  # whose tensors are remembered


def collate(
    reader: WindowReader,
    refs: Sequence[WindowRef],
    n_times: int,
    *,
    sfreq: float,
    targets: Sequence[int] | None = None,
    n_channels: int | None = None,
    scale_late: bool = False,
    buffers: Memory | None = None,
) -> Batch:
    """Read windows into one batch.

    Parameters
    ----------
    reader : WindowReader
        Where the samples are.
    refs : sequence of WindowRef
        Which windows. None makes a batch of length zero.
    n_times : int
        Samples in a window.
    sfreq : float
        Sampling rate in hertz.
    targets : sequence of int, optional
        Class of each window.
    n_channels : int, optional
        Channels of the batch; by default those of its widest montage.
    scale_late : bool
        Hand on counts, which `Batch.to` scales where it moves them; needs a `CountReader`.
    buffers : Memory, optional
        Where memory comes from; by default it is fresh.

    Returns
    -------
    Batch
        In pinned memory where there is a GPU to copy it to.

    Raises
    ------
    ConfigError
        If what is read is not stored as counts, and `scale_late` is asked for.
    SensorError
        If a recording has more than `n_channels` channels.
    StoreError
        If a window cannot be read.
    """
    memory = buffers or Buffers(0)
    signal, sensors = samples(
        reader, refs, n_times, memory, n_channels=n_channels, scale_late=scale_late
    )
    shape = (len(refs), signal.shape[1])
    counts = require_counts(reader) if scale_late else None
    return Batch(
        signal=signal,
        **_channels(sensors, shape),
        sfreq=sfreq,
        recording_ids=tuple(ref.recording_id for ref in refs),
        start_s=tuple(ref.start / sfreq for ref in refs),
        target=None if targets is None else torch.tensor(targets, dtype=torch.int64),
        scale=None if counts is None else _scales(counts, refs, shape),
        clip=None if counts is None else counts.clip,
        subject_code=torch.from_numpy(
            np.fromiter((subject_code(ref.recording_id) for ref in refs), np.int64, len(refs))
        ),
        codes=_codes(reader, refs) if isinstance(reader, CodeReader) and refs else None,
    )


def samples(
    reader: WindowReader,
    refs: Sequence[WindowRef],
    n_times: int,
    memory: Memory,
    *,
    n_channels: int | None = None,
    scale_late: bool = False,
) -> tuple[Tensor, list[Sensors]]:
    """Return the samples of windows (B, C, n), and the montage of each; as `collate`.

    All that another process has to do of a batch: the rest is made where the batch is wanted.
    """
    sensors = [reader.sensors(ref.recording_id) for ref in refs]
    widest = max((len(s) for s in sensors), default=n_channels or 0)
    if n_channels is not None and widest > n_channels:
        wide = next(r.recording_id for r, s in zip(refs, sensors, strict=True) if len(s) == widest)
        raise SensorError(f"{wide} has {widest} channels, more than the {n_channels} of the batch")
    counts = require_counts(reader) if scale_late else None
    dtype = np.float32 if counts is None else np.int16
    signal = memory.take((len(refs), n_channels or widest, n_times), dtype)
    if not memory.filled:
        reader.expect(refs, n_times)
        read = reader.read_standard_into if counts is None else counts.read_counts_into
        _fill(signal.numpy(), read, refs, sensors)
    return signal, sensors


def _fill(
    signal: np.ndarray,
    read: Callable[[str, int, np.ndarray], None],
    refs: Sequence[WindowRef],
    sensors: Sequence[Sensors],
) -> None:
    """Read windows into `signal` (B, C, n), zeros where a montage has fewer channels."""
    for ref, montage, out in zip(refs, sensors, signal, strict=True):
        here = len(montage)
        if here < len(out):
            out[here:] = 0
            out = out[:here]  # noqa: PLW2901 - what is read is fewer channels
        try:
            read(ref.recording_id, ref.start, out)
        except Exception as error:
            error.add_note(f"while reading {ref.recording_id} from sample {ref.start}")
            raise


def _codes(reader: CodeReader, refs: Sequence[WindowRef]) -> Tensor:
    """Return the codes of windows; zeros where one has fewer sites than another."""
    found = [reader.read_codes(ref.recording_id, ref.start) for ref in refs]
    n_sites = max(len(codes) for codes in found)
    table = np.zeros((len(found), n_sites, *found[0].shape[1:]), np.int16)
    for row, codes in zip(table, found, strict=True):
        row[: len(codes)] = codes
    return torch.from_numpy(table)


def require_counts(reader: WindowReader) -> CountReader:
    """Return the reader as one of counts.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if not hasattr(reader, "read_counts_into"):  # asked for every batch: quicker than a protocol
        raise ConfigError(
            f"a {type(reader).__name__} does not hand on counts that could be scaled late",
            hint="leave scale_late off; a store can",
        )
    return cast(CountReader, reader)


def _scales(reader: CountReader, refs: Sequence[WindowRef], shape: tuple[int, int]) -> Tensor:
    rows = [reader.standard_scale(ref.recording_id) for ref in refs]
    if rows and all(len(row) == shape[1] for row in rows):
        return torch.from_numpy(np.stack(rows))
    scale = np.zeros(shape, np.float32)
    for found, row in zip(rows, scale, strict=True):
        row[: len(found)] = found
    return torch.from_numpy(scale)


def _channels(sensors: Sequence[Sensors], shape: tuple[int, int]) -> dict[str, Tensor]:
    """Return what is known of each channel; zeros and False where there is none."""
    first = sensors[0] if sensors else None
    if all(montage is first for montage in sensors):
        # most batches are of one montage, whose tensors its windows share: nobody writes into them
        return _known_montage(first, *shape)
    tables = [_known_montage(montage, 1, shape[1]) for montage in sensors]
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}


# Montages by identity: to compare two by value takes longer than to build the tensors anew.
_KNOWN: dict[tuple[int, int, int], tuple[Sensors | None, dict[str, Tensor]]] = {}


def _known_montage(montage: Sensors | None, n_windows: int, n_channels: int) -> dict[str, Tensor]:
    key = (id(montage), n_windows, n_channels)
    found = _KNOWN.get(key)
    if found is None or found[0] is not montage:
        if len(_KNOWN) >= MONTAGES:
            _KNOWN.clear()
        table = _of_montage(montage, n_channels)
        shared = {name: row.expand(n_windows, *row.shape) for name, row in table.items()}
        found = _KNOWN[key] = (montage, shared)
    return found[1]


def _of_montage(montage: Sensors | None, n_channels: int) -> dict[str, Tensor]:
    """Return the channels of a montage as tensors, padded to `n_channels`."""
    table: dict[str, np.ndarray] = {
        "position": np.zeros((n_channels, 3), np.float32),
        "orientation": np.zeros((n_channels, 3), np.float32),
        "kind": np.zeros(n_channels, np.int64),
        "located": np.zeros(n_channels, bool),
        "oriented": np.zeros(n_channels, bool),
        "present": np.zeros(n_channels, bool),
        "name_code": np.zeros(n_channels, np.int64),
        "region_code": np.zeros(n_channels, np.int64),
    }
    if montage is not None:
        here = len(montage)
        for name, values in table.items():
            values[:here] = True if name == "present" else getattr(montage, name)
    return {name: torch.from_numpy(values) for name, values in table.items()}

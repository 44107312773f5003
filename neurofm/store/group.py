"""What goes into a recording's group: counts, their scale, and everything known beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurofm.config import digest_of
from neurofm.contract import SignalContract, robust_sd
from neurofm.errors import SignalError
from neurofm.files import sync_folder
from neurofm.sensors import SensorKind
from neurofm.signals import Recording
from neurofm.store.layout import (
    ChunkGrid,
    array_metadata,
    group_metadata,
    plain,
    shard_path,
    write_metadata,
)
from neurofm.store.shard import write_shard

MAX_COUNT = 32767
MAX_ROBUST_SD = 2000.0  # beyond this a sample is an artefact, and is held at the limit
# A count is at least this share of the robust SD: rounding then adds noise 59 dB below the
# signal (0.02 uV beside 20 uV of EEG), and finer counts would only store noise of the amplifier
# (real EEG: 3.0 times smaller than float32 instead of 2.1). A power of two, so that dividing by
# the SD leaves every channel the same factor, which multiplies three times faster.
FINEST_STEP = 1 / 256
# Samples read at a time: what is done to them is done in the processor's cache.
_READ = 1 << 19


@dataclass(frozen=True, eq=False)
class Quantisation:
    """How the samples of a recording become int16.

    Attributes
    ----------
    scale : ndarray of float32, shape (C,)
        SI units per count.
    divisor : ndarray of float32, shape (C,)
        SI units per standard unit, by the contract.
    step_over_sd : ndarray of float64, shape (C,)
        Size of a count beside the channel's robust standard deviation.
    """

    scale: np.ndarray
    divisor: np.ndarray
    step_over_sd: np.ndarray


def quantisation(recording: Recording, contract: SignalContract) -> Quantisation:
    """Choose the scale of each channel: a count is 1/256 of its robust SD.

    Raises
    ------
    SignalError
        If a sample is not finite, or a channel is constant.
    """
    sd = robust_sd(recording.signal)
    _require_finite(recording, sd)
    scale = (sd * FINEST_STEP).astype(np.float32)
    divisor = contract.divisor(recording.signal, recording.sensors.kind)
    unusable = ~((scale > 0) & (divisor > 0))
    if unusable.any():
        raise SignalError(
            f"{recording.recording_id}: constant over most of the recording: "
            f"{_names(recording, unusable)}",
            hint="exclude the channels, or crop to where they are connected",
        )
    return Quantisation(scale, divisor, scale / sd)


def _holding(chosen: Quantisation, peak: np.ndarray) -> Quantisation | None:
    """Return coarser counts that hold `peak`, up to 2000 robust SD; None if these do."""
    sd = chosen.scale / chosen.step_over_sd
    fitting = np.minimum(peak, MAX_ROBUST_SD * sd) / MAX_COUNT
    scale = np.maximum(fitting, sd * FINEST_STEP).astype(np.float32)
    if (scale == chosen.scale).all():
        return None
    return Quantisation(scale, chosen.divisor, scale / sd)


def _require_finite(recording: Recording, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise SignalError(
            f"{recording.recording_id}: not-a-number or infinite samples in "
            f"{_names(recording, ~np.isfinite(values))}",
            hint="exclude the channels, or crop to where they are recorded",
        )


def _names(recording: Recording, rows: np.ndarray) -> str:
    names = [recording.sensors.ch_names[i] for i in np.flatnonzero(rows)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def write_signal(
    folder: Path, recording: Recording, grid: ChunkGrid, chosen: Quantisation
) -> tuple[Quantisation, list[int], int]:
    """Write the array ``signal``, reading the recording a few chunks at a time.

    Most recordings are read once. Where a peak does not fit into counts of the size chosen,
    they are written again, in larger ones.

    Returns
    -------
    quantisation : Quantisation
        What has been written.
    saturated : list of int
        Samples of each channel that were held at the largest count.
    n_bytes : int
        Size of the shards on disk.

    Raises
    ------
    SignalError
        If a sample is not finite.
    """
    signal = folder / "signal"
    shard_path(signal, 0).parent.mkdir(parents=True)
    counts = _Counts(recording, grid, chosen.scale)
    n_bytes = _write_shards(signal, counts)
    if (coarser := _holding(chosen, counts.peak)) is not None:
        chosen = coarser
        counts = _Counts(recording, grid, chosen.scale)
        n_bytes = _write_shards(signal, counts)
    attributes = {
        "scale": chosen.scale.tolist(),
        "divisor": chosen.divisor.tolist(),
        "units": [SensorKind(kind).unit for kind in recording.sensors.kind],
    }
    write_metadata(signal, array_metadata(grid, attributes))
    for changed in (signal / "c" / "0", signal / "c", signal):
        sync_folder(changed)
    return chosen, counts.saturated.tolist(), n_bytes


def _write_shards(signal: Path, counts: _Counts) -> int:
    grid = counts.grid
    n_bytes = 0
    for shard in range(grid.n_shards):
        first = shard * grid.chunks_per_shard
        last = min(first + grid.chunks_per_shard, grid.n_chunks)
        chunks = counts.chunks(first, last)
        n_bytes += write_shard(shard_path(signal, shard), chunks, grid.chunks_per_shard)
    return n_bytes


class _Counts:
    """A recording as whole chunks of counts (C, L), and what was met on the way.

    Attributes
    ----------
    peak : ndarray of float32, shape (C,)
        Largest absolute sample so far, in SI units.
    saturated : ndarray of int, shape (C,)
        Samples so far that were held at the largest count.
    """

    def __init__(self, recording: Recording, grid: ChunkGrid, scale: np.ndarray):
        self.grid = grid
        self.peak = np.zeros(grid.n_channels, np.float32)
        self.saturated = np.zeros(grid.n_channels, np.int64)
        self._recording = recording
        self._per_unit = 1 / scale[:, None]

    def chunks(self, first: int, last: int) -> Iterator[np.ndarray]:
        """Yield the chunks from `first` up to `last`, the recording's last padded with zeros."""
        grid = self.grid
        together = max(1, _READ // (grid.n_channels * grid.chunk_len))
        for number in range(first, last, together):
            until = min(number + together, last)
            stop = min(until * grid.chunk_len, grid.n_times)
            counts = self._counts(number * grid.chunk_len, stop)
            for at in range(0, counts.shape[1], grid.chunk_len):
                chunk = counts[:, at : at + grid.chunk_len]
                if chunk.shape[1] < grid.chunk_len:
                    chunk = np.pad(chunk, ((0, 0), (0, grid.chunk_len - chunk.shape[1])))
                yield chunk

    def _counts(self, start: int, stop: int) -> np.ndarray:
        block = np.asarray(self._recording.signal[:, start:stop])
        peak = np.maximum(block.max(axis=1), -block.min(axis=1))
        _require_finite(self._recording, peak)
        np.maximum(self.peak, peak, out=self.peak)
        counts = block * self._per_unit
        np.rint(counts, out=counts)
        beyond = peak * self._per_unit[:, 0] > MAX_COUNT
        if beyond.any():
            self.saturated[beyond] += (np.abs(counts[beyond]) > MAX_COUNT).sum(axis=1)
            np.clip(counts, -MAX_COUNT, MAX_COUNT, out=counts)
        return counts.astype(np.int16)


def write_group(
    folder: Path,
    recording: Recording,
    row: Mapping[str, Any],
    quality: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write the group's metadata, which makes the recording describe itself."""
    attributes = {
        "row": row,
        "entities": asdict(recording.entities),
        "sensors": recording.sensors.to_dict(),
        "events": [asdict(event) for event in recording.events],
        "quality": quality,
        "provenance": {**provenance, "history": recording.history},
    }
    write_metadata(folder, group_metadata(plain(attributes)))
    sync_folder(folder)


def index_row(recording: Recording, provenance: Mapping[str, Any], n_bytes: int) -> dict[str, Any]:
    """Return the recording's row of the index."""
    return {
        "recording_id": recording.recording_id,
        **asdict(recording.entities),
        "kinds": ",".join(recording.sensors.kinds),
        "n_channels": len(recording.sensors),
        "sfreq": float(recording.sfreq),
        "n_times": recording.n_times,
        "duration_s": recording.duration_s,
        "n_events": len(recording.events),
        "spans": [float(edge) for span in recording.good_spans() for edge in span],
        "montage": digest_of(recording.sensors.to_dict()),
        "source": str(provenance.get("source", "")),
        "source_hash": str(provenance.get("source_hash", "")),
        "n_bytes": n_bytes,
    }

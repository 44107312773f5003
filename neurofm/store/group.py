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
from neurofm.sensors import SensorKind
from neurofm.signals import Recording
from neurofm.store.layout import (
    ChunkGrid,
    array_metadata,
    group_metadata,
    plain,
    shard_path,
    sync_folder,
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
    """Choose the scale of each channel.

    A count is 1/256 of the robust SD; more where the peak would not fit, up to what holds
    2000 robust SD.

    Raises
    ------
    SignalError
        If a sample is not finite, or a channel is constant.
    """
    # not-a-number and infinity pass through a maximum, so this reads the signal once for both
    peak = np.maximum(recording.signal.max(axis=1), -recording.signal.min(axis=1))
    if not np.isfinite(peak).all():
        raise SignalError(
            f"{recording.recording_id}: not-a-number or infinite samples in "
            f"{_names(recording, ~np.isfinite(peak))}",
            hint="exclude the channels, or crop to where they are recorded",
        )
    sd = robust_sd(recording.signal)
    fitting = np.minimum(peak, MAX_ROBUST_SD * sd) / MAX_COUNT
    scale = np.maximum(fitting, sd * FINEST_STEP).astype(np.float32)
    divisor = contract.divisor(recording.signal, recording.sensors.kind)
    unusable = ~((scale > 0) & (divisor > 0))
    if unusable.any():
        raise SignalError(
            f"{recording.recording_id}: constant over most of the recording: "
            f"{_names(recording, unusable)}",
            hint="exclude the channels, or crop to where they are connected",
        )
    return Quantisation(scale, divisor, scale / sd)


def _names(recording: Recording, rows: np.ndarray) -> str:
    names = [recording.sensors.ch_names[i] for i in np.flatnonzero(rows)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def write_signal(
    folder: Path, recording: Recording, grid: ChunkGrid, quantisation: Quantisation
) -> tuple[list[int], int]:
    """Write the array ``signal``, a chunk at a time.

    Returns
    -------
    saturated : list of int
        Samples of each channel that were held at the largest count.
    n_bytes : int
        Size of the shards on disk.
    """
    signal = folder / "signal"
    shard_path(signal, 0).parent.mkdir(parents=True)
    saturated = np.zeros(grid.n_channels, np.int64)
    n_bytes = 0
    for shard in range(grid.n_shards):
        first = shard * grid.chunks_per_shard
        last = min(first + grid.chunks_per_shard, grid.n_chunks)
        chunks = _chunks(recording.signal, grid, quantisation.scale, range(first, last), saturated)
        n_bytes += write_shard(shard_path(signal, shard), chunks, grid.chunks_per_shard)
    attributes = {
        "scale": quantisation.scale.tolist(),
        "divisor": quantisation.divisor.tolist(),
        "units": [SensorKind(kind).unit for kind in recording.sensors.kind],
    }
    write_metadata(signal, array_metadata(grid, attributes))
    for changed in (signal / "c" / "0", signal / "c", signal):
        sync_folder(changed)
    return saturated.tolist(), n_bytes


def _chunks(
    signal: np.ndarray, grid: ChunkGrid, scale: np.ndarray, numbers: range, saturated: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield whole chunks of counts (C, L), the last padded with zeros; count saturation."""
    counts_per_unit = 1 / scale[:, None]
    for number in numbers:
        start = number * grid.chunk_len
        counts = signal[:, start : start + grid.chunk_len] * counts_per_unit
        np.rint(counts, out=counts)
        saturated += (np.abs(counts) > MAX_COUNT).sum(axis=1)
        np.clip(counts, -MAX_COUNT, MAX_COUNT, out=counts)
        chunk = np.zeros((grid.n_channels, grid.chunk_len), np.int16)
        chunk[:, : counts.shape[1]] = counts
        yield chunk


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

"""Read a whole store and compare everything in it that is said twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofm.config import digest_of
from neurofm.contract import SignalContract
from neurofm.errors import NeurofmError
from neurofm.sensors import SensorKind, Sensors
from neurofm.signals import Entities
from neurofm.store.array import SignalArray
from neurofm.store.codes import PREFIX, codes_of_recording
from neurofm.store.index import SCHEMA, as_rows
from neurofm.store.layout import TEMPORARY, read_json, recording_path
from neurofm.store.remote import Location
from neurofm.store.shard import Scratch

if TYPE_CHECKING:
    from neurofm.store.reader import Store

READ_BYTES = 8_000_000  # of decoded counts


def verify(store: Store) -> list[str]:
    """Read every sample of every recording, and check what is known of it.

    Checked are the checksums of all chunks, shapes, the contract (rate, kinds), scales, units,
    the sensors, codes, and that the index says of a recording what its own group says.

    Parameters
    ----------
    store : Store
        The store.

    Returns
    -------
    list of str
        What is wrong, a line each; empty when all is well.
    """
    rows = as_rows(store.index)
    names = store.index["recording_id"]
    problems = [
        f"{name}: more than one row in the index" for name in names[names.duplicated()].unique()
    ]
    for recording_id, row in rows.items():
        try:
            problems += [f"{recording_id}: {p}" for p in _faults(store, recording_id, row)]
        except NeurofmError as error:
            named = error.problem.startswith(recording_id)
            problems.append(error.problem if named else f"{recording_id}: {error.problem}")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            problems.append(
                f"{recording_id}: its metadata cannot be read: {type(error).__name__}: {error}"
            )
    return problems + _strays(store, set(rows))


def _strays(store: Store, indexed: set[str]) -> list[str]:
    """Tell what lies in the store and is no part of it."""
    place = store.path
    leftovers: list[str] = []
    if isinstance(place, Path):
        on_disk = {p.name for p in (place / "recordings").iterdir() if p.is_dir()}
        leftovers = sorted(p.name for p in place.glob(f"{TEMPORARY}*/"))
    else:
        try:
            files = (place / "recordings").files()
        except OSError:  # a plain HTTP server cannot list what it serves
            return []
        on_disk = {name.partition("/")[0] for name in files if "/" in name}
    return [
        *(
            f"{name}: not in the index; the next `neurofm preprocess` adopts it if it is complete"
            for name in sorted(on_disk - indexed)
        ),
        *(f"{name}: left by a writer that died, or still being written" for name in leftovers),
    ]


def _faults(store: Store, recording_id: str, row: Mapping[str, Any]) -> Iterator[str]:
    array = SignalArray.load(recording_path(store.path, recording_id) / "signal", recording_id)
    about = store.attributes(recording_id)
    sensors = Sensors.from_dict(about["sensors"])
    yield from _of_row(row, about["row"], array)
    yield from _of_group(about, sensors, row, store.contract)
    yield from _of_quality(about.get("quality", {}), array, sensors, store.contract)
    yield from _of_history(about.get("provenance", {}).get("history", []), store.contract)
    units = read_json(array.path / "zarr.json", array.name)["attributes"].get("units")
    if units != [SensorKind(kind).unit for kind in sensors.kind]:
        yield "its units are not those of its sensors"
    _read_all(array)
    for name, codes in codes_of_recording(store.path, recording_id).items():
        if name != f"{PREFIX}{codes.identity}":
            yield f"{name} says that its codes are of {codes.identity}"
        if max(codes.windows, default=0) + codes.n_times > row["n_times"]:
            yield f"{name} has codes of windows beyond its {row['n_times']} samples"
        _read_all(codes)


def _of_row(row: Mapping[str, Any], own: Mapping[str, Any], array: SignalArray) -> Iterator[str]:
    """Compare the index with the recording's own row, and with its array."""
    for name in SCHEMA.names:
        if own.get(name) != row[name]:
            yield f"the index says {name} = {row[name]!r}, the recording {own.get(name)!r}"
    for name, found in (("n_channels", array.grid.n_channels), ("n_times", array.grid.n_times)):
        if row[name] != found:
            yield f"{name} is {row[name]} in the index, {found} in the array"
    if abs(row["duration_s"] * row["sfreq"] - row["n_times"]) > 0.5:
        yield f"{row['n_times']} samples at {row['sfreq']:g} Hz are not {row['duration_s']:g} s"
    edges = np.asarray([0.0, *row["spans"], row["duration_s"]])
    if len(edges) % 2 or (np.diff(edges) < -1e-9).any():
        yield f"its good spans do not lie in order between 0 and {row['duration_s']:g} s"
    n_bytes = _shard_bytes(array.path)
    if n_bytes is not None and n_bytes != row["n_bytes"]:
        yield f"its shards have {n_bytes} bytes, the index says {row['n_bytes']}"


def _of_group(
    about: Mapping[str, Any], sensors: Sensors, row: Mapping[str, Any], contract: SignalContract
) -> Iterator[str]:
    """Compare what the recording says of itself with its row and the contract."""
    if (named := Entities(**about["entities"]).recording_id) != row["recording_id"]:
        yield f"its entities make it {named}"
    if len(sensors) != row["n_channels"]:
        yield f"{len(sensors)} sensors for {row['n_channels']} channels"
    if (found := ",".join(sensors.kinds)) != row["kinds"]:
        yield f"its sensors are {found}, the index says {row['kinds']}"
    if other := [kind for kind in sensors.kinds if kind not in contract.kinds]:
        yield f"{', '.join(other)} channels, which the contract does not keep"
    if row["sfreq"] != contract.sfreq:
        yield f"sampled at {row['sfreq']:g} Hz, the contract says {contract.sfreq:g} Hz"
    if row["montage"] != digest_of(about["sensors"]):
        yield "its sensors are not those its montage was made of"
    onsets = [event.get("onset_s") for event in about["events"]]
    if len(onsets) != row["n_events"]:
        yield f"{len(onsets)} events, the index says {row['n_events']}"
    if not all(isinstance(onset, int | float) for onset in onsets):
        yield "an event without an onset"


def _of_quality(
    quality: Mapping[str, Any], array: SignalArray, sensors: Sensors, contract: SignalContract
) -> Iterator[str]:
    """Compare the factors of the samples with amplitudes measured when they were written."""
    measured, steps = quality.get("robust_sd"), quality.get("step_over_sd")
    if measured is None or steps is None:
        return
    expected = {"scale": np.array(measured, float) * np.array(steps, float)}
    if contract.normalisation == "channel":
        expected["divisor"] = np.array(measured, float)
    elif contract.normalisation == "fixed":
        expected["divisor"] = contract.divisor(np.empty((len(sensors), 0)), sensors.kind)
    for name, wanted in expected.items():
        # amplitudes are written with four digits
        off = ~np.isclose(getattr(array, name), wanted, rtol=2e-3, atol=0)
        if off.any():
            named = ", ".join(np.array(sensors.ch_names)[off][:5])
            yield f"the {name} of {off.sum()} channels is not what was measured of them: {named}"


def _of_history(history: Sequence[Mapping[str, Any]], contract: SignalContract) -> Iterator[str]:
    """Compare the band that was kept with the contract's."""
    for step in history:
        if step.get("step") == "band_pass":
            band = (step["low_hz"], step["high_hz"])
            if band != tuple(contract.band_hz):
                low, high = contract.band_hz
                yield f"filtered to {band[0]:g}-{band[1]:g} Hz, the contract says {low:g}-{high:g}"


def _shard_bytes(signal: Location) -> int | None:
    """Return the size of all shards; None where nothing can be listed."""
    if isinstance(signal, Path):
        return sum(p.stat().st_size for p in (signal / "c").rglob("*") if p.is_file())
    try:
        return sum((signal / "c").files().values())
    except OSError:
        return None


def _read_all(array: SignalArray) -> None:
    """Decode every chunk, several with one read, as each may be a request to a server."""
    grid, scratch = array.grid, Scratch()
    counts = np.empty((grid.n_channels, grid.chunk_len), "<i2")
    at_once = max(1, READ_BYTES // grid.chunk_bytes)
    for number in range(grid.n_shards):
        shard = array.open_shard(number)
        first = number * grid.chunks_per_shard
        n_chunks = min(grid.chunks_per_shard, grid.n_chunks - first)
        for start in range(0, n_chunks, at_once):
            slots = range(start, min(start + at_once, n_chunks))
            try:
                encoded = shard.read_chunks(slots, scratch)
            except OSError as error:
                raise array.damaged(shard, first + start, error) from None
            for slot, data in zip(slots, encoded, strict=True):
                array.decode_read(shard, first + slot, data, counts)

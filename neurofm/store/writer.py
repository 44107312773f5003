"""Write recordings into a store so that no moment of dying leaves a half one.

A recording is built under a temporary name, synced, and renamed into place by whatever process
made it; it is part of the store once its row is in the index, which one parent process commits.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neurofm.contract import SignalContract
from neurofm.errors import ContractError, NeurofmError, SignalError, StoreError
from neurofm.signals import Recording, whole_samples
from neurofm.store.array import SignalArray
from neurofm.store.group import index_row, quantisation, write_group, write_signal
from neurofm.store.index import change_index, read_table, write_index
from neurofm.store.layout import (
    FORMAT,
    REPAIR,
    ROOT_KEY,
    TEMPORARY,
    ChunkGrid,
    group_metadata,
    index_path,
    read_json,
    recording_path,
    replace_synced,
    write_metadata,
)
from neurofm.store.remote import Location, RemotePath, location
from neurofm.store.root import read_root
from neurofm.store.staging import LOCK, index_lock, recordings_in, remove_abandoned, staged

_log = logging.getLogger("neurofm")


def create_store(
    path: str | Location, contract: SignalContract, *, chunk_s: float | None = None
) -> None:
    """Make an empty store, or make sure that the one there keeps the same contract.

    Parameters
    ----------
    path : str, Path or RemotePath
        Folder or URL of the store.
    contract : SignalContract
        What every recording in it has been made to be.
    chunk_s : float, optional
        Length of a chunk in seconds; by default the contract's window, or as many windows as
        make a second. A loader cuts windows where chunks begin, and decodes one for each.

    Raises
    ------
    ContractError
        If a store of another contract is there.
    StoreError
        If something that is not a store is there.
    """
    store = location(path)
    if (store / "zarr.json").is_file():
        _, there = read_root(store)
        contract.require_same(there, "the contract asked for", f"the store {store}")
        return
    if not _is_unfinished(store):
        raise StoreError(
            f"{store} exists and is not a neurofm store",
            hint="choose another path; nothing there was touched",
        )
    if chunk_s is None:
        chunk_s = _chunk_len(contract) / contract.sfreq
    whole_samples(chunk_s, contract.sfreq)
    if isinstance(store, Path):
        (store / "recordings").mkdir(parents=True, exist_ok=True)
    write_metadata(store / "recordings", group_metadata({}))
    write_index(store, [])
    about = {"format": FORMAT, "contract": contract.to_dict(), "chunk_s": chunk_s}
    root = json.dumps(group_metadata({ROOT_KEY: about}), indent=1)
    replace_synced(store / "zarr.json", root.encode())  # last: it makes the place a store


def _chunk_len(contract: SignalContract) -> int:
    """Return the samples of a chunk: see docs/store.md for the table that chose them."""
    # shorter chunks cost more to handle than to decode
    return contract.n_times * max(1, math.ceil(contract.sfreq / contract.n_times))


def _is_unfinished(store: Location) -> bool:
    """Tell what is empty, or what `create_store` died in, from anything else."""
    if isinstance(store, Path) and not store.exists():
        return True
    if isinstance(store, Path) and not store.is_dir():
        return False
    names = store.names() if isinstance(store, RemotePath) else {p.name for p in store.iterdir()}
    ours = {"recordings", index_path(store).name}
    return all(name in ours or name.startswith(TEMPORARY) for name in names)


# ---------------------------------------------------------------------------------------
# One recording


def write_recording(
    path: str | Location,
    recording: Recording,
    *,
    quality: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Write one recording; it counts only once `commit` has its row.

    Parameters
    ----------
    path : str, Path or RemotePath
        The store.
    recording : Recording
        Harmonised to the store's contract.
    quality : mapping
        Plain values about the signal; how it was quantised is added.
    provenance : mapping
        Plain values about its making; ``source`` and ``source_hash`` enter the index, the
        recording's history is added.

    Returns
    -------
    dict
        The index row.

    Raises
    ------
    ContractError
        If the sampling rate or a sensor kind is not the contract's.
    SignalError
        If the recording is empty, a sample is not finite, or a channel is constant.
    StoreError
        If the recording is there already, or cannot be written.
    """
    store = location(path)
    about, contract = read_root(store)
    _require_fit(recording, contract, store)
    chosen = quantisation(recording, contract)
    chunk_len = whole_samples(about["chunk_s"], contract.sfreq)
    grid = ChunkGrid.plan(len(recording.sensors), recording.n_times, chunk_len)
    with staged(store, recording.recording_id) as folder:
        chosen, saturated, n_bytes = write_signal(folder, recording, grid, chosen)
        row = index_row(recording, provenance, n_bytes)
        details = {"saturated": saturated, "step_over_sd": chosen.step_over_sd}
        write_group(folder, recording, row, {**quality, **details}, provenance)
    return row


def _require_fit(recording: Recording, contract: SignalContract, store: Location) -> None:
    name = recording.recording_id
    if recording.sfreq != contract.sfreq:
        raise ContractError(
            f"{name} is sampled at {recording.sfreq:g} Hz, the store {store} at "
            f"{contract.sfreq:g} Hz",
            hint="harmonise the recording to the store's contract first",
        )
    if other := [kind for kind in recording.sensors.kinds if kind not in contract.kinds]:
        raise ContractError(
            f"{name} has {', '.join(other)} channels, which the store {store} does not keep",
            hint="drop the channels, or add the kind to the contract's `kinds`",
        )
    if 0 in recording.signal.shape:
        raise SignalError(
            f"{name} is empty: {len(recording.sensors)} channels, {recording.n_times} samples",
            hint="exclude the file",
        )


# ---------------------------------------------------------------------------------------
# The index


def commit(path: str | Location, rows: Sequence[dict[str, Any]]) -> None:
    """Make recordings part of the store: merge their rows into the index, in one step.

    Processes that commit to one folder wait for each other. Behind a URL there is nothing to
    wait on: only one process may commit at a time; `recover` adopts what a lost race left out.

    Parameters
    ----------
    path : str, Path or RemotePath
        The store.
    rows : sequence of dict
        What `write_recording` returned. A row of the same recording_id is replaced.

    Raises
    ------
    StoreError
        If a row's recording is not in the store's place.
    """
    store = location(path)
    read_root(store)
    for row in rows:
        if not (recording_path(store, row["recording_id"]) / "zarr.json").is_file():
            raise StoreError(
                f"{row['recording_id']} is not in {store}",
                hint="call write_recording before its row is committed",
            )
    with index_lock(store):
        change_index(store, add=rows)


def recover(path: str | Location) -> list[str]:
    """Put a store in order after a process died.

    Complete recordings that the index lacks are adopted, rows whose recording was deleted are
    dropped, and what was being written is removed, unless its writer is still alive.

    Parameters
    ----------
    path : str, Path or RemotePath
        The store.

    Returns
    -------
    list of str
        The recordings adopted, sorted.
    """
    store = location(path)
    read_root(store)
    if isinstance(store, Path):
        remove_abandoned(store)
    with index_lock(store):
        if isinstance(store, Path):
            _remove_unfinished(store)
        indexed = index_path(store).is_file()
        if not indexed:
            write_index(store, [])
        known = set(read_table(store)["recording_id"].to_pylist())
        on_disk = recordings_in(store)
        adopted = {}
        for name in sorted(on_disk - known):
            try:
                adopted[name] = _complete_row(store, name)
            except NeurofmError as error:
                _log.warning("not adopted: %s", error)
        if gone := sorted(known - on_disk):
            _log.warning("%s: no longer there, dropped from the index: %s", store, ", ".join(gone))
        if adopted or gone:
            change_index(store, add=list(adopted.values()), drop=gone)
    return list(adopted)


def _remove_unfinished(store: Path) -> None:
    """Remove files that were to replace others: they are written by whoever holds the lock."""
    for file in store.glob(f"{TEMPORARY}*"):
        if file.is_file() and file.suffix != LOCK:
            file.unlink()


def _complete_row(store: Location, name: str) -> dict[str, Any]:
    """Return the row a recording carries, after opening each of its shards."""
    folder = recording_path(store, name)
    array = SignalArray.load(folder / "signal", name)
    for shard in range(array.grid.n_shards):
        array.open_shard(shard)
    row = read_json(folder / "zarr.json", name).get("attributes", {}).get("row", {})
    if row.get("recording_id") != name:
        raise StoreError(f"{name}: the group carries no index row of its own", hint=REPAIR)
    return dict(row)

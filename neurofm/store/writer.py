"""Write recordings into a store so that no moment of dying leaves a half one.

A recording is built under a temporary name, synced, and renamed into place by whatever process
made it; it is part of the store once its row is in the index, which one parent process commits.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neurofm.contract import SignalContract
from neurofm.errors import ContractError, NeurofmError, SignalError, StoreError
from neurofm.signals import Recording, whole_samples
from neurofm.store.group import index_row, quantisation, write_group, write_signal
from neurofm.store.index import as_rows, read_index, write_index
from neurofm.store.layout import (
    FORMAT,
    REPAIR,
    ROOT_KEY,
    TEMPORARY,
    ChunkGrid,
    group_metadata,
    index_path,
    locked,
    read_json,
    recording_path,
    replace_synced,
    sync_folder,
    write_metadata,
)
from neurofm.store.root import read_root
from neurofm.store.shard import SignalArray

_log = logging.getLogger("neurofm")


def create_store(
    path: str | Path, contract: SignalContract, *, chunk_s: float | None = None
) -> None:
    """Make an empty store, or make sure that the one there keeps the same contract.

    Parameters
    ----------
    path : str or Path
        Folder of the store.
    contract : SignalContract
        What every recording in it has been made to be.
    chunk_s : float, optional
        Length of a chunk in seconds; by default half a window of the contract. Windows start
        anywhere, so with chunks of a whole window two would be decoded for each.

    Raises
    ------
    ContractError
        If a store of another contract is there.
    StoreError
        If something that is not a store is there.
    """
    store = Path(path)
    if (store / "zarr.json").exists():
        _, there = read_root(store)
        contract.require_same(there, "the contract asked for", f"the store {store}")
        return
    if store.exists() and not _is_unfinished(store):
        raise StoreError(
            f"{store} exists and is not a neurofm store",
            hint="choose another path; nothing there was touched",
        )
    if chunk_s is None:
        chunk_s = math.ceil(contract.n_times / 2) / contract.sfreq
    whole_samples(chunk_s, contract.sfreq)
    (store / "recordings").mkdir(parents=True, exist_ok=True)
    write_metadata(store / "recordings", group_metadata({}))
    write_index(store, [])
    about = {"format": FORMAT, "contract": contract.to_dict(), "chunk_s": chunk_s}
    root = json.dumps(group_metadata({ROOT_KEY: about}), indent=1)
    replace_synced(store / "zarr.json", root.encode())  # last: it makes the folder a store


def _is_unfinished(store: Path) -> bool:
    """Tell a folder that is empty, or that `create_store` died in, from anything else."""
    ours = {"recordings", index_path(store).name}
    return store.is_dir() and all(
        p.name in ours or p.name.startswith(TEMPORARY) for p in store.iterdir()
    )


# ---------------------------------------------------------------------------------------
# One recording


def write_recording(
    path: str | Path,
    recording: Recording,
    *,
    quality: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Write one recording; it counts only once `commit` has its row.

    Parameters
    ----------
    path : str or Path
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
    store = Path(path)
    about, contract = read_root(store)
    _require_fit(recording, contract, store)
    final = recording_path(store, recording.recording_id)
    if final.exists():
        raise _duplicate(recording.recording_id, store)
    chosen = quantisation(recording, contract)
    chunk_len = whole_samples(about["chunk_s"], contract.sfreq)
    grid = ChunkGrid.plan(len(recording.sensors), recording.n_times, chunk_len)
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=store))
        with locked(folder / "lock"):
            saturated, n_bytes = write_signal(folder, recording, grid, chosen)
            row = index_row(recording, provenance, n_bytes)
            details = {"saturated": saturated, "step_over_sd": chosen.step_over_sd}
            write_group(folder, recording, row, {**quality, **details}, provenance)
            folder.chmod(0o755)  # mkdtemp made it private
            (folder / "lock").unlink()
            folder.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        if final.exists():
            raise _duplicate(recording.recording_id, store) from None
        raise StoreError(
            f"{recording.recording_id} cannot be written to {store}: {error}",
            hint="free space or choose another path; what is complete there is untouched",
        ) from None
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return row


def _duplicate(recording_id: str, store: Path) -> StoreError:
    return StoreError(
        f"recording {recording_id!r} is in {store} already",
        hint="two files have the same dataset, subject, session, task and run: tell them apart "
        "by a `pattern`; or delete the recording's folder to replace it",
    )


def _require_fit(recording: Recording, contract: SignalContract, store: Path) -> None:
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
    if not recording.signal.size:
        raise SignalError(
            f"{name} is empty: {len(recording.sensors)} channels, {recording.n_times} samples",
            hint="exclude the file",
        )


# ---------------------------------------------------------------------------------------
# The index


def commit(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Make recordings part of the store: merge their rows into the index, in one step.

    Parameters
    ----------
    path : str or Path
        The store.
    rows : sequence of dict
        What `write_recording` returned. A row of the same recording_id is replaced.

    Raises
    ------
    StoreError
        If a row's recording is not on disk.
    """
    store = Path(path)
    read_root(store)
    for row in rows:
        if not (recording_path(store, row["recording_id"]) / "zarr.json").is_file():
            raise StoreError(
                f"{row['recording_id']} is not in {store}",
                hint="call write_recording before its row is committed",
            )
    with locked(store / "zarr.json"):
        merged = as_rows(read_index(store)) | {row["recording_id"]: row for row in rows}
        write_index(store, list(merged.values()))


def recover(path: str | Path) -> list[str]:
    """Put a store in order after a process died.

    Complete recordings that the index lacks are adopted, rows whose recording was deleted are
    dropped, and what was being written is removed, unless its writer is still alive.

    Parameters
    ----------
    path : str or Path
        The store.

    Returns
    -------
    list of str
        The recordings adopted, sorted.
    """
    store = Path(path)
    read_root(store)
    for leftover in store.glob(f"{TEMPORARY}*"):
        _remove_leftover(leftover)
    with locked(store / "zarr.json"):
        indexed = index_path(store).exists()
        rows = as_rows(read_index(store)) if indexed else {}
        on_disk = {p.name for p in (store / "recordings").iterdir() if p.is_dir()}
        adopted = {}
        for name in sorted(on_disk - set(rows)):
            try:
                adopted[name] = _complete_row(store, name)
            except NeurofmError as error:
                _log.warning("not adopted: %s", error)
        if gone := sorted(set(rows) - on_disk):
            _log.warning("%s: no longer there, dropped from the index: %s", store, ", ".join(gone))
        if adopted or gone or not indexed:
            kept = [row for name, row in rows.items() if name in on_disk]
            write_index(store, [*kept, *adopted.values()])
    return list(adopted)


def _remove_leftover(leftover: Path) -> None:
    if leftover.is_dir():
        with locked(leftover / "lock", wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def _complete_row(store: Path, name: str) -> dict[str, Any]:
    """Return the row a recording carries, after opening each of its shards."""
    folder = recording_path(store, name)
    array = SignalArray.load(folder / "signal", name)
    for shard in range(array.grid.n_shards):
        array.open_shard(shard)
    row = read_json(folder / "zarr.json", name).get("attributes", {}).get("row", {})
    if row.get("recording_id") != name:
        raise StoreError(f"{name}: the group carries no index row of its own", hint=REPAIR)
    return dict(row)

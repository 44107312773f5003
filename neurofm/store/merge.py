"""Bring the recordings of several stores together in one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from neurofm.errors import StoreError
from neurofm.files import sync_folder
from neurofm.store.array import SignalArray
from neurofm.store.codes import codes_of_recording
from neurofm.store.index import as_rows, read_index
from neurofm.store.layout import (
    REPAIR,
    read_json,
    recording_path,
    shard_path,
    write_synced,
)
from neurofm.store.remote import Location, RemotePath, location
from neurofm.store.root import read_root
from neurofm.store.staging import recordings_in, staged
from neurofm.store.writer import commit, create_store, recover

COMMIT_EVERY = 64  # recordings; what a killed merge did since is adopted by the next


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes
    ----------
    store : Path or RemotePath
        Where the recordings are now.
    added : tuple of str
        Recordings that were brought in.
    same : tuple of str
        Recordings that were there already, equal to the last sample.
    twins : tuple of (str, str)
        Recordings of the store that were made of the same bytes under two names, of which one
        was added.
    """

    store: Location
    added: tuple[str, ...]
    same: tuple[str, ...]
    twins: tuple[tuple[str, str], ...] = ()

    def summary(self, most: int = 10) -> str:
        """Return lines for a terminal."""
        there = f", {len(self.same)} were there already" if self.same else ""
        lines = [f"{self.store}: {len(self.added)} recordings added{there}"]
        if self.twins:
            lines.append(
                f"{len(self.twins)} pairs are made of the same bytes under two names: the same "
                "person could be trained on and tested; `neurofm remove` one of each"
            )
            lines += [f"  {a} = {b}" for a, b in self.twins[:most]]
            if len(self.twins) > most:
                lines.append(f"  and {len(self.twins) - most} more")
        return "\n".join(lines)


def merge(sources: Sequence[str | Location], into: str | Location, *, link: bool = True) -> Merged:
    """Add the recordings of `sources` to the store `into`, made if it is not there.

    Nothing is recoded: shards are linked, copied, uploaded or downloaded as they are. Killed at
    any point and run again, it does what is missing. The sources are only read.

    Parameters
    ----------
    sources : sequence of str, Path or RemotePath
        Stores of one contract. `into` may be among them, which changes nothing.
    into : str, Path or RemotePath
        The store that takes them.
    link : bool
        Let shards on one file system be shared by hard links instead of copied. A store never
        writes to a shard again, so either may be removed without harm to the other.

    Returns
    -------
    Merged
        What was added, and what was there.

    Raises
    ------
    ContractError
        If two of the stores have different contracts.
    StoreError
        If different recordings have one id, a store is damaged, or `into` cannot be written. A
        conflict is found before anything is written.
    """
    target = location(into).absolute()
    places = [location(source).absolute() for source in sources]
    if not places:
        raise StoreError("no store to merge was given", hint="neurofm merge A B --into C")
    (about, contract), *others = [read_root(place) for place in places]
    for place, (_, other) in zip(places[1:], others, strict=True):
        other.require_same(contract, f"the store {place}", f"the store {places[0]}")
    there = _rows_there(target, contract)
    homes, rows, same = _sort_out(places, target, there)
    create_store(target, contract, chunk_s=about["chunk_s"])
    if not there:
        recover(target)  # a merge that died while it made the store left a file under its name
    waiting: list[dict[str, Any]] = []
    try:
        for name, home in homes.items():
            _bring(home, name, rows[name], target, link)
            waiting.append(rows[name])
            if len(waiting) >= COMMIT_EVERY:
                commit(target, waiting)
                waiting = []
    finally:
        if waiting:
            commit(target, waiting)
    return Merged(target, tuple(homes), tuple(same), tuple(_twins(target, set(homes))))


def _twins(target: Location, added: set[str]) -> list[tuple[str, str]]:
    """Return recordings made of the same bytes, of which one was added."""
    index = read_index(target)
    known = index[index["source_hash"] != ""]
    alike = known[known["source_hash"].duplicated(keep=False)].groupby("source_hash")
    pairs = [(a, b) for _, names in alike["recording_id"] for a, b in pairwise(sorted(names))]
    return sorted(pair for pair in pairs if added & set(pair))


def _rows_there(target: Location, contract: Any) -> set[str]:
    """Return what the target holds, after it was put in order; nothing if it is not there."""
    if not (target / "zarr.json").is_file():
        return set()
    _, own = read_root(target)
    own.require_same(contract, f"the store {target}", "the stores to be merged")
    recover(target)
    return set(as_rows(read_index(target))) | recordings_in(target)


def _sort_out(
    places: Sequence[Location], target: Location, there: set[str]
) -> tuple[dict[str, Location], dict[str, dict[str, Any]], list[str]]:
    """Tell which recordings are to be brought from where, and which are there already."""
    homes: dict[str, Location] = {}
    rows: dict[str, dict[str, Any]] = {}
    same: list[str] = []
    conflicts = []
    for place in dict.fromkeys(places):
        if place == target:
            continue
        for name, row in as_rows(read_index(place)).items():
            holder = target if name in there else homes.get(name)
            if holder is None:
                homes[name], rows[name] = place, row
            elif _equal(name, holder, place):
                same += [name] if holder == target else []
            else:
                conflicts.append(f"{name} in {holder} and {place}")
    if conflicts:
        raise StoreError(
            f"{len(conflicts)} recording id(s) stand for different recordings: "
            + "; ".join(conflicts[:5]),
            hint="nothing was written; `neurofm remove` one of each, or preprocess one of the "
            "stores again with another `dataset`",
        )
    return homes, rows, same


def _equal(name: str, here: Location, there: Location) -> bool:
    """Compare samples, sensors and events; where they came from and when does not enter."""
    a, b = recording_path(here, name), recording_path(there, name)
    if _known(a, name) != _known(b, name):
        return False
    shards = [file for file in _files_of(here, name) if file.startswith("signal/c/")]
    return all(_same_bytes(a / file, b / file, name) for file in shards)


def _known(folder: Location, name: str) -> dict[str, Any]:
    about = read_json(folder / "zarr.json", name).get("attributes", {})
    known = {key: about.get(key) for key in ("entities", "sensors", "events")}
    return known | {"signal": read_json(folder / "signal" / "zarr.json", name)}


def _same_bytes(a: Location, b: Location, name: str) -> bool:
    if isinstance(a, Path) and isinstance(b, Path) and a.exists() and b.exists() and a.samefile(b):
        return True  # linked by a merge before
    return _read(a, name) == _read(b, name)


def _files_of(store: Location, recording_id: str) -> Iterator[str]:
    """Name every file of a recording: known from its metadata, so that no listing is needed."""
    signal = recording_path(store, recording_id) / "signal"
    grid = SignalArray.load(signal, recording_id).grid
    yield "signal/zarr.json"
    yield from (f"signal/c/0/{number}" for number in range(grid.n_shards))
    yield "zarr.json"


def _read(path: Location, recording_id: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{recording_id}: {path} cannot be read: {error}", hint=REPAIR) from None


def _bring(home: Location, name: str, row: Mapping[str, Any], target: Location, link: bool) -> None:
    """Copy one recording, or link it; what is cut off is refused."""
    source = recording_path(home, name)
    with staged(target, name) as folder:
        (folder / "signal" / "c" / "0").mkdir(parents=True)
        n_bytes = 0
        for file in _files_of(home, name):
            if file.startswith("signal/c/"):
                n_bytes += _bring_shard(source / file, folder / file, link, name)
            else:
                write_synced(folder / file, _read(source / file, name))
        _bring_codes(home, name, folder, link)
        for changed in ("signal/c/0", "signal/c", "signal", "."):
            sync_folder(folder / changed)
        if n_bytes != row["n_bytes"]:
            raise StoreError(
                f"{name}: its shards in {home} have {n_bytes} bytes, the index says "
                f"{row['n_bytes']}",
                hint=REPAIR,
            )


def _bring_codes(home: Location, recording_id: str, folder: Path, link: bool) -> None:
    """Copy or link the codes that tokenizers have made of a recording."""
    for name, array in codes_of_recording(home, recording_id).items():
        own = folder / name
        shard_path(own, 0).parent.mkdir(parents=True)
        for number in range(array.grid.n_shards):
            _bring_shard(
                shard_path(array.path, number), shard_path(own, number), link, recording_id
            )
        write_synced(own / "zarr.json", _read(array.path / "zarr.json", recording_id))
        for changed in ("c/0", "c", "."):
            sync_folder(own / changed)


def _bring_shard(source: Location, target: Path, link: bool, name: str) -> int:
    if isinstance(source, RemotePath):
        write_synced(target, _read(source, name))
        return target.stat().st_size
    if not source.is_file():
        raise StoreError(f"{name}: shard {source} is missing", hint=REPAIR)
    try:
        if not link:
            raise OSError
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with source.open("rb") as read, target.open("wb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
            os.fsync(write.fileno())
    return target.stat().st_size

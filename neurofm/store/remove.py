"""Take recordings out of a store."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from neurofm.errors import StoreError, did_you_mean
from neurofm.store.index import change_index, read_table
from neurofm.store.layout import TEMPORARY, recording_path
from neurofm.store.remote import Location, RemotePath, location
from neurofm.store.root import read_root
from neurofm.store.staging import index_lock


def remove(
    path: str | Location, patterns: Sequence[str], *, dry_run: bool = False
) -> tuple[str, ...]:
    """Take recordings out of a store, and delete their samples.

    Killed at any point, `store.writer.recover` (which every `neurofm preprocess` calls) brings
    it to an end: a recording is there and in the index, or neither. A reader that opened the
    store before is refused the samples.

    Parameters
    ----------
    path : str, Path or RemotePath
        The store.
    patterns : sequence of str
        Recording ids, or shell patterns of them: ``eegmmidb_sub-S001_*`` is everything of one
        subject.
    dry_run : bool
        Only tell what would be removed.

    Returns
    -------
    tuple of str
        The recordings removed, sorted.

    Raises
    ------
    StoreError
        If an id or a pattern fits no recording; nothing is removed then.
    """
    store = location(path).absolute()
    read_root(store)
    chosen = _matching(store, patterns)
    if dry_run or not chosen:
        return chosen
    try:
        with index_lock(store):
            if isinstance(store, Path):
                _remove_folders(store, chosen)
            else:
                _remove_objects(store, chosen)
    except OSError as error:
        raise StoreError(
            f"recordings cannot be removed from {store}: {error}",
            hint="is the store read-only, or its disk full? what was removed is out of the index",
        ) from None
    return chosen


def _remove_folders(store: Path, names: Sequence[str]) -> None:
    aside: dict[str, Path] = {}
    try:
        for number, name in enumerate(names):
            # under this name `recover` deletes it, should this process die now
            hidden = store / f"{TEMPORARY}removed-{os.getpid()}-{number}"
            folder = recording_path(store, name)
            if folder.exists():  # if not, somebody deleted it by hand: only its row is left
                folder.rename(hidden)
            aside[name] = hidden
    finally:
        change_index(store, drop=aside)
        for hidden in aside.values():
            shutil.rmtree(hidden, ignore_errors=True)


def _remove_objects(store: RemotePath, names: Sequence[str]) -> None:
    for name in names:  # incomplete without this one, so that nothing adopts it again
        recording_path(store, name).remove(["zarr.json"])
    change_index(store, drop=names)
    for name in names:
        folder = recording_path(store, name)
        folder.remove(folder.files())


def _matching(store: Location, patterns: Iterable[str]) -> tuple[str, ...]:
    known: list[str] = read_table(store)["recording_id"].to_pylist()
    chosen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(known, pattern)
        if not found:
            raise StoreError(
                f"no recording {pattern!r} in {store}, which holds {len(known)}",
                hint=did_you_mean(pattern, known) or "`neurofm inspect --recordings` lists them",
            )
        chosen.update(found)
    return tuple(sorted(chosen))

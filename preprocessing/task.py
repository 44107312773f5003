"""One recording that is to be made, and whether it is there already, or made of something else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from neurofm.contract import SignalContract
from neurofm.errors import NeurofmError, SourceError
from neurofm.preprocessing.cleaning import CleaningConfig
from neurofm.preprocessing.mirror import fetch, size_of
from neurofm.preprocessing.sources import SourceConfig
from neurofm.signals import Entities
from neurofm.store.index import read_table
from neurofm.store.remote import Location

_CONTENT = ("source_hash", "recording_id", "source")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One recording to be made.

    Attributes
    ----------
    path : Path
        The file.
    relative : str
        Its path relative to the config's root, for tables.
    entities : Entities
        What the recording is called.
    source : SourceConfig
        How to read it.
    contract : SignalContract
        What it is to become.
    cleaning : CleaningConfig
        What becomes of bad channels and artefacts.
    store : Path or RemotePath
        Where it goes.
    run_id : str
        Names a run that began with recordings in the store, none of which is to be made of the
        same bytes again. Empty if there were none.
    """

    path: Path
    relative: str
    entities: Entities
    source: SourceConfig
    contract: SignalContract
    cleaning: CleaningConfig = CleaningConfig()
    store: Location
    run_id: str = ""


class SameContent(SourceError):
    """The bytes of a file are those of a recording in the store.

    Parameters
    ----------
    recording_id, source : str
        The recording, and the file that it was made of.
    """

    def __init__(self, recording_id: str, source: str):
        super().__init__(f"the same bytes as {source}, which is {recording_id}")
        self.recording_id = recording_id
        self.source = source

    def __reduce__(self) -> tuple[object, ...]:
        return (SameContent, (self.recording_id, self.source))


def what_changed(task: Task, was: Mapping[str, Any]) -> NeurofmError | None:
    """Tell why a recording in the store is not what its task would make now.

    Parameters
    ----------
    task : Task
        What would be made.
    was : mapping
        Provenance of the recording in the store.

    Returns
    -------
    NeurofmError or None
        None if file and settings are the same.
    """
    name = task.entities.recording_id
    replace = (
        f"to replace it, `neurofm remove {task.store} {name}` and preprocess again; "
        "or use another `store`"
    )
    if was.get("source") != task.relative:
        return SourceError(
            f"{task.path}: recording id {name!r} is in the store already, "
            f"made of {was.get('source')!r}",
            hint="tell the two apart by `pattern`, or exclude one; " + replace,
        )
    before, now = dict(was.get("reading", {})), task.source.reading()
    now["cleaning"] = task.cleaning.to_dict()
    # what was made before there was a choice was made as it is by default
    before["cleaning"] = was.get("cleaning", CleaningConfig().to_dict())
    if changed := [key for key in before | now if before.get(key) != now.get(key)]:
        return SourceError(
            f"{task.path}: {name} is in the store already, made with other settings: "
            f"{', '.join(changed)}",
            hint=replace,
        )
    try:
        files = files_of(task)
        if stat_of(files) == (was.get("source_size"), was.get("source_mtime_ns")):
            return None
        same = content_of(task) == was.get("source_hash")
    except (NeurofmError, OSError, ValueError) as error:
        return SourceError(f"{task.path}: cannot be read: {error}")
    if same:
        return None
    return SourceError(
        f"{task.path}: the file has changed since {name} was made of it", hint=replace
    )


def files_of(task: Task) -> list[Path]:
    """Return every file a recording is made of, its companions included."""
    return task.source.files(task.path)


def stat_of(files: Iterable[Path]) -> tuple[int, int]:
    """Return the bytes of all files together, and the latest time one was changed."""
    stats = [(size_of(file), file.stat().st_mtime_ns) for file in files]
    return sum(size for size, _ in stats), max((changed for _, changed in stats), default=0)


def content_of(task: Task) -> str:
    """Return a hash of what a recording is made of: files, or one part of a file."""
    return hash_of(files_of(task), task.source.reader.part)


def hash_of(files: Iterable[Path], part: str = "") -> str:
    """Return the sha256 over the content of all files, in order, and the name of a part."""
    files = list(files)
    fetch(files)
    digest = hashlib.sha256(part.encode())
    buffer = memoryview(bytearray(1 << 18))  # stays in the processor's cache
    for path in files:
        with path.open("rb", buffering=0) as file:
            while n := file.readinto(buffer):
                digest.update(buffer[:n])
    return digest.hexdigest()


def require_new(task: Task) -> str:
    """Return the hash of a task's files, unless a recording was made of the same bytes.

    Files that cannot be read have none: opening them says better what is wrong.

    Raises
    ------
    SameContent
        If one was.
    """
    try:
        digest = content_of(task)
    except OSError:
        return ""
    twin = _known(task.store, task.run_id).get(digest) if task.run_id else None
    if twin is not None and twin[0] != task.entities.recording_id:
        raise SameContent(*twin)
    return digest


@lru_cache(maxsize=1)
def _known(store: Location, run_id: str) -> dict[str, tuple[str, str]]:
    """Return what every recording was made of: hash of the files -> recording and file."""
    table = read_table(store)  # once: others commit meanwhile
    columns = [table[name].to_pylist() for name in _CONTENT]
    return {digest: (name, source) for digest, name, source in zip(*columns, strict=True)}

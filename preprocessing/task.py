"""One recording, from file to store: what a worker process does."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from neurofm.contract import SignalContract
from neurofm.electrodes import montage_positions
from neurofm.errors import NeurofmError, SignalError, SourceError, StoreUnwritable
from neurofm.preprocessing.channels import rename_channels
from neurofm.preprocessing.cleaning import CleaningConfig
from neurofm.preprocessing.events import companion_path
from neurofm.preprocessing.from_mne import RawReader
from neurofm.preprocessing.harmonise import dropped_channels, harmonise_file, notes_of
from neurofm.preprocessing.mirror import fetch, release, size_of
from neurofm.preprocessing.quality import measure_quality
from neurofm.preprocessing.read import READER_FAILURES, open_raw
from neurofm.preprocessing.sources import SourceConfig
from neurofm.preprocessing.spectrum import spectra, spectra_of
from neurofm.signals import Entities, Recording
from neurofm.store.index import read_table
from neurofm.store.remote import Location
from neurofm.store.writer import write_recording

_CONTENT = ("source_hash", "recording_id", "source")
# what only writing fails with
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


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


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task; small enough to be sent between processes.

    Attributes
    ----------
    row : dict or None
        The row for the store's index; None if the recording was refused.
    error : NeurofmError or None
        Why it was refused.
    unexpected : str
        Type of an error that is not one of neurofm's own.
    details : dict
        Columns of the report.
    """

    row: dict[str, Any] | None = None
    error: NeurofmError | None = None
    unexpected: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def preprocess_one(task: Task) -> Outcome:
    """Read, harmonise and write one recording; whatever goes wrong is told, not raised."""
    try:
        return _attempt(task)
    finally:
        # what was downloaded for this recording may have to make room
        with suppress(NeurofmError, OSError, ValueError):
            if not task.source.reader.part:  # others are read from the same file
                release(files_of(task))


def _attempt(task: Task) -> Outcome:
    details: dict[str, Any] = {}
    try:
        # damaged samples overflow; whether the result is finite is checked, and said, at the end
        with np.errstate(all="ignore"):
            row = _make(task, details)
    except NeurofmError as error:
        return Outcome(error=error, details=details)
    except OSError as error:
        return Outcome(error=_refused(task, error), details=details)
    # one recording must not take the batch with it, whatever its bytes made a library do
    except Exception as error:  # noqa: BLE001
        return _unexpected(task, error, details)
    return Outcome(row=row, details=details)


def _refused(task: Task, error: OSError) -> NeurofmError:
    if error.errno in _UNWRITABLE:
        return StoreUnwritable(
            f"{task.store} cannot be written: {error}",
            hint="free space, or choose another path; what is complete there is untouched",
        )
    return SourceError(
        f"{task.path}: cannot be read: {error}",
        hint="is the file still there, may it be read, and is its disk sound?",
    )


def _unexpected(task: Task, error: Exception, details: dict[str, Any]) -> Outcome:
    problem = NeurofmError(
        f"{task.path}: unexpected {type(error).__name__}: {error}",
        hint="please report this, with the file if you can",
    )
    return Outcome(error=problem, unexpected=type(error).__name__, details=details)


def _opened(task: Task) -> RawReader:
    """Open the file of a task, and read its header."""
    raw, facts = open_raw(task.path, task.source.reader, task.source.sss)
    facts.reference = facts.reference or task.source.reference
    if task.source.montage:
        facts.template = montage_positions(task.source.montage)
    rename_channels(raw, task.source.rename, str(task.path))
    try:
        return RawReader(
            raw,
            task.entities,
            channels=task.source.channels,
            events=task.source.events,
            companion=_events_file(task),
            unit_scale=task.source.unit_scale,
            allow_unlocated=task.source.allow_unlocated,
            facts=facts,
            ctf_grade=task.contract.ctf_grade,
            bad_channels=task.cleaning.bad_channels.policy,
        )
    except NeurofmError:
        raise
    except READER_FAILURES as error:
        raise SourceError(
            f"{task.path}: its header cannot be understood: {type(error).__name__}: {error}",
            hint="the file is probably damaged; get it again, or exclude it",
        ) from error


def _make(task: Task, details: dict[str, Any]) -> dict[str, Any]:
    digest = _require_new(task)
    reader = _opened(task)
    details["sfreq_in"] = reader.sfreq
    folder = task.store if isinstance(task.store, Path) else None
    recording = harmonise_file(
        reader, task.contract, folder, task.cleaning, units=task.source.units
    )
    details |= _told(recording)
    _require_a_window(recording, task.contract)
    files = files_of(task)
    size, mtime_ns = stat_of(files)
    provenance = {
        "source": task.relative,
        "source_hash": digest,
        "source_size": size,
        "source_mtime_ns": mtime_ns,
        "reading": task.source.reading(),
        "cleaning": task.cleaning.to_dict(),
        "versions": {name: version(name) for name in ("neurofm", "mne", "scipy", "numpy")},
        "report": details,
    }
    quality = measure_quality(recording)
    quality["spectrum"] = {
        "before": spectra(reader.read, reader.n_times, reader.sfreq, reader.sensors),
        "after": spectra_of(recording),
    }
    return write_recording(task.store, recording, quality=quality, provenance=provenance)


def _require_a_window(recording: Recording, contract: SignalContract) -> None:
    spans = recording.good_spans()
    longest = max((stop - start for start, stop in spans), default=0.0)
    # half a sample: onsets are rounded
    if longest + 0.5 / contract.sfreq < contract.window_s:
        raise SignalError(
            f"{recording.recording_id}: no stretch of it is as long as one window of "
            f"{contract.window_s:g} s: the longest without an edge or a BAD mark has "
            f"{longest:.3g} s",
            hint="use a shorter window_s, or exclude the recording",
        )


def _require_new(task: Task) -> str:
    """Return the hash of a task's files, unless a recording was made of the same bytes.

    Files that cannot be read have none: opening them says better what is wrong.
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


def _told(recording: Recording) -> dict[str, Any]:
    line = [step["line_hz"] for step in recording.history if "line_hz" in step]
    return {
        "n_channels": len(recording.sensors),
        "dropped": "; ".join(f"{n}: {why}" for n, why in dropped_channels(recording).items()),
        "sfreq_out": recording.sfreq,
        "duration_s": round(recording.duration_s, 3),
        "n_events": len(recording.events),
        "line_hz": line[-1] if line else None,
        "notes": "; ".join(notes_of(recording)),
    }


def _events_file(task: Task) -> Path | None:
    pattern = task.source.events.companion
    return companion_path(task.path, pattern) if pattern else None


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

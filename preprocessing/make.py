"""One recording, from file to store: what a worker process does."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from neurofm.contract import SignalContract
from neurofm.electrodes import montage_positions
from neurofm.errors import NeurofmError, SignalError, SourceError, StoreUnwritable
from neurofm.preprocessing.channels import rename_channels
from neurofm.preprocessing.events import companion_path
from neurofm.preprocessing.from_mne import RawReader
from neurofm.preprocessing.harmonise import dropped_channels, harmonise_file, notes_of
from neurofm.preprocessing.mirror import release
from neurofm.preprocessing.quality import measure_quality
from neurofm.preprocessing.read import READER_FAILURES, open_raw
from neurofm.preprocessing.spectrum import spectra, spectra_of
from neurofm.preprocessing.task import Task, files_of, require_new, stat_of
from neurofm.signals import Recording
from neurofm.store.writer import write_recording

# what only writing fails with
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


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
    facts.frame = facts.frame or task.source.frame or ""
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
    digest = require_new(task)
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

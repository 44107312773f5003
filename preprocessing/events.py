"""Events: annotations, stim channels and companion files, aligned to the first sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
from pydantic import Field

from neurofm.config import Config
from neurofm.errors import SourceError
from neurofm.signals import Event

# faster than any stimulus: such a "stim" channel is a clock or a counter
_MAX_RATE_HZ = 20.0
_COMPOSITE = ("STI101", "STI 101", "STI 014", "STI014")


class CarryConfig(Config):
    """Some amplifiers announce a class with one marker and start the trial with another.

    Each announcement is moved to the next `onto` event.

    Parameters
    ----------
    labels : tuple of str
        The markers that announce.
    onto : str
        The marker that starts a trial; it stays.
    """

    labels: tuple[str, ...] = Field(min_length=1)
    onto: str


class EventsConfig(Config):
    """Where events come from and what they are called.

    Parameters
    ----------
    companion : str, optional
        Name of an MNE events file beside the recording, such as ``{stem}-eve.fif``: `{stem}`
        is the file's name without extension and without ``_raw``.
    carry : CarryConfig, optional
        Move announcements to trial starts.
    rename : dict
        New names; events that are not named keep theirs.
    classes : dict
        Map of labels: event name (after `rename`) -> class. Events keep their names, and those
        in the map get a label beside it.
    """

    companion: str | None = None
    carry: CarryConfig | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    classes: dict[str, str] = Field(default_factory=dict)


def companion_path(path: Path, pattern: str) -> Path:
    """Return the events file that belongs to a recording."""
    stem = path.name
    for suffix in (".fif.gz", path.suffix, "_raw", "-raw"):
        stem = stem.removesuffix(suffix)
    return path.with_name(pattern.replace("{stem}", stem))


def collect_events(
    raw: mne.io.BaseRaw,
    config: EventsConfig,
    companion: Path | None = None,
    stim: Iterable[str] = (),
) -> tuple[tuple[Event, ...], list[str]]:
    """Gather the events of a recording.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        The recording.
    config : EventsConfig
        What to do with them.
    companion : Path, optional
        An MNE events file. Its samples count from the start of acquisition, `first_samp`
        included, as MNE writes them.
    stim : iterable of str
        Stim channels.

    Returns
    -------
    events : tuple of Event
        By onset, in seconds from the first sample.
    notes : list of str
        What was left out, and how much.
    """
    notes: list[str] = []
    events = _annotations(raw) + _stim(raw, list(stim), notes)
    if companion is not None:
        events += _from_file(raw, companion)
    events = _in_range(events, raw.n_times / raw.info["sfreq"], notes)
    events += _edges(events)
    events.sort(key=lambda e: (e.onset_s, e.description))
    events = _once(events, notes)
    if config.carry is not None:
        events = _carry(events, config.carry, notes)
    return tuple(_named(events, config, notes)), notes


def _named(events: list[Event], config: EventsConfig, notes: list[str]) -> list[Event]:
    """Give events their new names, and the labels that the map has for those."""
    if config.rename and not {e.description for e in events} & set(config.rename):
        notes.append("no event of `rename` occurs")
    events = [
        replace(e, description=config.rename.get(e.description, e.description)) for e in events
    ]
    if config.classes and not {e.description for e in events} & set(config.classes):
        notes.append("no event of `classes` occurs")
    return [replace(e, label=config.classes.get(e.description, "")) for e in events]


def _annotations(raw: mne.io.BaseRaw) -> list[Event]:
    # MNE counts annotation onsets from the start of acquisition, first_samp included
    return [
        Event(
            onset_s=float(a["onset"]) - raw.first_time,
            duration_s=float(a["duration"]),
            description=str(a["description"]),
        )
        for a in raw.annotations
    ]


def _edges(events: list[Event]) -> list[Event]:
    """Mark where EEGLAB cut something out or BrainVision paused, as MNE marks its own joins."""
    return [
        Event(onset_s=event.onset_s, duration_s=0.0, description="EDGE boundary")
        for event in events
        if event.onset_s > 0
        and (event.description == "boundary" or event.description.startswith("New Segment"))
    ]


def _stim(raw: mne.io.BaseRaw, names: list[str], notes: list[str]) -> list[Event]:
    composite = [name for name in _COMPOSITE if name in names][:1]
    chosen = composite or names
    events: list[Event] = []
    for name in chosen:
        if not np.isfinite(raw.get_data(picks=[name])).all():
            notes.append(f"stim channel {name} holds NaN and was not read")
            continue
        table = mne.find_events(
            raw, stim_channel=name, shortest_event=1, initial_event=False, verbose="error"
        )
        if len(table) > _MAX_RATE_HZ * max(1.0, raw.n_times / raw.info["sfreq"]):
            notes.append(f"stim channel {name} changes {len(table)} times: a clock, not triggers")
            continue
        prefix = f"{name}/" if len(chosen) > 1 else ""
        events += _triggers(table, raw, prefix)
    return events


def _from_file(raw: mne.io.BaseRaw, companion: Path) -> list[Event]:
    if not companion.is_file():
        raise SourceError(
            f"{companion}: the events file named by `events.companion` is not there",
            hint="put it beside the recording, or correct `companion`",
        )
    try:
        table = mne.read_events(companion, verbose="error")
    except (ValueError, OSError, RuntimeError) as error:
        raise SourceError(f"{companion}: not an events file MNE can read: {error}") from error
    return _triggers(table, raw, "")


def _triggers(table: np.ndarray, raw: mne.io.BaseRaw, prefix: str) -> list[Event]:
    sfreq = raw.info["sfreq"]
    return [
        Event(
            onset_s=float((sample - raw.first_samp) / sfreq),
            duration_s=0.0,
            description=f"{prefix}{code}",
        )
        for sample, _, code in table.tolist()
    ]


def _in_range(events: list[Event], duration_s: float, notes: list[str]) -> list[Event]:
    kept = []
    for event in events:
        start = max(event.onset_s, 0.0)
        stop = min(event.onset_s + event.duration_s, duration_s)
        is_span = event.duration_s > 0 and stop > start
        # half a microsecond: onsets in text headers are rounded
        if is_span or -5e-7 <= event.onset_s < duration_s:
            length = stop - start if is_span else 0.0
            kept.append(Event(onset_s=start, duration_s=length, description=event.description))
    if len(kept) < len(events):
        notes.append(f"{len(events) - len(kept)} of {len(events)} events lie outside the recording")
    return kept


def _once(events: list[Event], notes: list[str]) -> list[Event]:
    once = list(dict.fromkeys(events))
    if len(once) < len(events):
        notes.append(f"{len(events) - len(once)} events occur more than once and were read once")
    return once


def _carry(events: list[Event], carry: CarryConfig, notes: list[str]) -> list[Event]:
    out: list[Event] = []
    announced: str | None = None
    lost = 0
    for event in events:
        if event.description in carry.labels:
            lost += announced is not None
            announced = event.description
            continue
        out.append(event)
        if event.description == carry.onto and announced is not None:
            out.append(
                Event(onset_s=event.onset_s, duration_s=event.duration_s, description=announced)
            )
            announced = None
    lost += announced is not None
    if lost:
        notes.append(f"{lost} announcements were followed by no {carry.onto!r}")
    return out

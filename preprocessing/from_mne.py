"""MNE objects to recordings: brain channels only, SI units, events from the first sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mne
import numpy as np

from neurofm.errors import SensorError, SignalError, SourceError
from neurofm.preprocessing.channels import ChannelType, repair_types
from neurofm.preprocessing.events import EventsConfig, collect_events
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import READER_FAILURES
from neurofm.sensors import Knowledge, Sensors, kind_of, sensors_from_info
from neurofm.signals import Entities, Recording

# a channel that does not change from one sample to the next this often was not connected
_FLAT_SHARE = 0.98
# one that is at its smallest or largest value this often has run into the amplifier's limits
_CLIPPED_SHARE = 0.02


def recording_from_raw(
    raw: mne.io.BaseRaw,
    entities: Entities,
    *,
    channels: Mapping[str, ChannelType] | None = None,
    events: EventsConfig | None = None,
    companion: Path | None = None,
    unit_scale: float = 1.0,
    allow_unlocated: bool = False,
    facts: Facts | None = None,
) -> Recording:
    """Turn an MNE recording into a `Recording`, as it was recorded.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Preloaded or not; not changed.
    entities : Entities
        What the recording is called.
    channels : mapping of glob to type, optional
        Repairs of channel types; see `channels.repair_types`.
    events : EventsConfig, optional
        What events are called, and what else is done to them.
    companion : Path, optional
        An MNE events file.
    unit_scale : float
        Factor that brings the samples to SI units.
    allow_unlocated : bool
        Accept a recording of which no channel has a position.
    facts : Facts, optional
        What was found in the file's bytes.

    Returns
    -------
    Recording
        Brain channels that carry a signal. The first entry of its history tells what was
        dropped, and why.

    Raises
    ------
    SensorError
        If names occur twice, a coil is unknown, or nothing has a position.
    SignalError
        If no usable channel is left.
    SourceError
        If the samples cannot be read.
    """
    where = _where(raw, entities)
    facts = facts or Facts()
    info, dropped = repair_types(raw.info, channels or {}, where)
    for name in info["ch_names"]:
        if _label(name, facts) in facts.unusable:
            dropped.setdefault(name, facts.unusable[_label(name, facts)])
    picks = _picks(info, dropped, where)
    sensors = _sensors(info, picks, facts, where)
    signal = _read(raw, picks, where)
    if unit_scale != 1.0:
        signal *= unit_scale
    usable, why = usable_channels(signal)
    dropped |= {info["ch_names"][picks[i]]: reason for i, reason in why.items()}
    if not usable.any():
        raise SignalError(
            f"{where}: no usable channel: {_list(dropped)}",
            hint="nothing was connected, or the file is damaged; exclude it",
        )
    sensors = sensors.select(np.flatnonzero(usable))
    notes = [*facts.notes, *_position_notes(sensors, allow_unlocated, where)]
    notes += _clipping_notes(signal[usable], sensors.ch_names)
    stim = [info["ch_names"][i] for i in mne.pick_types(info, meg=False, stim=True, exclude=[])]
    found, event_notes = collect_events(raw, events or EventsConfig(), companion, stim)
    step = {
        "step": "read",
        "sfreq": float(info["sfreq"]),
        "highpass_hz": info["highpass"],
        "lowpass_hz": info["lowpass"],
        "unit_scale": unit_scale,
        "dropped": dropped,
        "notes": notes + event_notes,
    }
    return Recording(
        signal=signal[usable].astype(np.float32),
        sfreq=float(info["sfreq"]),
        sensors=sensors,
        entities=entities,
        events=found,
        history=(step,),
    )


def usable_channels(signal: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Tell which rows carry a signal, and why the others do not.

    Parameters
    ----------
    signal : ndarray, shape (C, T)
        Samples.

    Returns
    -------
    usable : ndarray of bool, shape (C,)
        True where a signal is.
    why : dict
        Row -> reason, for the others.
    """
    usable = np.ones(len(signal), bool)
    why: dict[int, str] = {}
    for i, row in enumerate(signal):
        wrong = int(np.count_nonzero(~np.isfinite(row)))
        if wrong:
            why[i] = f"{wrong} of {row.size} samples are NaN or infinite"
        elif not row.any():
            why[i] = "all samples are zero"
        elif row.min() == row.max():
            why[i] = f"constant at {row[0]:.3g}"
        elif (share := float(np.mean(row[1:] == row[:-1]))) > _FLAT_SHARE:
            why[i] = f"flat for {share:.1%} of the time"
        usable[i] = i not in why
    return usable, why


def _where(raw: mne.io.BaseRaw, entities: Entities) -> str:
    files = [str(f) for f in raw.filenames if f is not None]
    return files[0] if files else entities.recording_id


def _label(name: str, facts: Facts) -> str:
    """Undo the running number a reader gave to a label that occurs more than once."""
    label, dash, number = name.rpartition("-")
    return label if dash and number.isdigit() and label in facts.duplicates else name.strip()


def _picks(info: mne.Info, dropped: dict[str, str], where: str) -> list[int]:
    keep = [i for i, ch in enumerate(info["chs"]) if ch["ch_name"] not in dropped]
    with _naming(where):
        among = [i for i in keep if kind_of(info["chs"][i]) is not None]
    if not among:
        raise SignalError(
            f"{where}: no usable channel: none of {len(info['ch_names'])} is a brain sensor"
            + (f" ({_list(dropped)})" if dropped else ""),
            hint="repair the types in the config's `channels`, for example {'LFP*': dbs}",
        )
    return among


def _sensors(info: mne.Info, picks: list[int], facts: Facts, where: str) -> Sensors:
    if facts.duplicates:
        labels = [_label(info["ch_names"][i], facts) for i in picks]
        info = info.copy()
        with info._unlock():
            for i, label in zip(picks, labels, strict=True):
                info["chs"][i]["ch_name"] = label
    with _naming(where):
        return sensors_from_info(info, picks)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say which file an error about a sensor is about."""
    try:
        yield
    except SensorError as error:
        raise SensorError(f"{where}: {error.problem}", hint=error.hint) from None


def _read(raw: mne.io.BaseRaw, picks: list[int], where: str) -> np.ndarray:
    try:
        return raw.get_data(picks=picks, verbose="error")
    except READER_FAILURES as error:
        raise SourceError(
            f"{where}: MNE cannot read its samples: {type(error).__name__}: {error}",
            hint="the file is probably damaged; get it again",
        ) from error


def _position_notes(sensors: Sensors, allow_unlocated: bool, where: str) -> list[str]:
    located = sensors.located
    if not located.any() and not allow_unlocated:
        raise SensorError(
            f"{where}: no channel has a position: none is digitised, and none of "
            f"{', '.join(sensors.ch_names[:6])}, … is a name of the 10-05 system",
            hint="add positions to the files, rename the channels, or accept recordings "
            "without any by `allow_unlocated: true` in the source",
        )
    notes = []
    if not located.all():
        names = [n for n, known in zip(sensors.ch_names, located, strict=True) if not known]
        notes.append(f"{len(names)} channels without a position: {', '.join(names[:10])}")
    if (sensors.known == Knowledge.DEVICE).any():
        notes.append("positions are in the device frame: the file has no device-to-head transform")
    return notes


def _clipping_notes(signal: np.ndarray, ch_names: tuple[str, ...]) -> list[str]:
    notes = []
    for row, name in zip(signal, ch_names, strict=True):
        share = float(np.mean((row == row.max()) | (row == row.min())))
        if share > _CLIPPED_SHARE:
            notes.append(f"{name} is at its limits for {share:.0%} of the time")
    return notes


def _list(dropped: Mapping[str, Any], most: int = 6) -> str:
    items = [f"{name}: {why}" for name, why in list(dropped.items())[:most]]
    more = len(dropped) - most
    return "; ".join(items) + (f"; and {more} more" if more > 0 else "")

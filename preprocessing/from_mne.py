"""MNE objects to recordings: brain channels only, SI units, events from the first sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import mne
import numpy as np

from neurofm.contract import CtfGrade, KindName
from neurofm.errors import SensorError, SignalError, SourceError
from neurofm.preprocessing.bad_channels import Policy
from neurofm.preprocessing.channels import ChannelType, repair_types
from neurofm.preprocessing.direct import DirectReader, direct_reader
from neurofm.preprocessing.events import EventsConfig, collect_events
from neurofm.preprocessing.header import brain_channels, describe, label_of, listed, position_notes
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.meg import compensated, filtered_before
from neurofm.preprocessing.read import READER_FAILURES
from neurofm.preprocessing.scan import Scan
from neurofm.preprocessing.units import scale_of
from neurofm.signals import Entities, Recording

# numbers held at a time while a recording is read into memory: 32 MB of float64
_BLOCK = 1 << 22
_MARKED = "marked bad in the file"
# a channel at its limits for less of the time is not worth mentioning
_RARELY = 0.01
# moments at the limits that follow one another this closely are one
_JOIN_S = 0.25


class RawReader:
    """The brain channels of an MNE recording, read a stretch at a time.

    Nothing but the header and the stim channels is read until samples are asked for.

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
    unit_scale : float or mapping of kind to float
        Factor that brings the samples to SI units; kinds not named stay.
    allow_unlocated : bool
        Accept a recording of which no channel has a position.
    facts : Facts, optional
        What was found in the file's bytes, and in the files beside it.
    ctf_grade : int or "as_recorded"
        Compensation grade that CTF recordings are brought to.
    bad_channels : "drop", "interpolate", "mark" or "keep"
        What is going to become of bad channels. Those that the file marks are read unless they
        are to be dropped, those without a signal only if they are to be interpolated; the
        history then marks them bad.

    Attributes
    ----------
    sensors : Sensors
        Every channel that `read` gives a row of.
    sfreq : float
        Sampling rate in hertz.
    n_times : int
        Samples in the recording.
    events : tuple of Event
        By onset, in seconds from the first sample.
    where : str
        The file, or the recording's name, for messages.

    Raises
    ------
    SensorError
        If names occur twice, a coil is unknown, or the compensation grade cannot be had.
    SignalError
        If no channel is a brain sensor.
    SourceError
        If the stim channels or the events file cannot be read.
    """

    def __init__(  # noqa: PLR0913 - what is read, how it is repaired, what else is known
        self,
        raw: mne.io.BaseRaw,
        entities: Entities,
        *,
        channels: Mapping[str, ChannelType] | None = None,
        events: EventsConfig | None = None,
        companion: Path | None = None,
        unit_scale: float | Mapping[KindName, float] = 1.0,
        allow_unlocated: bool = False,
        facts: Facts | None = None,
        ctf_grade: CtfGrade = 3,
        bad_channels: Policy = "drop",
    ):
        self.entities = entities
        self.where = _where(raw, entities)
        self._raw, compensation = compensated(raw, ctf_grade, self.where)
        self._unit_scale = unit_scale if isinstance(unit_scale, float | int) else dict(unit_scale)
        self._allow_unlocated = allow_unlocated
        facts = facts or Facts()
        info, self._dropped = repair_types(raw.info, channels or {}, self.where)
        silent = {
            name: facts.unusable[label_of(name, facts)]
            for name in info["ch_names"]
            if label_of(name, facts) in facts.unusable
        }
        marked = dict.fromkeys(info["bads"], _MARKED)
        self._policy = bad_channels
        if bad_channels != "interpolate":
            self._dropped = silent | self._dropped
        if bad_channels == "drop":
            self._dropped = marked | self._dropped
        self._picks = brain_channels(info, self._dropped, self.where)
        self._names = [info["ch_names"][i] for i in self._picks]
        bad = silent | marked
        self._bad = {i: bad[name] for i, name in enumerate(self._names) if name in bad}
        self.sensors = describe(info, self._picks, facts, self.where)
        self.sfreq = float(info["sfreq"])
        self.n_times = int(raw.n_times)
        self._header = {
            "highpass_hz": info["highpass"],
            "lowpass_hz": info["lowpass"],
            **compensation,
            **filtered_before(info),
            **({"participant": facts.participant} if facts.participant else {}),
        }
        stim = [info["ch_names"][i] for i in mne.pick_types(info, meg=False, stim=True, exclude=[])]
        with _reading(self.where):
            self.events, told = collect_events(raw, events or EventsConfig(), companion, stim)
        self._notes = (list(facts.notes), told)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return samples `start` to `stop` in SI units, float64, shape (C, stop - start).

        Raises
        ------
        SourceError
            If they cannot be read, or are fewer than the header promises.
        """
        with _reading(self.where):
            signal = self._raw.get_data(picks=self._picks, start=start, stop=stop, verbose="error")
        wanted = min(stop, self.n_times) - start
        if signal.shape[1] != wanted:
            raise SourceError(
                f"{self.where}: {signal.shape[1]} samples where {wanted} should be, from "
                f"{start / self.sfreq:g} s on",
                hint="the file is probably damaged; get it again",
            )
        if self._unit_scale != 1.0:
            signal *= scale_of(self._unit_scale, self.sensors)
        return signal

    @cached_property
    def direct(self) -> DirectReader | None:
        """What reads the file's own numbers, where it is interleaved samples; None elsewhere."""
        with _reading(self.where):
            return direct_reader(self._raw, self._picks, scale_of(self._unit_scale, self.sensors))

    def blocks(self, n_times: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the recording a stretch at a time: its first sample, and what `read` returns."""
        for start in range(0, self.n_times, n_times):
            yield start, self.read(start, min(start + n_times, self.n_times))

    def verdict(self, scan: Scan) -> tuple[np.ndarray, dict[str, Any]]:
        """Say which channels are kept, once all samples have been seen.

        Parameters
        ----------
        scan : Scan
            Of every block of this reader.

        Returns
        -------
        keep : ndarray of int
            Rows that carry a signal; `sensors.select(keep)` are their channels.
        step : dict
            The first entry of the recording's history: what was read, what was dropped and why.

        Raises
        ------
        SignalError
            If no channel carries a signal.
        SensorError
            If none of those that do has a position, and that is not allowed.
        """
        why = scan.unusable()
        names = self.sensors.ch_names
        bad = self._bad
        if self._policy == "interpolate" and len(why) < len(names):
            bad, why = why | bad, {}
        dropped = self._dropped | {self._names[i]: reason for i, reason in why.items()}
        keep = np.array([i for i in range(len(self._names)) if i not in why], int)
        if not len(keep):
            raise SignalError(
                f"{self.where}: no usable channel: {listed(dropped)}",
                hint="nothing was connected, or the file is damaged; exclude it",
            )
        found, told = self._notes
        notes = [
            *found,
            *position_notes(self.sensors.select(keep), self._allow_unlocated, self.where),
            *scan.clipping_notes(names),
            *told,
        ]
        return keep, {
            "step": "read",
            "sfreq": self.sfreq,
            **self._header,
            "unit_scale": self._unit_scale,
            "dropped": dropped,
            "notes": notes,
            **self._seen(scan, keep, bad),
        }

    def _seen(self, scan: Scan, keep: np.ndarray, bad: Mapping[int, str]) -> dict[str, Any]:
        """Return what cleaning has to know of the samples as they were recorded."""
        names = self.sensors.ch_names
        shares = {names[i]: round(scan.at_limits(i), 6) for i in keep}
        join = max(1, round(_JOIN_S * self.sfreq))
        clipped = {names[i]: scan.clipped([i], join) for i in keep if i not in bad}
        seen = {
            "bad": {names[i]: why for i, why in bad.items() if i in keep},
            "at_limits": {name: share for name, share in shares.items() if share > _RARELY},
            "clipped_s": {
                name: [[round(at / self.sfreq, 4) for at in run] for run in runs]
                for name, runs in clipped.items()
                if runs
            },
        }
        return {key: value for key, value in seen.items() if value}

    def recording(self) -> Recording:
        """Read everything into memory."""
        signal = np.empty((len(self._picks), self.n_times), np.float32)
        scan = Scan(len(signal))
        for start, block in self.blocks(max(1, _BLOCK // len(signal))):
            scan.add(block)
            signal[:, start : start + block.shape[1]] = block
        keep, step = self.verdict(scan)
        return Recording(
            signal=signal if len(keep) == len(signal) else signal[keep],
            sfreq=self.sfreq,
            sensors=self.sensors.select(keep),
            entities=self.entities,
            events=self.events,
            history=(step,),
        )


def recording_from_raw(raw: mne.io.BaseRaw, entities: Entities, **reading: Any) -> Recording:
    """Turn an MNE recording into a `Recording` in memory, as it was recorded.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Preloaded or not; not changed.
    entities : Entities
        What the recording is called.
    **reading
        What else `RawReader` takes.

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
    return RawReader(raw, entities, **reading).recording()


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Say which file could not be read."""
    try:
        yield
    except (SensorError, SignalError, SourceError):
        raise
    except READER_FAILURES as error:
        raise SourceError(
            f"{where}: MNE cannot read its samples: {type(error).__name__}: {error}",
            hint="the file is probably damaged; get it again",
        ) from error


def _where(raw: mne.io.BaseRaw, entities: Entities) -> str:
    files = [str(f) for f in raw.filenames if f is not None]
    return files[0] if files else entities.recording_id

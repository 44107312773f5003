"""XDF: what LabStreamingLayer records, one stream of many."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import mne
import numpy as np
from pydantic import Field

from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.lazy import (
    EDGE,
    VOLTS,
    ElectricKind,
    LazyRaw,
    Unit,
    annotate,
    find_gaps,
    make_info,
)
from neurofm.preprocessing.magic import Facts, wrong_format
from neurofm.preprocessing.read import Reader

_UNITS: dict[str, Unit] = {
    "v": "V", "volt": "V", "volts": "V", "mv": "mV", "millivolt": "mV", "millivolts": "mV",
    "uv": "uV", "µv": "uV", "μv": "uV", "microvolt": "uV", "microvolts": "uV",
    "nv": "nV", "nanovolt": "nV", "nanovolts": "nV",
}  # fmt: skip
_LOST = re.compile(r"corruption|Error reading|zero-length|scanning forward|truncated", re.I)
# channel types of the XDF meta-data that are brain sensors
_BRAIN = ("", "eeg", "ieeg", "ecog", "seeg")


class XdfReader(Reader):
    """One stream of an XDF file; its marker streams become events. It is read as a whole.

    Parameters
    ----------
    stream : str, optional
        Name of the stream; by default the only one of type EEG.
    ch_names : tuple of str
        Names of its channels, where the stream has none.
    unit : str, optional
        What its numbers are in, where the stream does not say.
    kind : str
        The kind of its channels.
    gap_s : float
        Time stamps further apart than this are a gap.
    """

    name: Literal["xdf"] = "xdf"
    stream: str | None = None
    ch_names: tuple[str, ...] = ()
    unit: Unit | None = None
    kind: ElectricKind = "eeg"
    gap_s: float = Field(default=0.1, gt=0)

    library: ClassVar[str] = "pyxdf"
    endings: ClassVar[tuple[str, ...]] = (".xdf",)

    def companions(self, path: Path) -> list[Path]:
        """Return nothing: an XDF file holds all of its streams."""
        return []

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Read the file and choose its stream.

        Raises
        ------
        SourceError
            If it is no XDF file or damaged, or the stream that is wanted is not there or empty.
        """
        with path.open("rb") as file:
            head = file.read(512)
        if not head.startswith((b"XDF:", b"\x1f\x8b")):
            raise wrong_format(path, "XDF", head)
        streams = _load(path)
        stream = self._chosen(streams, path)
        sfreq = float(stream["info"]["nominal_srate"][0])
        times_s = np.asarray(stream["time_stamps"], float)
        if not len(times_s):
            raise SourceError(f"{path}: the stream {_name(stream)!r} holds no sample")
        starts, notes = find_gaps(times_s, sfreq, self.gap_s, path)
        facts.notes += notes
        names, units, brain = self._channels(stream, path)
        scale = np.array([VOLTS[unit] for unit in units])[:, None]
        signal = np.asarray(stream["time_series"], float).T[brain] * scale
        info = make_info(names, sfreq, self.kind, path)
        raw = LazyRaw(path, info, signal.shape[1], lambda start, stop: signal[:, start:stop])
        events = [(start / sfreq, 0.0, EDGE) for start in starts]
        for other in streams:
            events += _markers(other, times_s, sfreq)
        annotate(raw, events)
        return raw

    def _chosen(self, streams: list[dict[str, Any]], path: Path) -> dict[str, Any]:
        listed = ", ".join(f"{_name(s)!r} ({s['info']['type'][0]})" for s in streams) or "none"
        if self.stream is not None:
            among = [s for s in streams if _name(s) == self.stream]
        else:
            among = [s for s in streams if (s["info"]["type"][0] or "").upper() == "EEG"]
        if len(among) != 1:
            wanted = repr(self.stream) if self.stream else "of type EEG"
            raise SourceError(
                f"{path}: {len(among) or 'no'} streams {wanted}; found {listed}",
                hint="choose one: `reader: {name: xdf, stream: …}`",
            )
        return among[0]

    def _channels(
        self, stream: dict[str, Any], path: Path
    ) -> tuple[list[str], list[Unit], list[int]]:
        """Return names and units of the brain channels, and their columns."""
        n = int(stream["info"]["channel_count"][0])
        told = _described(stream, n)
        labels = [c["label"] for c in told]
        if self.ch_names and len(self.ch_names) != n:
            raise SourceError(
                f"{path}: the stream {_name(stream)!r} has {n} channels, `ch_names` has "
                f"{len(self.ch_names)} names"
            )
        if self.ch_names:
            labels = list(self.ch_names)
        elif not all(labels):
            labels = [label or f"CH{i + 1}" for i, label in enumerate(labels)]
        brain = [i for i, c in enumerate(told) if c["type"] in _BRAIN]
        units: list[Unit] = []
        for i in brain:
            unit = self.unit or _UNITS.get(told[i]["unit"])
            if unit is None:
                raise SourceError(
                    f"{path}: the stream {_name(stream)!r} does not say what the numbers of "
                    f"{labels[i]!r} are in (found {told[i]['unit']!r})",
                    hint="say it: `reader: {name: xdf, unit: uV}`",
                )
            units.append(unit)
        return [labels[i] for i in brain], units, brain


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        import pyxdf
    except ImportError:
        raise ConfigError(
            f"{path}: XDF files need pyxdf, which is not installed",
            hint="pip install 'neurofm[formats]'",
        ) from None
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(" ".join(record.getMessage().split()))

    # pyxdf goes on behind what it cannot read, and only its log tells
    ear, log = Ear(logging.WARNING), logging.getLogger("pyxdf")
    log.addHandler(ear)
    try:
        streams, _ = pyxdf.load_xdf(path, verbose=False)
    finally:
        log.removeHandler(ear)
    if lost := [text for text in heard if _LOST.search(text)]:
        raise SourceError(
            f"{path}: cut short or damaged: {lost[0][:200]}",
            hint="copy or download the file again",
        )
    return list(streams)


def _name(stream: dict[str, Any]) -> str:
    return str(stream["info"]["name"][0])


def _described(stream: dict[str, Any], n: int) -> list[dict[str, str]]:
    """Return label, unit and type of each channel, empty where the file says nothing."""
    empty = [{"label": "", "unit": "", "type": ""} for _ in range(n)]
    try:
        channels = stream["info"]["desc"][0]["channels"][0]["channel"]
    except (KeyError, IndexError, TypeError):
        return empty
    if len(channels) != n:
        return empty
    out = []
    for channel in channels:
        told = {key: str((channel.get(key) or [""])[0] or "").strip() for key in empty[0]}
        out.append({**told, "unit": told["unit"].lower(), "type": told["type"].lower()})
    return out


def _markers(
    stream: dict[str, Any], times_s: np.ndarray, sfreq: float
) -> list[tuple[float, float, str]]:
    """Place the markers of a stream at the sample that was taken at their time."""
    if float(stream["info"]["nominal_srate"][0]) != 0 or not len(stream["time_stamps"]):
        return []
    out = []
    for at_s, values in zip(stream["time_stamps"], stream["time_series"], strict=True):
        if times_s[0] - 0.5 / sfreq <= at_s <= times_s[-1] + 0.5 / sfreq:
            after = min(int(np.searchsorted(times_s, at_s)), len(times_s) - 1)
            near = max(after - 1, 0)
            sample = near if abs(times_s[near] - at_s) < abs(times_s[after] - at_s) else after
            text = "/".join(str(value) for value in np.atleast_1d(values))
            out.append((sample / sfreq, 0.0, text))
    return out

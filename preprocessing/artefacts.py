"""Artefact spans: moments that are not the brain's, marked as ``BAD_`` events with their reason.

Nothing is cut out: what reads windows leaves marked ones aside, and the signal stays whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neurofm.config import Config
from neurofm.contract import KindName
from neurofm.errors import SignalError
from neurofm.preprocessing.history import band_passed, clipped, marked_bad
from neurofm.preprocessing.windows import Measured, measure
from neurofm.sensors import SensorKind
from neurofm.signals import Event, Recording

Reason = Literal["amplitude", "jump", "muscle", "clipping", "autoreject"]

# A recording of which more than this is marked is worth a note.
_MOSTLY = 0.5


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of time and what is wrong with it.

    Attributes
    ----------
    start_s, stop_s : float
        Seconds from the first sample.
    reason : str
        Which limit was broken.
    """

    start_s: float
    stop_s: float
    reason: Reason


class MarkArtefacts(Config):
    """Mark moments of extreme amplitude, jumps, muscle and clipping; None looks for none.

    Parameters
    ----------
    amplitude : dict of kind -> float, optional
        Largest absolute sample in the kind's SI unit, once band-passed. Kinds not named have
        no limit.
    amplitude_share : float
        The share of a kind's channels that must break it together; one channel always may
        where the kind has few. A single electrode that moves spoils its own samples alone.
    jump_sd : float, optional
        Largest difference between samples that follow one another, in robust standard
        deviations of such differences: a SQUID that lost lock, an electrode that popped.
    muscle_z : float, optional
        Largest power in `muscle_hz`, as a robust z score over time of its logarithm, in the
        mean of a kind's channels.
    muscle_hz : (float, float)
        Where muscles are louder than brains; what the recording's band leaves of it is used,
        if that is at least 10 Hz wide.
    clipping : bool
        Mark when a channel ran into the amplifier's limits, as seen before filtering.
    window_s : float
        How finely time is divided.
    pad_s : float
        Marked on either side as well: filters have spread what happened.
    most_share : float
        A recording of which more would be marked is refused: nothing to speak of is left.
    """

    # Two to three times what epochs are usually rejected at (150 uV, 4 pT, 400 pT/m peak to
    # peak in MNE's examples): slow waves and blinks of healthy people pass, movement does not.
    amplitude: dict[KindName, float] | None = {
        "eeg": 400e-6,
        "mag": 10e-12,
        "grad_axial": 10e-12,
        "grad_planar": 1e-9,
        "opm": 20e-12,
        "seeg": 3e-3,
        "ecog": 3e-3,
        "dbs": 3e-3,
    }
    amplitude_share: float = Field(default=0.05, ge=0, le=1)
    # the sharpest spike of an epileptic brain stays below 20
    jump_sd: float | None = Field(default=40.0, gt=0)
    # as annotate_muscle_zscore of MNE suggests for MEG
    muscle_z: float | None = Field(default=5.0, gt=0)
    muscle_hz: tuple[float, float] = (30.0, 140.0)
    clipping: bool = True
    window_s: float = Field(default=0.5, gt=0)
    pad_s: float = Field(default=0.25, ge=0)
    most_share: float = Field(default=0.95, gt=0, le=1)

    def find(self, recording: Recording) -> tuple[Span, ...]:
        """Return what is wrong, by reason and time; spans of one reason do not overlap.

        Parameters
        ----------
        recording : Recording
            Band-passed. Channels marked bad in its history are not looked at.
        """
        bad = marked_bad(recording)
        good = np.array([name not in bad for name in recording.sensors.ch_names])
        measured = measure(recording, self.window_s, self._muscle_band(recording))
        hits = {
            "amplitude": self._amplitude(recording, measured, good),
            "jump": self._jump(measured, good),
            "muscle": self._muscle(recording, measured, good),
        }
        spans = [
            span
            for reason, hit in hits.items()
            for span in self._spans(reason, np.flatnonzero(hit), measured, recording)  # type: ignore[arg-type]
        ]
        if self.clipping:
            times = clipped(recording)
            spans += self._joined("clipping", times, recording.duration_s)
        return tuple(spans)

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with its artefacts marked.

        Raises
        ------
        SignalError
            If nearly nothing of it would be left.
        """
        spans = self.find(recording)
        return mark(recording, spans, {"step": "mark_artefacts"}, self.most_share)

    def _muscle_band(self, recording: Recording) -> tuple[float, float] | None:
        low, high, _ = band_passed(recording)
        low = max(low, self.muscle_hz[0])
        high = min(high, self.muscle_hz[1], 0.5 * recording.sfreq)
        return (low, high) if self.muscle_z is not None and high - low >= 10 else None

    def _amplitude(self, recording: Recording, measured: Measured, good: np.ndarray) -> np.ndarray:
        hit = np.zeros(measured.peak.shape[1], bool)
        for label, limit in (self.amplitude or {}).items():
            rows = (recording.sensors.kind == SensorKind[label.upper()]) & good
            if rows.any():
                share = (measured.peak[rows] > limit).mean(axis=0)
                hit |= (share > 0) & (share >= self.amplitude_share)
        return hit

    def _jump(self, measured: Measured, good: np.ndarray) -> np.ndarray:
        if self.jump_sd is None or not good.any():
            return np.zeros(measured.step.shape[1], bool)
        limit = self.jump_sd * measured.step_sd[good, None]
        return np.asarray(((measured.step[good] > limit) & (limit > 0)).any(axis=0))

    def _muscle(self, recording: Recording, measured: Measured, good: np.ndarray) -> np.ndarray:
        hit = np.zeros(measured.peak.shape[1], bool)
        if self.muscle_z is None or measured.muscle is None:
            return hit
        for code in np.unique(recording.sensors.kind):
            rows = (recording.sensors.kind == code) & good
            if rows.any():
                hit |= _robust_z(measured.muscle[rows]).mean(axis=0) > self.muscle_z
        return hit

    def _spans(
        self, reason: Reason, windows: np.ndarray, measured: Measured, recording: Recording
    ) -> list[Span]:
        length = measured.n_window / recording.sfreq
        times = [(w * length, (w + 1) * length) for w in windows.tolist()]
        return self._joined(reason, times, recording.duration_s)

    def _joined(
        self, reason: Reason, times: Iterable[tuple[float, float]], duration_s: float
    ) -> list[Span]:
        """Pad stretches, and join those that then touch."""
        joined: list[list[float]] = []
        for start, stop in sorted(times):
            start, stop = max(0.0, start - self.pad_s), min(duration_s, stop + self.pad_s)
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(stop, joined[-1][1])
            else:
                joined.append([start, stop])
        return [Span(start_s=a, stop_s=b, reason=reason) for a, b in joined if b > a]


def mark(
    recording: Recording, spans: Sequence[Span], step: dict[str, Any], most_share: float
) -> Recording:
    """Return the recording with spans among its events, as ``BAD_`` and their reason.

    Parameters
    ----------
    recording : Recording
        Its signal is not touched.
    spans : sequence of Span
        What is to be marked.
    step : dict
        What history remembers; lengths by reason and the share that is newly marked are added.
    most_share : float
        The largest share of the recording that may be marked.

    Raises
    ------
    SignalError
        If more would be.
    """
    events = sorted((*recording.events, *map(_event, spans)), key=lambda event: event.onset_s)
    before, after = (_bad_s(recording, marked) for marked in (recording.events, tuple(events)))
    share, lengths = after / recording.duration_s, _lengths(spans)
    told = ", ".join(f"{reason} {length:g} s" for reason, length in lengths.items())
    if after > before and share > most_share:
        raise SignalError(
            f"{recording.recording_id}: {share:.0%} of {recording.duration_s:g} s would be "
            f"marked bad ({told})",
            hint="look at the recording and its unit; exclude it, drop what is broken in "
            "`channels`, or raise the limits in `cleaning`",
        )
    new_share = round((after - before) / recording.duration_s, 6)
    step = step | {"marked_s": lengths, "share": new_share}
    if after > before and share > _MOSTLY:
        step["notes"] = [f"{share:.0%} of the recording is marked bad ({told})"]
    elif lengths:
        step["notes"] = [f"marked bad: {told}"]
    return replace(recording, events=tuple(events), history=(*recording.history, step))


def _robust_z(values: np.ndarray) -> np.ndarray:
    low, middle, high = np.percentile(values, [25, 50, 75], axis=1, keepdims=True)
    sd = (high - low) / 1.349
    return np.where(sd > 0, (values - middle) / np.maximum(sd, 1e-12), 0.0)


def _event(span: Span) -> Event:
    return Event(
        onset_s=round(span.start_s, 6),
        duration_s=round(span.stop_s - span.start_s, 6),
        description=f"BAD_{span.reason}",
    )


def _lengths(spans: Iterable[Span]) -> dict[str, float]:
    lengths: dict[str, float] = {}
    for span in spans:
        lengths[span.reason] = lengths.get(span.reason, 0.0) + span.stop_s - span.start_s
    return {reason: round(length, 3) for reason, length in lengths.items()}


def _bad_s(recording: Recording, events: tuple[Event, ...]) -> float:
    spans = replace(recording, events=events).good_spans()
    return recording.duration_s - sum(stop - start for start, stop in spans)

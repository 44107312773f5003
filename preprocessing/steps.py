"""Steps: recordings in, recordings out, each a plain value that writes itself into history."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Any, Literal

import mne
import numpy as np
from pydantic import Field
from scipy.signal import resample_poly

from neurofm.config import Config
from neurofm.contract import KindName, Reference
from neurofm.errors import SignalError
from neurofm.sensors import SensorKind
from neurofm.signals import Event, Recording

# Rows filtered at a time: bounds memory, as filters work in double precision.
_ROWS = 16
# Samples on either side of these do not follow one another: no filter may run across them.
_CUTS = ("BAD BOUNDARY", "EDGE", "BAD_ACQ_SKIP")


class Notch(Config):
    """Remove mains frequency and harmonics.

    Parameters
    ----------
    freqs_hz : tuple of float
        Centres of the notches in hertz.
    """

    name: Literal["notch"] = "notch"
    freqs_hz: tuple[float, ...] = Field(min_length=1)

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording without these frequencies."""

        def notch(signal: np.ndarray) -> np.ndarray:
            return mne.filter.notch_filter(
                signal, recording.sfreq, np.array(self.freqs_hz), verbose="error"
            )

        return _filtered(recording, notch, self._step())

    def _step(self) -> dict[str, Any]:
        return {"step": "notch", "freqs_hz": list(self.freqs_hz)}


class BandPass(Config):
    """Keep what lies between two frequencies, without shifting phases.

    Parameters
    ----------
    low_hz, high_hz : float
        Edges of the pass band in hertz. A `high_hz` at the Nyquist frequency filters nothing
        above.
    """

    name: Literal["band_pass"] = "band_pass"
    low_hz: float = Field(gt=0)
    high_hz: float = Field(gt=0)

    def __call__(self, recording: Recording) -> Recording:
        """Return the band-passed recording."""
        high = self.high_hz if self.high_hz < recording.sfreq / 2 else None

        def band_pass(signal: np.ndarray) -> np.ndarray:
            return mne.filter.filter_data(
                signal, recording.sfreq, self.low_hz, high, verbose="error"
            )

        step: dict[str, Any] = {
            "step": "band_pass", "low_hz": self.low_hz, "high_hz": self.high_hz
        }  # fmt: skip
        # the length of MNE's default high-pass: 3.3 periods of its transition band
        needed_s = 3.3 / min(max(0.25 * self.low_hz, 2.0), self.low_hz)
        shortest = min(b - a for a, b in _pieces(recording)) / recording.sfreq
        if shortest < needed_s:
            step["notes"] = [
                f"high-pass of {needed_s:.3g} s on a stretch of {shortest:.3g} s: slow drifts stay"
            ]
        return _filtered(recording, band_pass, step)


class Resample(Config):
    """Change the sampling rate.

    Parameters
    ----------
    sfreq : float
        The new rate in hertz.
    """

    name: Literal["resample"] = "resample"
    sfreq: float = Field(gt=0)

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording at the new rate; events keep their seconds."""
        if recording.sfreq == self.sfreq:
            return recording
        # rates such as 300.3074951171875 Hz are met to 0.2 ms in an hour
        ratio = Fraction(self.sfreq / recording.sfreq).limit_denominator(4000)
        pieces = []
        for start, stop in _pieces(recording):
            piece = recording.signal[:, start:stop].astype(np.float64)
            out = resample_poly(piece, ratio.numerator, ratio.denominator, axis=1, padtype="line")
            n = ceil(stop * ratio) - ceil(start * ratio)
            pieces.append(_fit(out, n).astype(np.float32))
        return recording.evolve(
            {"step": "resample", "from_hz": recording.sfreq, "to_hz": self.sfreq},
            signal=np.concatenate(pieces, axis=1),
            sfreq=self.sfreq,
        )


class Rereference(Config):
    """Reference the channels of a kind to their own mean.

    Parameters
    ----------
    reference : dict
        Kind -> ``as_recorded`` or ``average``; kinds not named stay.
    """

    name: Literal["rereference"] = "rereference"
    reference: dict[KindName, Reference]

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with its new reference.

        Raises
        ------
        SignalError
            If a kind to be averaged has one channel: nothing would be left of it.
        """
        signal = recording.signal.copy()
        averaged = []
        for label, how in self.reference.items():
            rows = recording.sensors.of_kind(SensorKind[label.upper()])
            if how == "as_recorded" or not len(rows):
                continue
            if len(rows) == 1:
                raise SignalError(
                    f"{recording.recording_id}: average reference of a single {label} channel "
                    f"({recording.sensors.ch_names[rows[0]]}) leaves nothing",
                    hint=f"set the contract's reference.{label} to as_recorded",
                )
            signal[rows] -= signal[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
            averaged.append(label)
        if not averaged:
            return recording
        return recording.evolve({"step": "rereference", "average": averaged}, signal=signal)


def _filtered(
    recording: Recording, apply: Callable[[np.ndarray], np.ndarray], step: dict[str, Any]
) -> Recording:
    signal = np.empty_like(recording.signal)
    for start, stop in _pieces(recording):
        for row in range(0, len(signal), _ROWS):
            block = recording.signal[row : row + _ROWS, start:stop]
            # in double precision: a slow drift may be a million times what is kept
            signal[row : row + _ROWS, start:stop] = apply(block.astype(np.float64))
    return recording.evolve(step, signal=signal)


def _pieces(recording: Recording) -> list[tuple[int, int]]:
    """Return start and stop samples of the stretches that were recorded in one go."""
    cuts = {0, recording.n_times}
    for event in recording.events:
        if _is_cut(event):
            for at_s in (event.onset_s, event.onset_s + event.duration_s):
                at = round(at_s * recording.sfreq)
                if 0 < at < recording.n_times:
                    cuts.add(at)
    edges = sorted(cuts)
    return list(zip(edges[:-1], edges[1:], strict=True))


def _is_cut(event: Event) -> bool:
    return event.description.upper().startswith(_CUTS)


def _fit(signal: np.ndarray, n: int) -> np.ndarray:
    """Trim to `n` samples, or repeat the last one: pieces must add up to the whole."""
    if signal.shape[1] >= n:
        return signal[:, :n]
    return np.pad(signal, ((0, 0), (0, n - signal.shape[1])), mode="edge")

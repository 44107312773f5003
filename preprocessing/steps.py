"""Steps: recordings in, recordings out, each a plain value that writes itself into history.

Temporal ones are parts of one operator: `apply` runs them together, in one pass of the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.preprocessing.engine import Operator, run
from neurofm.signals import Event, Recording

# Samples on either side of these do not follow one another: no filter may run across them.
_CUTS = ("BAD BOUNDARY", "EDGE", "BAD_ACQ_SKIP")


class Temporal(Config, ABC):
    """A step that does the same to every channel at every moment: a part of one operator."""

    @abstractmethod
    def kernel(self, sfreq: float) -> np.ndarray | None:
        """Return the symmetric impulse response at a sampling rate; None if nothing is filtered."""

    def rate(self, sfreq: float) -> float:
        """Return the sampling rate of what comes out."""
        return sfreq

    @abstractmethod
    def told(self, sfreq: float, shortest: int) -> dict[str, Any] | None:
        """Return what the history remembers; `shortest` is the shortest stretch in samples."""

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with the step applied, its signal in memory."""
        return apply((self,), recording)


class Notch(Temporal):
    """Remove mains frequency and harmonics, as `mne.filter.notch_filter` does.

    Parameters
    ----------
    freqs_hz : tuple of float
        Centres of the notches in hertz.
    """

    name: Literal["notch"] = "notch"
    freqs_hz: tuple[float, ...] = Field(min_length=1)

    def kernel(self, sfreq: float) -> np.ndarray:
        """Return the filter that `mne.filter.notch_filter` makes."""
        return _notch_kernel(sfreq, self.freqs_hz)

    def told(self, sfreq: float, shortest: int) -> dict[str, Any]:
        """Return the frequencies."""
        return {"step": "notch", "freqs_hz": list(self.freqs_hz)}


class BandPass(Temporal):
    """Keep what lies between two frequencies, as `mne.filter.filter_data` does.

    Parameters
    ----------
    low_hz, high_hz : float
        Edges of the pass band in hertz. A `high_hz` at the Nyquist frequency filters nothing
        above.
    """

    name: Literal["band_pass"] = "band_pass"
    low_hz: float = Field(gt=0)
    high_hz: float = Field(gt=0)

    def kernel(self, sfreq: float) -> np.ndarray:
        """Return the filter that `mne.filter.filter_data` makes."""
        return _band_kernel(sfreq, self.low_hz, self.high_hz if self.high_hz < sfreq / 2 else None)

    def told(self, sfreq: float, shortest: int) -> dict[str, Any]:
        """Return the band, and a note if the high-pass is longer than the signal."""
        step: dict[str, Any] = {
            "step": "band_pass", "low_hz": self.low_hz, "high_hz": self.high_hz
        }  # fmt: skip
        # the length of MNE's default high-pass: 3.3 periods of its transition band
        needed_s = 3.3 / min(max(0.25 * self.low_hz, 2.0), self.low_hz)
        if shortest / sfreq < needed_s:
            there = f"{shortest / sfreq:.3g} s"
            step["notes"] = [
                f"high-pass of {needed_s:.3g} s on a stretch of {there}: slow drifts stay"
            ]
        return step


class Resample(Temporal):
    """Change the sampling rate.

    Parameters
    ----------
    sfreq : float
        The new rate in hertz.
    """

    name: Literal["resample"] = "resample"
    sfreq: float = Field(gt=0)

    def kernel(self, sfreq: float) -> None:
        """Return None: what cannot be at the new rate is taken out by the engine itself."""

    def rate(self, sfreq: float) -> float:
        """Return the new rate."""
        return self.sfreq

    def told(self, sfreq: float, shortest: int) -> dict[str, Any] | None:
        """Return both rates, or None if they are the same."""
        if sfreq == self.sfreq:
            return None
        return {"step": "resample", "from_hz": sfreq, "to_hz": self.sfreq}


# the same few filters serve every recording of a data set
@lru_cache(32)
def _notch_kernel(sfreq: float, freqs_hz: tuple[float, ...]) -> np.ndarray:
    import mne

    freqs = np.asarray(freqs_hz)
    half = 0.5  # hertz of transition on either side of a notch, and
    outer = freqs / 400 + half  # half the width of a stop band, which is a 200th of its centre
    return np.asarray(
        mne.filter.create_filter(
            None, sfreq, list(freqs + outer), list(freqs - outer),
            l_trans_bandwidth=half, h_trans_bandwidth=half, verbose="error",
        )
    )  # fmt: skip


@lru_cache(32)
def _band_kernel(sfreq: float, low_hz: float, high_hz: float | None) -> np.ndarray:
    import mne

    return np.asarray(mne.filter.create_filter(None, sfreq, low_hz, high_hz, verbose="error"))


def fused(steps: Sequence[Temporal], sfreq: float) -> Operator:
    """Return the one operator that does all steps; resampling must come last.

    Raises
    ------
    ConfigError
        If a step comes after the sampling rate has changed.
    """
    kernels, rate = [], sfreq
    for step in steps:
        if rate != sfreq:
            raise ConfigError(
                f"{type(step).__name__} after a change of the sampling rate is not one pass",
                hint="put Resample last, or apply the steps one after another",
            )
        kernel = step.kernel(sfreq)
        if kernel is not None:
            kernels.append(kernel)
        rate = step.rate(sfreq)
    return Operator(sfreq, rate, tuple(kernels))


def told(
    steps: Sequence[Temporal], sfreq: float, pieces: Sequence[tuple[int, int]]
) -> tuple[dict[str, Any], ...]:
    """Return what the history remembers of steps applied together."""
    shortest = min(stop - start for start, stop in pieces)
    found = (step.told(sfreq, shortest) for step in steps)
    return tuple(entry for entry in found if entry is not None)


def apply(steps: Sequence[Temporal], recording: Recording) -> Recording:
    """Apply steps together, in one pass; what comes out is in memory."""
    operator = fused(steps, recording.sfreq)
    pieces = stretches(recording.events, recording.sfreq, recording.n_times)
    history = (*recording.history, *told(steps, recording.sfreq, pieces))
    if not operator.changes:
        return replace(recording, history=history)
    out = np.empty((len(recording.sensors), operator.n_times_out(recording.n_times)), np.float32)

    def read(start: int, stop: int) -> np.ndarray:
        return np.asarray(recording.signal[:, start:stop])

    def sink(start: int, block: np.ndarray) -> None:
        out[:, start : start + block.shape[1]] = block

    run(operator, read, len(out), pieces, sink)
    return replace(recording, signal=out, sfreq=operator.sfreq_out, history=history)


def stretches(events: Iterable[Event], sfreq: float, n_times: int) -> list[tuple[int, int]]:
    """Return start and stop samples of the stretches that were recorded in one go.

    Parameters
    ----------
    events : iterable of Event
        All events of the recording.
    sfreq : float
        Its sampling rate in hertz.
    n_times : int
        Its length.
    """
    cuts = {0, n_times}
    for event in events:
        if event.description.upper().startswith(_CUTS):
            for at_s in (event.onset_s, event.onset_s + event.duration_s):
                at = round(at_s * sfreq)
                if 0 < at < n_times:
                    cuts.add(at)
    edges = sorted(cuts)
    return list(zip(edges[:-1], edges[1:], strict=True))

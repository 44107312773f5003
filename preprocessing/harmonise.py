"""A recording made to be what a signal contract promises."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofm.contract import SignalContract, check_amplitude, robust_sd
from neurofm.errors import SignalError
from neurofm.preprocessing.mains import find_mains, harmonics
from neurofm.preprocessing.steps import BandPass, Notch, Rereference, Resample
from neurofm.sensors import SensorKind
from neurofm.signals import Recording

# A channel this many times louder or quieter than the median of its kind is in another unit,
# or not connected; it would swamp an average reference.
_OUTLYING = 200.0


def harmonise(
    recording: Recording, contract: SignalContract, *, check_units: bool = True
) -> Recording:
    """Apply a contract: kinds, mains, band, rate and reference, in this order.

    Parameters
    ----------
    recording : Recording
        As recorded, in SI units.
    contract : SignalContract
        What it is to become.
    check_units : bool
        Refuse amplitudes that are not plausible.

    Returns
    -------
    Recording
        At the contract's rate and band, in SI units; what was done is in its history.

    Raises
    ------
    SignalError
        If the sampling rate is below twice the band, no channel of the contract's kinds is
        there, amplitudes are not plausible, or less than one window is left.
    """
    where = recording.recording_id
    low, high = contract.band_hz
    if recording.sfreq < 2 * high:
        raise SignalError(
            f"{where}: the sampling rate of {recording.sfreq:g} Hz is below twice the band "
            f"({2 * high:g} Hz): {high:g} Hz cannot be in it",
            hint="lower the contract's band_hz, or exclude the recording",
        )
    recording = _keep_kinds(recording, contract)
    recording = _without_mains(recording, contract)
    recording = BandPass(low_hz=low, high_hz=high)(recording)
    recording = _without_outliers(recording)
    if check_units:
        check_amplitude(recording.signal, recording.sensors, where)
    recording = Resample(sfreq=contract.sfreq)(recording)
    recording = Rereference(reference=contract.references)(recording)
    if recording.n_times < contract.n_times:
        raise SignalError(
            f"{where}: {recording.duration_s:g} s long, shorter than one window of "
            f"{contract.window_s:g} s",
            hint="exclude the recording, or use a shorter window_s",
        )
    return recording


def dropped_channels(recording: Recording) -> dict[str, str]:
    """Collect from the history why channels were dropped."""
    dropped: dict[str, str] = {}
    for step in recording.history:
        dropped |= step.get("dropped", {})
    return dropped


def notes_of(recording: Recording) -> list[str]:
    """Collect the notes in the history."""
    return [note for step in recording.history for note in step.get("notes", ())]


def _keep_kinds(recording: Recording, contract: SignalContract) -> Recording:
    keep = np.array([contract.keeps(kind) for kind in recording.sensors.kind], bool)
    if not keep.any():
        raise SignalError(
            f"{recording.recording_id}: no usable channel: the contract keeps "
            f"{', '.join(contract.kinds)}; the recording has {', '.join(recording.sensors.kinds)}",
            hint="add the kind to the contract's `kinds`, or repair the types in `channels`",
        )
    step: dict[str, Any] = {"step": "keep_kinds", "kinds": list(contract.kinds)}
    lowpass = _header_lowpass(recording)
    if lowpass is not None and lowpass < contract.band_hz[1]:
        step["notes"] = [
            f"recorded with a low-pass at {lowpass:g} Hz, below the band's {contract.band_hz[1]:g}"
        ]
    return _select(recording, keep, "of a kind the contract does not keep", step)


def _header_lowpass(recording: Recording) -> float | None:
    for step in recording.history:
        if step.get("lowpass_hz") is not None:
            return float(step["lowpass_hz"])
    return None


def _select(recording: Recording, keep: np.ndarray, why: str, step: dict[str, Any]) -> Recording:
    if keep.all():
        return recording.evolve(step)
    names = np.asarray(recording.sensors.ch_names)[~keep]
    return recording.evolve(
        {**step, "dropped": {str(name): why for name in names}},
        signal=recording.signal[keep],
        sensors=recording.sensors.select(np.flatnonzero(keep)),
    )


def _without_mains(recording: Recording, contract: SignalContract) -> Recording:
    if contract.line_hz == "none":
        return recording
    step: dict[str, Any] = {"step": "find_mains"}
    if contract.line_hz == "auto":
        line, step["prominence"] = find_mains(recording)
    else:
        line = contract.line_hz
    step["line_hz"] = line
    recording = recording.evolve(step)
    if line is None:
        return recording
    # what lies beyond the low-pass's slope needs no notch
    reach = min(recording.sfreq / 2 - 1, 1.25 * contract.band_hz[1] + 2)
    freqs = harmonics(line, reach)
    return Notch(freqs_hz=freqs)(recording) if freqs else recording


def _without_outliers(recording: Recording) -> Recording:
    amplitude = robust_sd(recording.signal)
    keep = np.ones(len(amplitude), bool)
    for kind in np.unique(recording.sensors.kind):
        rows = recording.sensors.of_kind(SensorKind(kind))
        middle = float(np.median(amplitude[rows]))
        if len(rows) >= 3 and middle > 0:
            ratio = amplitude[rows] / middle
            keep[rows] = (ratio < _OUTLYING) & (ratio > 1 / _OUTLYING)
    if keep.all():
        return recording
    why = f"amplitude {_OUTLYING:g} times above or below the median channel of its kind"
    return _select(recording, keep, why, {"step": "drop_outlying"})

"""Mains frequency: 50 or 60 Hz, found in the spectrum."""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.signal import get_window

from neurofm.signals import Recording

CANDIDATES_HZ = (50.0, 60.0)
# Peak over neighbours, in power: a smooth spectrum is at 1, but a spectrum averaged over few
# stretches is not smooth, and noise alone reaches more.
_STANDS_OUT = 3.0
_STRETCH_S = 4.0
# so far above its neighbours is no chance, in however short a recording
_OBVIOUS = 30.0


def find_mains(recording: Recording) -> tuple[float | None, dict[str, float]]:
    """Find which mains frequency, if any, is in a recording.

    Parameters
    ----------
    recording : Recording
        Not filtered yet.

    Returns
    -------
    line_hz : float or None
        50, 60, or None if neither stands out.
    prominence : dict
        Candidate in hertz -> power of its peak over the median of its neighbourhood, in the
        upper quartile of channels.
    """
    sfreq = recording.sfreq
    start, stop = middle(recording.n_times, sfreq)
    signal = recording.signal[:, start:stop]
    freqs, power = _spectra(signal, sfreq, min(stop - start, int(_STRETCH_S * sfreq)))
    power = power[np.isfinite(power).all(axis=1)]
    if not len(power):
        return None, {}
    prominence = {}
    for line in CANDIDATES_HZ:
        if line + 1 >= sfreq / 2:
            continue
        distance = np.abs(freqs - line)
        peak, around = distance <= 0.6, (distance > 1.5) & (distance <= 6)
        if not peak.any() or not around.any():
            continue
        base = np.maximum(np.median(power[:, around], axis=1), np.finfo(float).tiny)
        prominence[f"{line:g}"] = round(
            float(np.percentile(power[:, peak].max(axis=1) / base, 75)), 2
        )
    if not prominence:
        return None, prominence
    best = max(prominence, key=lambda key: prominence[key])
    n_averaged = max(1.0, 2 * signal.shape[1] / (_STRETCH_S * sfreq) - 1)
    needed = _STANDS_OUT * (1 + 4 / n_averaged)
    return (float(best) if prominence[best] >= needed else None), prominence


def also_there(line_hz: float | None, prominence: dict[str, float]) -> str | None:
    """Return the candidate beside the one chosen that nobody overlooks, and no notch takes out."""
    others = (name for name in prominence if line_hz is not None and float(name) != line_hz)
    return next((name for name in others if prominence[name] >= _OBVIOUS), None)


def _spectra(signal: np.ndarray, sfreq: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies, and each row's mean power spectrum over half-overlapping stretches.

    In single precision and up to a factor, which makes it ten times as fast as
    `scipy.signal.welch`.
    """
    window = get_window("hann", n).astype(np.float32)
    power = np.empty((len(signal), n // 2 + 1))
    for i, row in enumerate(signal):
        level = (row - row[0]).astype(np.float32)
        pieces = np.lib.stride_tricks.sliding_window_view(level, n)[:: max(1, n - n // 2)]
        pieces = (pieces - pieces.mean(axis=1, keepdims=True)) * window
        spectrum = fft.rfft(pieces, axis=1)
        power[i] = (spectrum.real**2 + spectrum.imag**2).mean(axis=0, dtype=np.float64)
    return fft.rfftfreq(n, 1 / sfreq), power


def middle(n_times: int, sfreq: float) -> tuple[int, int]:
    """Return start and stop of the stretch that mains are looked for in.

    32 times 4 s tell as much as an hour.
    """
    most = int(128 * sfreq)
    start = max(0, (n_times - most) // 2)
    return start, min(start + most, n_times)


def harmonics(line_hz: float, below_hz: float) -> tuple[float, ...]:
    """Return the multiples of a mains frequency below a limit."""
    return tuple(line_hz * k for k in range(1, int(np.ceil(below_hz / line_hz)) + 1)
                 if line_hz * k < below_hz)  # fmt: skip

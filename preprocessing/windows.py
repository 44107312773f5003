"""What a recording does in every short window, measured block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from neurofm.preprocessing.stretches import Stretches
from neurofm.signals import Recording

# Windows measured at a time.
_WINDOWS = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Numbers by channel and window.

    Attributes
    ----------
    n_window : int
        Samples in a window; the last one may be shorter.
    peak : ndarray of float32, shape (C, W)
        Largest absolute sample, in SI units.
    step : ndarray of float32, shape (C, W)
        Largest absolute difference between samples that follow one another.
    step_sd : ndarray of float64, shape (C,)
        Robust standard deviation of such differences.
    muscle : ndarray of float32, shape (C, W) or None
        Logarithm to base 10 of the power in a band; None if it was not asked for.
    """

    n_window: int
    peak: np.ndarray
    step: np.ndarray
    step_sd: np.ndarray
    muscle: np.ndarray | None


def measure(recording: Recording, window_s: float, band_hz: tuple[float, float] | None) -> Measured:
    """Measure every window of a recording.

    Parameters
    ----------
    recording : Recording
        In SI units.
    window_s : float
        Length of a window; rounded to whole samples.
    band_hz : (float, float), optional
        The band whose power is measured.
    """
    n = max(2, round(window_s * recording.sfreq))
    n_windows = -(-recording.n_times // n)
    peak = np.zeros((len(recording.sensors), n_windows), np.float32)
    step, muscle = np.zeros_like(peak), np.zeros_like(peak)
    last: np.ndarray | None = None
    for start, block in recording.blocks(n * _WINDOWS):
        at, cuts = start // n, np.arange(0, block.shape[1], n)
        window = slice(at, at + len(cuts))
        peak[:, window] = np.maximum.reduceat(np.abs(block), cuts, axis=1)
        before = block[:, :1] if last is None else last
        change = np.abs(np.diff(block, axis=1, prepend=before))
        step[:, window] = np.maximum.reduceat(change, cuts, axis=1)
        last = block[:, -1:].copy()
        if band_hz is not None:
            muscle[:, window] = _power(block, n, recording.sfreq, band_hz)
    return Measured(
        n_window=n,
        peak=peak,
        step=step,
        step_sd=_step_sd(recording),
        muscle=None if band_hz is None else muscle,
    )


def _power(block: np.ndarray, n: int, sfreq: float, band_hz: tuple[float, float]) -> np.ndarray:
    """Return log10 power in a band, by window, shape (C, W)."""
    n_windows = -(-block.shape[1] // n)
    # a short last window is continued by its mirror image: zeros would make it quieter
    missing = n_windows * n - block.shape[1]
    if missing:
        block = np.concatenate([block, _mirrored(block, missing)], axis=1)
    freqs = np.fft.rfftfreq(n, 1 / sfreq)
    inside = (freqs >= band_hz[0]) & (freqs <= band_hz[1])
    windows = block.reshape(len(block), n_windows, n) * np.hanning(n).astype(np.float32)
    # in double precision, as the square of a field in tesla is not a float32
    spectrum = np.abs(scipy.fft.rfft(windows, axis=2)[..., inside]).astype(np.float64)
    return np.log10(np.maximum((spectrum**2).mean(axis=2), 1e-60))


def _mirrored(block: np.ndarray, n: int) -> np.ndarray:
    back = block[:, ::-1]
    return np.tile(back, (1, -(-n // back.shape[1])))[:, :n]


def _step_sd(recording: Recording) -> np.ndarray:
    rows = np.arange(len(recording.sensors))
    pieces = [np.diff(block, axis=1) for block in Stretches(recording).of(rows)]
    if not pieces:
        pieces = [np.diff(block, axis=1) for _, block in recording.blocks(recording.n_times)]
    low, high = np.percentile(np.concatenate(pieces, axis=1), [25, 75], axis=1)
    return np.asarray((high - low) / 1.349)

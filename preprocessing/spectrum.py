"""Spectra of a recording before and after, from a few stretches of it: what the report shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neurofm.sensors import SensorKind, Sensors
from neurofm.signals import Recording

# 16 s say what a spectrum looks like; more would cost more than filtering does
_STRETCHES = 8
_STRETCH_S = 2.0
_BANDS = 48
_LOWEST_HZ = 0.5


def spectra(
    read: Callable[[int, int], np.ndarray], n_times: int, sfreq: float, sensors: Sensors
) -> dict[str, dict[str, list[float]]]:
    """Estimate the power spectral density of each kind of sensor.

    Parameters
    ----------
    read : callable
        From first and last sample (exclusive) to an array (C, n) in SI units.
    n_times : int
        Samples in the recording.
    sfreq : float
        Sampling rate in hertz.
    sensors : Sensors
        The rows of what `read` returns.

    Returns
    -------
    dict
        Kind -> `hz`, the middles of bands that grow with frequency, and `low`, `median` and
        `high`, the density that 10, 50 and 90 % of the channels lie below, in SI units squared
        per hertz. Empty if the recording is shorter than a stretch of a quarter second.
    """
    length = min(n_times, round(_STRETCH_S * sfreq))
    if length < 0.25 * sfreq or length < 8:
        return {}
    window = np.hanning(length)
    power = np.zeros((len(sensors), length // 2 + 1))
    starts = np.unique(np.linspace(0, n_times - length, _STRETCHES).astype(int))
    for start in starts.tolist():
        block = np.array(read(start, start + length), np.float64)
        # before it is read to the end, a recording may have channels that hold no numbers
        block[~np.isfinite(block).all(axis=1)] = 0.0
        block -= block.mean(axis=1, keepdims=True)
        power += np.abs(np.fft.rfft(block * window, axis=1)) ** 2
    power *= 2 / (len(starts) * sfreq * np.sum(window**2))
    middle, density = _bands(np.fft.rfftfreq(length, 1 / sfreq), power)
    return {
        SensorKind(kind).label: _summary(middle, density[sensors.kind == kind])
        for kind in np.unique(sensors.kind)
    }


def spectra_of(recording: Recording) -> dict[str, dict[str, list[float]]]:
    """Estimate the power spectral density of each kind of sensor; see `spectra`."""
    return spectra(
        lambda start, stop: recording.signal[:, start:stop],
        recording.n_times,
        recording.sfreq,
        recording.sensors,
    )


def _bands(hz: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average over bands that are equally wide on a logarithmic axis, or a bin at least."""
    edges = np.geomspace(_LOWEST_HZ, hz[-1], _BANDS + 1)
    edges[-1] *= 1.001
    band = np.digitize(hz, edges) - 1
    used = [k for k in range(_BANDS) if (band == k).any()]
    middle = np.array([hz[band == k].mean() for k in used])
    return middle, np.stack([power[:, band == k].mean(axis=1) for k in used], axis=1)


def _summary(hz: np.ndarray, density: np.ndarray) -> dict[str, list[float]]:
    # damaged samples make no density at all
    density = np.where(np.isfinite(density), density, 0.0)
    low, median, high = np.quantile(density, [0.1, 0.5, 0.9], axis=0)
    values = {"hz": hz, "low": low, "median": median, "high": high}
    return {name: [float(f"{v:.3g}") for v in row] for name, row in values.items()}

"""Covariances of trials: filter the continuous recording, cut, shrink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from pyriemann.estimation import Covariances
from pyriemann.tangentspace import TangentSpace
from scipy import signal as dsp
from threadpoolctl import threadpool_limits

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, ProtocolError
from neurofm.report.progress import progress
from neurofm.sensors import Sensors
from neurofm.signals import Recording

ORDER = 4  # Butterworth, forwards and backwards


def one_thread() -> threadpool_limits:
    """Keep linear algebra to one thread: matrices this small are 15 times slower on two."""
    return threadpool_limits(1)


class CovarianceSource(Protocol):
    """What is asked of a cohort for covariances."""

    @property
    def contract(self) -> SignalContract:
        """What the recordings were made to be."""

    def sensors(self, recording_id: str) -> Sensors:
        """Return the channels of a recording."""

    def recording(self, recording_id: str) -> Recording:
        """Return a whole recording in SI units."""


def covariances(
    source: CovarianceSource,
    windows: pd.DataFrame,
    n_times: int,
    *,
    bands_hz: Sequence[tuple[float, float]],
    where: str,
) -> np.ndarray:
    """Estimate one covariance a window, by oracle-approximating shrinkage.

    Parameters
    ----------
    source : CovarianceSource
        Recordings.
    windows : DataFrame
        Columns trial_id, recording_id and start (sample).
    n_times : int
        Samples in a window.
    bands_hz : sequence of (float, float)
        Bands; their signals are stacked.
    where : str
        What the covariances are for, for messages.

    Returns
    -------
    ndarray of float64, shape (n_windows, n_bands * C, n_bands * C)
        Over the channels that all recordings share, in the order of the first.

    Raises
    ------
    ProtocolError
        If there is no shared channel, or a window runs beyond its recording.
    ConfigError
        If a band reaches outside what the store holds.
    """
    _check_bands(source.contract, bands_hz, where)
    groups = windows.reset_index(drop=True).groupby("recording_id", sort=True)
    names = shared_channels({str(r): source.sensors(str(r)).ch_names for r in groups.groups}, where)
    size = len(names) * len(bands_hz)
    found = np.empty((len(windows), size, size))
    unit: np.ndarray | None = None
    with one_thread(), progress("covariances", len(groups)) as advance:
        for recording_id, rows in groups:
            recording = source.recording(str(recording_id))
            stacked = _filtered(recording, names, bands_hz)
            if unit is None:  # one fixed factor for everybody keeps the numbers near 1
                unit = np.median(np.abs(stacked))
            epochs = _cut(stacked / unit, rows, n_times, where)
            found[rows.index] = Covariances(estimator="oas").transform(epochs)
            advance(1)
    return found


def shared_channels(channels: dict[str, tuple[str, ...]], where: str) -> list[str]:
    """Return the names that all recordings have, in the order of the first recording.

    Raises
    ------
    ProtocolError
        If there is none.
    """
    first, *_ = channels
    shared = [n for n in channels[first] if all(n in names for names in channels.values())]
    if not shared:
        apart = min(channels, key=lambda r: len(set(channels[r]) & set(channels[first])))
        raise ProtocolError(
            f"{where}: no channel is in every one of {len(channels)} recordings, of {first} "
            f"({', '.join(channels[first][:3])}, ...) and {apart} "
            f"({', '.join(channels[apart][:3])}, ...) for instance",
            hint="leave the model out of `models`, or restrict the task to one montage",
        )
    return shared


def recentre(found: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Whiten each group's covariances by their own Riemannian mean (no labels are used)."""
    out = np.empty_like(found)
    for group in np.unique(groups):
        rows = groups == group
        with one_thread():
            mean = TangentSpace(metric="riemann").fit(found[rows]).reference_
            values, vectors = np.linalg.eigh(mean)
        whitener = (vectors / np.sqrt(values)) @ vectors.T  # symmetric: no channel is rotated
        out[rows] = whitener @ found[rows] @ whitener
    return out


def _check_bands(
    contract: SignalContract, bands_hz: Sequence[tuple[float, float]], where: str
) -> None:
    for low, high in bands_hz:
        if high >= contract.sfreq / 2:
            raise ConfigError(
                f"{where}: band {low:g}-{high:g} Hz reaches the Nyquist frequency "
                f"{contract.sfreq / 2:g} Hz of the store",
                hint="lower the band's upper edge",
            )


def _filtered(
    recording: Recording, names: Sequence[str], bands_hz: Sequence[tuple[float, float]]
) -> np.ndarray:
    rows = [recording.sensors.ch_names.index(name) for name in names]
    raw = recording.signal[rows].astype(np.float64)
    bands = []
    for band in bands_hz:
        sos = dsp.butter(ORDER, band, btype="bandpass", output="sos", fs=recording.sfreq)
        bands.append(dsp.sosfiltfilt(sos, raw, axis=1))
    return np.concatenate(bands)


def _cut(signal: np.ndarray, rows: pd.DataFrame, n_times: int, where: str) -> np.ndarray:
    for trial_id, start in zip(rows["trial_id"], rows["start"], strict=True):
        if start < 0 or start + n_times > signal.shape[1]:
            raise ProtocolError(
                f"{where}: the window of trial {trial_id} runs beyond its recording",
                hint="change the baseline's `start_s` and `stop_s`",
            )
    return np.stack([signal[:, s : s + n_times] for s in rows["start"]])

"""Spherical splines: what a withheld electrode would read, by those around it."""

from __future__ import annotations

import numpy as np

from neurofm.sensors import SensorKind, Sensors

_FEWEST = 5  # electrodes to interpolate from; of fewer no sphere can be told


def spline_matrix(sensors: Sensors, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which channels spherical splines can stand in for, and how.

    Parameters
    ----------
    sensors : Sensors
        The channels.
    seen : ndarray of bool, shape (C,)
        Channels to interpolate from.

    Returns
    -------
    targets : ndarray of int, shape (n,)
        Electrodes that are not seen. None where fewer than five are, or places are unknown.
    matrix : ndarray, shape (n, C)
        Maps potentials of all channels, in one unit, to those of the targets. As
        `mne.Evoked.interpolate_bads` does it (Perrin et al. 1989).
    """
    usable = (sensors.kind == SensorKind.EEG) & sensors.located & ~sensors.bipolar
    targets, sources = np.flatnonzero(usable & ~seen), np.flatnonzero(usable & seen)
    if not len(targets) or len(sources) < _FEWEST:
        return np.empty(0, int), np.empty((0, len(sensors)))
    import mne

    chosen = np.concatenate((sources, targets))
    names = [sensors.ch_names[i] for i in chosen]
    info = mne.create_info(names, 1000.0, "eeg", verbose="ERROR")
    places = dict(zip(names, sensors.position[chosen].astype(float), strict=True))
    with mne.use_log_level("ERROR"):
        info.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
        # each electrode alone at one: what comes out are the columns of the map
        evoked = mne.EvokedArray(np.eye(len(chosen)), info)
        evoked.info["bads"] = names[len(sources) :]
        evoked.interpolate_bads(origin="auto")
    matrix = np.zeros((len(targets), len(sensors)))
    matrix[:, sources] = evoked.data[len(sources) :, : len(sources)]
    return targets, matrix

"""Interpolate bad channels from good ones, as MNE does, in the form of a matrix."""

from __future__ import annotations

from typing import Any, Literal

import mne
import numpy as np
from pydantic import Field

from neurofm.errors import SensorError
from neurofm.preprocessing.spatial import Spatial, SpatialStep
from neurofm.preprocessing.to_mne import info_of
from neurofm.sensors import MEG_KINDS, Knowledge, SensorKind, Sensors
from neurofm.signals import Recording

# Where MNE puts the centre of a head it knows nothing else of.
_ORIGIN_M = (0.0, 0.0, 0.04)
# Radius of a human head that electrodes lie on, and how far its centre may be from the usual.
_RADII_M = (0.06, 0.12)
_OFF_CENTRE_M = 0.04


class Interpolate(SpatialStep):
    """Replace channels by what their neighbours say is there.

    Scalp potentials are interpolated by spherical splines, fields by the minimum-norm mapping
    of MNE. Where nothing trustworthy can be said, the channel is dropped: inside the head,
    between two electrodes, without a position, or with too few good channels around it.

    Parameters
    ----------
    names : tuple of str
        The channels.
    most_share : float
        The largest share of a family's channels (EEG, MEG) that is interpolated; if more are
        bad, they are dropped.
    least_good : int
        How many good channels of its family a channel is interpolated from, at least.
    mode : "accurate" or "fast"
        How exactly MNE integrates over MEG coils.
    """

    name: Literal["interpolate"] = "interpolate"
    names: tuple[str, ...] = Field(min_length=1)
    most_share: float = Field(default=0.25, gt=0, lt=1)
    least_good: int = Field(default=8, ge=4)
    mode: Literal["accurate", "fast"] = "accurate"

    def operator(self, recording: Recording) -> Spatial:
        """Return what replaces, or drops, the channels.

        Raises
        ------
        SensorError
            If a name is not in the recording, or no channel would be left.
        """
        sensors = recording.sensors
        unknown = [name for name in self.names if name not in sensors.ch_names]
        if unknown:
            raise SensorError(
                f"{recording.recording_id}: cannot interpolate {', '.join(unknown)}: "
                "no such channel",
            )
        bad = np.isin(sensors.ch_names, self.names)
        matrix = np.eye(len(sensors))
        dropped: dict[str, str] = {}
        for rows in (_rows(sensors, meg=False), _rows(sensors, meg=True)):
            why = self._why_not(sensors, rows, bad)
            dropped |= {sensors.ch_names[i]: why[i] for i in why}
            able = np.array([i for i in rows if bad[i] and i not in why], int)
            if len(able):
                good = rows[~bad[rows]]
                good = good[sensors.located[good] & ~sensors.bipolar[good]]
                matrix[able] = 0.0
                matrix[np.ix_(able, good)] = self._weights(sensors, good, able)
        for i in np.flatnonzero(bad & ~np.isin(sensors.kind, (SensorKind.EEG, *MEG_KINDS))):
            dropped[sensors.ch_names[i]] = "inside the head nothing is interpolated"
        keep = np.array([name not in dropped for name in sensors.ch_names])
        if not keep.any():
            raise SensorError(
                f"{recording.recording_id}: every channel is bad, and none can be interpolated",
                hint="exclude the recording",
            )
        step: dict[str, Any] = {
            "step": "interpolate",
            "interpolated": [name for name in self.names if name not in dropped],
        }
        if dropped:
            step["dropped"] = dropped
        return Spatial(matrix[keep], sensors.select(np.flatnonzero(keep)), step)

    def _why_not(self, sensors: Sensors, rows: np.ndarray, bad: np.ndarray) -> dict[int, str]:
        """Return which bad rows cannot be interpolated, and why."""
        usable = sensors.located & ~sensors.bipolar
        n_bad, n_good = int(bad[rows].sum()), int((usable[rows] & ~bad[rows]).sum())
        why: dict[int, str] = {}
        for i in rows[bad[rows]]:
            if not sensors.located[i]:
                why[i] = "no position to interpolate it at"
            elif not usable[i]:
                why[i] = "between two electrodes nothing is interpolated"
            elif n_good < self.least_good:
                why[i] = f"{n_good} good channels with a position: too few to interpolate from"
            elif n_bad > self.most_share * len(rows):
                why[i] = f"{n_bad} of {len(rows)} channels bad: too many to interpolate"
        return why

    def _weights(self, sensors: Sensors, good: np.ndarray, bad: np.ndarray) -> np.ndarray:
        """Return the share of each good channel in each bad one, shape (bad, good)."""
        both = np.concatenate([good, bad])
        chosen = sensors.select(both)
        info = info_of(chosen, 100.0)
        info["bads"] = [chosen.ch_names[i] for i in range(len(good), len(both))]
        # interpolation is linear: of the identity it makes its matrix
        raw = mne.io.RawArray(np.eye(len(both)), info, verbose="error")
        raw.interpolate_bads(
            mode=self.mode,
            origin=head_origin(chosen),
            method={"eeg": "spline", "meg": "MNE"},
            verbose="error",
        )
        return raw.get_data()[len(good) :, : len(good)]


def head_origin(sensors: Sensors) -> tuple[float, float, float]:
    """Return the centre of the sphere that MNE's methods take the head for, in metres.

    Fitted to the electrodes where they lie on a sphere the size of a head, else 4 cm above the
    origin of the head frame; the origin itself for coils in the device frame.
    """
    if (sensors.known == Knowledge.DEVICE).any():
        return (0.0, 0.0, 0.0)
    scalp = sensors.position[(sensors.kind == SensorKind.EEG) & sensors.located].astype(float)
    if len(scalp) < 4:
        return _ORIGIN_M
    design = np.column_stack([2 * scalp, np.ones(len(scalp))])
    (x, y, z, rest), *_ = np.linalg.lstsq(design, (scalp**2).sum(axis=1), rcond=None)
    centre = np.array([x, y, z])
    radius = float(np.sqrt(max(rest + centre @ centre, 0.0)))
    off = float(np.linalg.norm(centre - np.array(_ORIGIN_M)))
    if _RADII_M[0] <= radius <= _RADII_M[1] and off <= _OFF_CENTRE_M:
        return (float(x), float(y), float(z))
    return _ORIGIN_M


def _rows(sensors: Sensors, *, meg: bool) -> np.ndarray:
    kinds = (MEG_KINDS - {SensorKind.REF_MEG}) if meg else {SensorKind.EEG}
    return np.flatnonzero(np.isin(sensors.kind, list(kinds)))

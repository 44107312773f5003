"""Recordings to MNE objects, for what is done by MNE or by libraries that speak its language."""

from __future__ import annotations

import mne
import numpy as np

from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Recording

_TYPES = {
    SensorKind.EEG: "eeg",
    SensorKind.SEEG: "seeg",
    SensorKind.ECOG: "ecog",
    SensorKind.DBS: "dbs",
    SensorKind.MAG: "mag",
    SensorKind.OPM: "mag",
    SensorKind.GRAD_AXIAL: "mag",  # in tesla, as MNE has them
    SensorKind.GRAD_PLANAR: "grad",
    SensorKind.REF_MEG: "ref_meg",
}
# One coil stands for its kind: which make it was is not known to `Sensors`. What MNE computes
# of it, fields at a distance of centimetres, differs by less than interpolation itself does.
_COILS = {
    SensorKind.MAG: 3024,  # FIFFV_COIL_VV_MAG_T3
    SensorKind.GRAD_PLANAR: 3012,  # FIFFV_COIL_VV_PLANAR_T1
    SensorKind.GRAD_AXIAL: 5001,  # FIFFV_COIL_CTF_GRAD
    SensorKind.OPM: 8002,  # FIFFV_COIL_QUSPIN_ZFOPM_MAG2
    SensorKind.REF_MEG: 5002,  # FIFFV_COIL_CTF_REF_MAG
}
_HEAD = 4  # FIFFV_COORD_HEAD
_SAME_SITE_M = 0.003
_CENTRE = np.array([0.0, 0.0, 0.04])


def info_of(sensors: Sensors, sfreq: float) -> mne.Info:
    """Return an MNE info with these channels, at their places in the head frame.

    Parameters
    ----------
    sensors : Sensors
        The channels. Positions in the device frame are handed on as if in the head's.
    sfreq : float
        Sampling rate in hertz.

    Returns
    -------
    mne.Info
        MEG coils are each of one typical make of their kind; channels without a position have
        NaN there.
    """
    types = [_TYPES[SensorKind(kind)] for kind in sensors.kind]
    info = mne.create_info(list(sensors.ch_names), sfreq, types, verbose="error")
    measured = sensors.known != Knowledge.ABSENT
    for i, ch in enumerate(info["chs"]):
        kind, position = SensorKind(sensors.kind[i]), sensors.position[i].astype(float)
        ch["coord_frame"] = _HEAD
        ch["loc"][:] = np.nan
        if not measured[i]:
            continue
        ch["loc"][:3] = position
        if kind in _COILS:
            ch["coil_type"] = _COILS[kind]
            ch["loc"][3:] = _axes(sensors, i).ravel()
        else:
            ch["loc"][3:6] = 0.0
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.eye(4))
    return info


def raw_of(recording: Recording, *, events: bool = True) -> mne.io.RawArray:
    """Return the recording as an MNE raw, in memory and in double precision.

    Parameters
    ----------
    recording : Recording
        In SI units.
    events : bool
        Hand its events on as annotations.
    """
    info = info_of(recording.sensors, recording.sfreq)
    raw = mne.io.RawArray(np.asarray(recording.signal, np.float64), info, verbose="error")
    if events and recording.events:
        onset, duration, description = zip(
            *((e.onset_s, e.duration_s, e.description) for e in recording.events), strict=True
        )
        raw.set_annotations(mne.Annotations(onset, duration, description), verbose="error")
    return raw


def _axes(sensors: Sensors, i: int) -> np.ndarray:
    """Return ex, ey and ez (the normal) of a coil, shape (3, 3)."""
    own = sensors.orientation[i].astype(float)
    if sensors.kind[i] == SensorKind.GRAD_PLANAR and sensors.oriented[i]:
        # a planar gradiometer's orientation is the direction of its difference
        ez = _across(_normal_at(sensors, i), own)
        return np.stack([own, np.cross(ez, own), ez])
    ez = own if sensors.oriented[i] else _outward(sensors.position[i])
    ex = _across(np.eye(3)[np.argmin(np.abs(ez))], ez)
    return np.stack([ex, np.cross(ez, ex), ez])


def _normal_at(sensors: Sensors, i: int) -> np.ndarray:
    """Return the normal of the site: of a coil that shares it, or outward."""
    near = np.linalg.norm(sensors.position - sensors.position[i], axis=1) < _SAME_SITE_M
    others = near & sensors.oriented & (sensors.kind != SensorKind.GRAD_PLANAR)
    if others.any():
        return sensors.orientation[np.flatnonzero(others)[0]].astype(float)
    outward = _outward(sensors.position[i])
    twins = near & sensors.oriented & (np.arange(len(sensors)) != i)
    for twin in np.flatnonzero(twins):
        normal = np.cross(sensors.orientation[i], sensors.orientation[twin]).astype(float)
        if (size := np.linalg.norm(normal)) > 0.5:
            return normal / size * (np.sign(normal @ outward) or 1.0)
    return outward


def _outward(position: np.ndarray) -> np.ndarray:
    away = position.astype(float) - _CENTRE
    return away / max(float(np.linalg.norm(away)), 1e-9)


def _across(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the unit vector nearest `vector` at a right angle to `axis`."""
    across = vector - (vector @ axis) * axis
    return across / max(float(np.linalg.norm(across)), 1e-9)

"""What one channel of an MNE info is: from its integer codes, never from parts of its name."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from neurofm.electrodes import Lead, contact_pair, template_positions
from neurofm.errors import SensorError
from neurofm.kinds import MEG_KINDS, Knowledge, SensorKind

# MNE's integer codes, as in its constants: of channels, of frames and of units
EEG_CH = 2
_EEG_CSD = 6
_HEAD = 4
_DEVICE = (0, 1)  # helmets whose frame is called unknown are in their own
_TALAIRACH = (2003, 2004, 2005, 2006)
# a sensor farther than this from the middle of the head, or of the helmet, measures no brain
_FARTHEST_M = 0.5
# no scalp lies this close to the middle of its head: metres were given in another unit
_SMALLEST_HEAD_M = 0.03
_UNITS = {107: "V", 112: "T", 201: "T/m"}


def kind_of(ch: dict[str, Any]) -> SensorKind | None:
    """Return the kind of an MNE channel from its integer codes; None if not a brain sensor.

    Parameters
    ----------
    ch : dict
        One entry of ``info["chs"]``.

    Raises
    ------
    SensorError
        If the channel is MEG and its coil code is none this version knows, or if it is EEG that
        was made into current source density.
    """
    from mne._fiff.constants import FIFF

    electric = {
        int(FIFF.FIFFV_EEG_CH): SensorKind.EEG,
        int(FIFF.FIFFV_SEEG_CH): SensorKind.SEEG,
        int(FIFF.FIFFV_ECOG_CH): SensorKind.ECOG,
        int(FIFF.FIFFV_DBS_CH): SensorKind.DBS,
    }
    code = int(ch["kind"])
    if code == EEG_CH and int(ch["coil_type"]) == _EEG_CSD:
        raise SensorError(
            f"EEG channel {ch['ch_name']!r} holds current source density, not potentials",
            hint="start from the recording before it was transformed, or drop the channel in the "
            "config's `channels`",
        )
    if code in electric:
        return electric[code]
    if code == int(FIFF.FIFFV_REF_MEG_CH):
        return SensorKind.REF_MEG
    if code != int(FIFF.FIFFV_MEG_CH):
        return None
    coil = int(ch["coil_type"]) & 0xFFFF  # the upper half holds the CTF compensation grade
    kind = _coil_kinds().get(coil)
    if kind is None:
        raise SensorError(
            f"MEG channel {ch['ch_name']!r} has coil type {coil}, which is not known",
            hint="exclude the channel in the config's `channels`, or report the device",
        )
    return kind


@cache
def _coil_kinds() -> dict[int, SensorKind]:
    from mne._fiff.constants import FIFF

    families = {
        SensorKind.GRAD_PLANAR: """VV_PLANAR_W VV_PLANAR_T1 VV_PLANAR_T2 VV_PLANAR_T3
            VV_PLANAR_T4 NM_122""",
        SensorKind.MAG: """VV_MAG_W VV_MAG_T1 VV_MAG_T2 VV_MAG_T3 VV_MAG_T4 MAGNES_MAG
            BABY_MAG POINT_MAGNETOMETER""",
        SensorKind.GRAD_AXIAL: """AXIAL_GRAD_5CM CTF_GRAD MAGNES_GRAD KIT_GRAD BABY_GRAD
            ARTEMIS123_GRAD KRISS_GRAD COMPUMEDICS_ADULT_GRAD COMPUMEDICS_PEDIATRIC_GRAD""",
        SensorKind.OPM: """QUSPIN_ZFOPM_MAG QUSPIN_ZFOPM_MAG2 FIELDLINE_OPM_MAG_GEN1
            KERNEL_OPM_MAG_GEN1""",
    }
    codes = {}
    for kind, names in families.items():
        for name in names.split():
            code = FIFF.get(f"FIFFV_COIL_{name}")
            if code is not None:
                codes[int(code)] = kind
    return codes


# name, kind, position, orientation, how the position is known, reference
Row = tuple[str, SensorKind, np.ndarray, np.ndarray, Knowledge, str | None]
_ZERO = np.zeros(3, np.float32)


def read_channel(
    ch: dict[str, Any], lead: Lead | None, to_head: np.ndarray | None, *, trusted: bool = True
) -> Row:
    """Read what a channel is and where it sits.

    Parameters
    ----------
    ch : dict
        One entry of ``info["chs"]``.
    lead : Lead or None
        What its name says, if it is EEG.
    to_head : ndarray, shape (4, 4), or None
        The device-to-head transform.
    trusted : bool
        False if the position in the file is none; see `shrunken`.

    Raises
    ------
    SensorError
        If it is not a brain sensor, or in another unit than its kind.
    """
    kind = kind_of(ch)
    if kind is None:
        raise SensorError(f"channel {ch['ch_name']!r} is not a brain sensor")
    _require_unit(ch, kind)
    loc = np.asarray(ch["loc"], float)
    measured = trusted and bool(np.abs(loc[:3]).max() > 1e-6) and on_head(loc[:3])
    name = ch["ch_name"].strip()
    if kind in MEG_KINDS:
        if not measured:
            return name, kind, _ZERO, _ZERO, Knowledge.ABSENT, None
        position, axis, known = _coil_in_head(ch, kind, loc, to_head)
        if not on_head(position):
            return name, kind, _ZERO, _ZERO, Knowledge.ABSENT, None
        return name, kind, position, axis, known, None
    reference = None
    if lead is not None:
        name, reference = lead.name, lead.reference
    else:
        name, reference = contact_pair(name) or (name, None)
    # MNE gives a derivation the place of its first electrode
    if measured and not (lead is not None and lead.bipolar):
        return name, kind, loc[:3].astype(np.float32), _ZERO, _frame(ch), reference
    place = None if lead is None else _template(lead)
    if place is not None:
        return name, kind, place, _ZERO, Knowledge.TEMPLATE, reference
    return name, kind, _ZERO, _ZERO, Knowledge.ABSENT, reference


def on_head(position: np.ndarray) -> bool:
    """Tell whether a position can be that of a sensor: files give millimetres as metres, too."""
    return bool(np.isfinite(position).all() and np.abs(position).max() < _FARTHEST_M)


def shrunken(places: np.ndarray) -> bool:
    """Tell whether electrodes of a scalp, shape (n, 3), lie too close together for any head."""
    reach = np.linalg.norm(places[np.isfinite(places).all(axis=1)], axis=1)
    return bool(len(reach) and 0 < reach.max() < _SMALLEST_HEAD_M)


def _frame(ch: dict[str, Any]) -> Knowledge:
    frame = int(ch["coord_frame"])
    if frame == _HEAD:
        return Knowledge.MEASURED
    return Knowledge.MNI if frame in _TALAIRACH else Knowledge.SCAN


def _template(lead: Lead) -> np.ndarray | None:
    """Return where an electrode, or the middle of a pair, lies on the template head."""
    ends = [lead.active] + ([lead.reference] if lead.bipolar and lead.reference else [])
    places = [template_positions().get(name) for name in ends]
    if any(place is None for place in places):
        return None
    return np.mean(np.array(places, float), axis=0).astype(np.float32)


def _require_unit(ch: dict[str, Any], kind: SensorKind) -> None:
    """Refuse a channel that is not in the unit of its kind: no factor makes T of T/m."""
    unit = int(ch["unit"])
    # what references are in differs by vendor, and they are never brain channels
    if kind is SensorKind.REF_MEG or unit not in _UNITS or _UNITS[unit] == kind.unit:
        return
    raise SensorError(
        f"channel {ch['ch_name']!r} is in {_UNITS[unit]}, but {kind.label} sensors are in "
        f"{kind.unit}",
        hint="correct the type or the unit in the file, or drop it in the config's `channels`",
    )


def _coil_in_head(
    ch: dict[str, Any], kind: SensorKind, loc: np.ndarray, to_head: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, Knowledge]:
    # the coil's own axes are in loc[3:6], loc[6:9] and loc[9:12]: a planar gradiometer takes its
    # difference along the first, every other coil looks along the last
    planar = kind is SensorKind.GRAD_PLANAR
    position, axis = loc[:3], loc[3:6] if planar else loc[9:12]
    norm = np.linalg.norm(axis)
    axis = axis / norm if np.isfinite(norm) and norm > 1e-6 else np.zeros(3)
    known = Knowledge.MEASURED
    frame = int(ch["coord_frame"])
    if frame in _DEVICE and to_head is not None:
        position = to_head[:3, :3] @ position + to_head[:3, 3]
        axis = to_head[:3, :3] @ axis
    elif frame != _HEAD:
        known = Knowledge.DEVICE if frame in _DEVICE else Knowledge.SCAN
    return position.astype(np.float32), axis.astype(np.float32), known

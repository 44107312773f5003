"""Sensors: what each channel is, where it sits in the head frame, and how that is known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofm.errors import SensorError

if TYPE_CHECKING:
    import mne


class SensorKind(IntEnum):
    """Kinds of brain sensor. The numbers are stored in checkpoints: append, never renumber."""

    EEG = 0
    MAG = 1
    GRAD_PLANAR = 2
    GRAD_AXIAL = 3
    OPM = 4
    SEEG = 5
    ECOG = 6
    DBS = 7
    REF_MEG = 8

    @property
    def label(self) -> str:
        """The name used in configs and tables, such as ``grad_planar``."""
        return self.name.lower()

    @property
    def unit(self) -> str:
        """The SI unit MNE holds the kind in. Axial gradiometers are in tesla, not T/m."""
        if self is SensorKind.GRAD_PLANAR:
            return "T/m"
        return "T" if self in MEG_KINDS else "V"


MEG_KINDS = frozenset(
    {
        SensorKind.MAG,
        SensorKind.GRAD_PLANAR,
        SensorKind.GRAD_AXIAL,
        SensorKind.OPM,
        SensorKind.REF_MEG,
    }
)


class Knowledge(IntEnum):
    """How a position is known. Anything but ABSENT holds metres in `Sensors.position`."""

    ABSENT = 0
    TEMPLATE = 1
    MEASURED = 2
    DEVICE = 3  # measured, but in the device frame: the file has no device-to-head transform


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensors:
    """The channels of one recording.

    Attributes
    ----------
    ch_names : tuple of str
        Channel names, normalised for EEG (see `normalise_name`).
    kind : ndarray of int8, shape (C,)
        `SensorKind` codes.
    position : ndarray of float32, shape (C, 3)
        Metres in the head frame; zeros where `known` is ABSENT, which is what tells.
    orientation : ndarray of float32, shape (C, 3)
        Unit coil normal in the head frame; zeros where `oriented` is False.
    known : ndarray of int8, shape (C,)
        `Knowledge` codes of the positions.
    oriented : ndarray of bool, shape (C,)
        True where `orientation` means something.
    region : tuple of (str or None)
        Atlas region of each contact, where the source gave one.
    """

    ch_names: tuple[str, ...]
    kind: np.ndarray
    position: np.ndarray
    orientation: np.ndarray
    known: np.ndarray
    oriented: np.ndarray
    region: tuple[str | None, ...]

    def __post_init__(self) -> None:
        n = len(self.ch_names)
        shapes = {
            "kind": (n,),
            "position": (n, 3),
            "orientation": (n, 3),
            "known": (n,),
            "oriented": (n,),
        }
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise SensorError(f"sensors: {name} has shape {found}, expected {shape}")
        if len(self.region) != n:
            raise SensorError(f"sensors: {len(self.region)} regions for {n} channels")
        if len(set(self.ch_names)) != n:
            twice = sorted({c for c in self.ch_names if self.ch_names.count(c) > 1})
            raise SensorError(
                f"channel names occur more than once: {', '.join(twice)}",
                hint="rename or exclude them in the config's `channels`",
            )
        if not (np.isfinite(self.position).all() and np.isfinite(self.orientation).all()):
            bad = ~(np.isfinite(self.position).all(1) & np.isfinite(self.orientation).all(1))
            names = ", ".join(np.asarray(self.ch_names)[bad][:5])
            raise SensorError(f"positions that are not finite numbers: {names}")

    def __len__(self) -> int:
        return len(self.ch_names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sensors) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Labels of the kinds present, in code order."""
        return tuple(SensorKind(k).label for k in np.unique(self.kind))

    @property
    def located(self) -> np.ndarray:
        """True where a position is known, shape (C,)."""
        return self.known != Knowledge.ABSENT

    def of_kind(self, kind: SensorKind) -> np.ndarray:
        """Return the indices of the channels of one kind, shape (n,)."""
        return np.flatnonzero(self.kind == kind)

    def select(self, index: Sequence[int] | np.ndarray) -> Sensors:
        """Return the sensors at `index`, in that order."""
        at = np.asarray(index, dtype=int)
        return Sensors(
            ch_names=tuple(self.ch_names[i] for i in at),
            kind=self.kind[at],
            position=self.position[at],
            orientation=self.orientation[at],
            known=self.known[at],
            oriented=self.oriented[at],
            region=tuple(self.region[i] for i in at),
        )

    def evolve(self, **changes: Any) -> Sensors:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, ready for JSON."""
        return {
            "ch_names": list(self.ch_names),
            "kind": [SensorKind(k).label for k in self.kind],
            "position": [[float(v) for v in row] for row in self.position],
            "orientation": [[float(v) for v in row] for row in self.orientation],
            "known": [Knowledge(k).name.lower() for k in self.known],
            "oriented": [bool(v) for v in self.oriented],
            "region": list(self.region),
        }

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Sensors:
        """Rebuild what `to_dict` wrote."""
        n = len(table["ch_names"])
        return cls(
            ch_names=tuple(table["ch_names"]),
            kind=np.array([SensorKind[k.upper()] for k in table["kind"]], np.int8),
            position=np.asarray(table["position"], np.float32).reshape(n, 3),
            orientation=np.asarray(table["orientation"], np.float32).reshape(n, 3),
            known=np.array([Knowledge[k.upper()] for k in table["known"]], np.int8),
            oriented=np.asarray(table["oriented"], bool),
            region=tuple(table["region"]),
        )


# ---------------------------------------------------------------------------------------
# Names

_OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
_PREFIX = re.compile(r"^(?:EEG|POL)[\s_:]+", re.IGNORECASE)
_REFERENCE = re.compile(r"[\s_-]+(?:REF|LE|AR|AVG?|CAR|A1|A2|A1A2|M1|M2)$", re.IGNORECASE)


def normalise_name(name: str) -> str:
    """Return the 10-05 spelling of an EEG channel name, or the name stripped.

    ``EEG Fp1-Ref``, ``FP1`` and ``Fp1.`` become ``Fp1``; ``T3`` becomes ``T7``. A name
    that is no 10-05 position, a bipolar derivation such as ``F3-C3`` among them, is only
    stripped of blanks, prefix and trailing dots.

    Parameters
    ----------
    name : str
        The channel's name as its file has it.

    Returns
    -------
    str
        The normalised name.
    """
    bare = _PREFIX.sub("", name.strip()).strip().rstrip(".").strip()
    known = _spellings()
    for candidate in (bare, _REFERENCE.sub("", bare)):
        upper = candidate.upper()
        upper = _OLD_NAMES.get(upper, upper)
        if upper in known:
            return known[upper]
    return bare if re.search(r"[^\W\d]", bare) else name.strip()


@cache
def _spellings() -> dict[str, str]:
    return {name.upper(): name for name in template_positions()}


@cache
def template_positions() -> dict[str, tuple[float, ...]]:
    """Positions of the 10-05 system in the head frame, in metres.

    The template is MNE's 10-05 montage on the Colin27 head, moved to the frame of its own
    fiducials as ``Raw.set_montage`` does.
    """
    import mne

    names = mne.channels.get_builtin_montages()  # MNE 1.13 renames the montage
    name = "colin27_1005" if "colin27_1005" in names else "standard_1005"
    montage = mne.channels.make_standard_montage(name)
    info = mne.create_info(montage.ch_names, 100.0, "eeg")
    info.set_montage(montage)
    return {ch["ch_name"]: tuple(float(v) for v in ch["loc"][:3]) for ch in info["chs"]}


# ---------------------------------------------------------------------------------------
# From MNE


def kind_of(ch: dict[str, Any]) -> SensorKind | None:
    """Return the kind of an MNE channel from its integer codes; None if not a brain sensor.

    Parameters
    ----------
    ch : dict
        One entry of ``info["chs"]``.

    Raises
    ------
    SensorError
        If the channel is MEG and its coil code is none this version knows.
    """
    from mne._fiff.constants import FIFF

    electric = {
        int(FIFF.FIFFV_EEG_CH): SensorKind.EEG,
        int(FIFF.FIFFV_SEEG_CH): SensorKind.SEEG,
        int(FIFF.FIFFV_ECOG_CH): SensorKind.ECOG,
        int(FIFF.FIFFV_DBS_CH): SensorKind.DBS,
    }
    code = int(ch["kind"])
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


def sensors_from_info(info: mne.Info, picks: Iterable[int] | None = None) -> Sensors:
    """Read kinds, positions and orientations of brain sensors from an MNE info.

    EEG names are normalised; EEG channels without a digitised position get the 10-05
    template's by name, marked as such. MEG positions and normals are moved to the head
    frame by the device-to-head transform where the file has one.

    Parameters
    ----------
    info : mne.Info
        The measurement info.
    picks : iterable of int, optional
        Channel indices. By default all brain sensors.

    Returns
    -------
    Sensors
        One entry per picked channel.

    Raises
    ------
    SensorError
        If a picked channel is not a brain sensor, or a coil code is not known.
    """
    chosen = list(picks) if picks is not None else brain_picks(info)
    rows = [_row(info["chs"][i], info["dev_head_t"]) for i in chosen]
    return Sensors(
        ch_names=tuple(r[0] for r in rows),
        kind=np.array([r[1] for r in rows], np.int8),
        position=np.array([r[2] for r in rows], np.float32).reshape(-1, 3),
        orientation=np.array([r[3] for r in rows], np.float32).reshape(-1, 3),
        known=np.array([r[4] for r in rows], np.int8),
        oriented=np.array([r[5] for r in rows], bool),
        region=(None,) * len(rows),
    )


def brain_picks(info: mne.Info) -> list[int]:
    """Return the indices of channels that are brain sensors, reference magnetometers included."""
    return [i for i, ch in enumerate(info["chs"]) if kind_of(ch) is not None]


_Row = tuple[str, SensorKind, np.ndarray, np.ndarray, Knowledge, bool]


def _row(ch: dict[str, Any], dev_head_t: dict[str, Any] | None) -> _Row:
    kind = kind_of(ch)
    if kind is None:
        raise SensorError(f"channel {ch['ch_name']!r} is not a brain sensor")
    name = normalise_name(ch["ch_name"]) if kind is SensorKind.EEG else ch["ch_name"].strip()
    zero = np.zeros(3, np.float32)
    loc = np.asarray(ch["loc"], float)
    measured = np.isfinite(loc[:3]).all() and np.abs(loc[:3]).max() > 1e-6
    if kind in MEG_KINDS:
        if not measured:
            return name, kind, zero, zero, Knowledge.ABSENT, False
        position, normal, known = _coil_in_head(ch, loc, dev_head_t)
        return name, kind, position, normal, known, bool(np.any(normal))
    if measured and int(ch["coord_frame"]) == 4:  # FIFFV_COORD_HEAD
        return name, kind, loc[:3].astype(np.float32), zero, Knowledge.MEASURED, False
    if kind is SensorKind.EEG and name in template_positions():
        position = np.array(template_positions()[name], np.float32)
        return name, kind, position, zero, Knowledge.TEMPLATE, False
    return name, kind, zero, zero, Knowledge.ABSENT, False


def _coil_in_head(
    ch: dict[str, Any], loc: np.ndarray, dev_head_t: dict[str, Any] | None
) -> tuple[np.ndarray, np.ndarray, Knowledge]:
    position, normal = loc[:3], loc[9:12]
    norm = np.linalg.norm(normal)
    has_normal = np.isfinite(norm) and norm > 1e-6
    normal = normal / norm if has_normal else np.zeros(3)
    known = Knowledge.MEASURED
    if int(ch["coord_frame"]) != 4:
        if dev_head_t is None:
            known = Knowledge.DEVICE
        else:
            trans = np.asarray(dev_head_t["trans"], float)
            position = trans[:3, :3] @ position + trans[:3, 3]
            normal = trans[:3, :3] @ normal
    return position.astype(np.float32), normal.astype(np.float32), known

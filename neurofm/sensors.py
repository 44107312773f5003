"""Sensors: what each channel is, where it sits in the head frame, and how that is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofm.electrodes import Lead, read_leads
from neurofm.errors import SensorError
from neurofm.kinds import MEG_KINDS, Knowledge, SensorKind
from neurofm.mne_channel import EEG_CH, kind_of, read_channel, shrunken

if TYPE_CHECKING:
    import mne

__all__ = [
    "MEG_KINDS", "Knowledge", "SensorKind", "Sensors", "brain_picks", "kind_of",
    "sensors_from_info",
]  # fmt: skip
# FIFFV_PROJ_ITEM_EEG_AVREF of MNE's constants
_EEG_AVREF = 10


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
        Unit coil normal in the head frame; for a planar gradiometer the direction along which it
        takes the difference, which is what tells the two of a site apart. Zeros where `oriented`
        is False.
    known : ndarray of int8, shape (C,)
        `Knowledge` codes of the positions.
    oriented : ndarray of bool, shape (C,)
        True where `orientation` means something.
    region : tuple of (str or None)
        Atlas region of each contact, where the source gave one.
    reference : tuple of (str or None)
        What each potential is taken against: an electrode, ``A1+A2``, ``average``,
        ``laplacian``; None where that is not known, and for MEG. Where it is an electrode that
        ends the channel's own name (``Fp1-F7``), the channel is a bipolar derivation, and its
        position midway between the two.
    """

    ch_names: tuple[str, ...]
    kind: np.ndarray
    position: np.ndarray
    orientation: np.ndarray
    known: np.ndarray
    oriented: np.ndarray
    region: tuple[str | None, ...]
    reference: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.ch_names)
        if not self.reference:
            object.__setattr__(self, "reference", (None,) * n)
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
        if len(self.reference) != n:
            raise SensorError(f"sensors: {len(self.reference)} references for {n} channels")
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

    @property
    def bipolar(self) -> np.ndarray:
        """True where a channel is the difference of two electrodes, shape (C,)."""
        pairs = zip(self.ch_names, self.reference, strict=True)
        return np.array([bool(ref) and name.endswith(f"-{ref}") for name, ref in pairs], bool)

    @cached_property
    def name_code(self) -> np.ndarray:
        """Codes of the channels' names (see `channel_name`), int64, shape (C,)."""
        pairs = zip(self.ch_names, self.kind, strict=True)
        return np.array([text_code(channel_name(n, SensorKind(k))) for n, k in pairs], np.int64)

    @cached_property
    def region_code(self) -> np.ndarray:
        """Codes of the channels' regions, int64, shape (C,); zero where none is known."""
        return np.array([text_code(region or "") for region in self.region], np.int64)

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
            reference=tuple(self.reference[i] for i in at),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Sensors]) -> Sensors:
        """Return the channels of all `parts`, in order."""
        return cls(
            ch_names=tuple(name for part in parts for name in part.ch_names),
            kind=np.concatenate([part.kind for part in parts]),
            position=np.concatenate([part.position for part in parts]),
            orientation=np.concatenate([part.orientation for part in parts]),
            known=np.concatenate([part.known for part in parts]),
            oriented=np.concatenate([part.oriented for part in parts]),
            region=tuple(region for part in parts for region in part.region),
            reference=tuple(reference for part in parts for reference in part.reference),
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
            "reference": list(self.reference),
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
            # stores of before references were recorded
            reference=tuple(table.get("reference", ())),
        )


@cache
def text_code(text: str) -> int:
    """Return a number for a name, the same everywhere; zero for no name."""
    if not text:
        return 0
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # fits a signed integer


def channel_name(name: str, kind: SensorKind) -> str:
    """Return a channel's name as tables of names have it.

    That of an EEG electrode as it is; others with their kind before it, ``seeg:C3``, since a
    contact of a shaft is no electrode of the scalp even where it is called the same.
    """
    return name if kind is SensorKind.EEG else f"{kind.label}:{name}"


def sensors_from_info(info: mne.Info, picks: Iterable[int] | None = None) -> Sensors:
    """Read kinds, positions, orientations and references of brain sensors from an MNE info.

    EEG names are normalised; EEG channels without a digitised position get the 10-05
    template's by name, marked as such. A bipolar derivation gets the point midway between its
    electrodes, and keeps the second one as its reference. MEG positions and orientations are
    moved to the head frame by the device-to-head transform where the file has one.

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
        If a picked channel is not a brain sensor, is in another unit than its kind, or a coil
        code is not known.
    """
    chosen = list(picks) if picks is not None else brain_picks(info)
    leads = _leads(info)
    to_head = _device_to_head(info)
    tiny = scalp_shrunken(info)
    rows = [
        read_channel(info["chs"][i], leads.get(i), to_head, trusted=not (tiny and i in leads))
        for i in chosen
    ]
    average = _average_reference(info)
    return Sensors(
        ch_names=tuple(r[0] for r in rows),
        kind=np.array([r[1] for r in rows], np.int8),
        position=np.array([r[2] for r in rows], np.float32).reshape(-1, 3),
        orientation=np.array([r[3] for r in rows], np.float32).reshape(-1, 3),
        known=np.array([r[4] for r in rows], np.int8),
        oriented=np.array([np.any(r[3]) for r in rows], bool),
        region=(None,) * len(rows),
        reference=tuple("average" if average and r[1] is SensorKind.EEG else r[5] for r in rows),
    )


def brain_picks(info: mne.Info) -> list[int]:
    """Return the indices of channels that are brain sensors, reference magnetometers included."""
    return [i for i, ch in enumerate(info["chs"]) if kind_of(ch) is not None]


def scalp_shrunken(info: mne.Info) -> bool:
    """Tell whether the positions of a recording's EEG channels are too close together."""
    places = [ch["loc"][:3] for ch in info["chs"] if int(ch["kind"]) == EEG_CH]
    return shrunken(np.array(places, float).reshape(-1, 3))


def _leads(info: mne.Info) -> dict[int, Lead]:
    """Read the names of all EEG channels together, whichever are picked."""
    eeg = [i for i, ch in enumerate(info["chs"]) if int(ch["kind"]) == EEG_CH]
    return dict(zip(eeg, read_leads([info["chs"][i]["ch_name"] for i in eeg]), strict=True))


def _device_to_head(info: mne.Info) -> np.ndarray | None:
    """Return the transform, shape (4, 4), or None where nobody has measured it."""
    if info["dev_head_t"] is None:
        return None
    transform = np.asarray(info["dev_head_t"]["trans"], float)
    # readers put the identity where the head was not digitised
    return None if not info["dig"] and np.array_equal(transform, np.eye(4)) else transform


def _average_reference(info: mne.Info) -> bool:
    """Tell whether an average reference has been applied as a projection."""
    return any(p["active"] and int(p["kind"]) == _EEG_AVREF for p in info["projs"])

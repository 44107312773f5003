"""Electrode names: the 10-05 system, derivations between two electrodes, contacts of a shaft."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from neurofm.errors import unknown_name

_OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
_PREFIX = re.compile(r"^(?:EEG|POL)[\s_:]+", re.IGNORECASE)
# both ears or mastoids, as sleep laboratories write them: ``(M1+M2)/2``, ``LER``, ``CLE``
_BOTH = r"\(?[AM]1\+?[AM]2\)?(?:/2)?|LE|LER|CLE|LINKED[\s_]?(?:EARS?|MASTOIDS?)"
_REFERENCE = re.compile(
    r"^(?P<active>.*?)(?:[\s_-]+|\s*[:/]\s*)"
    rf"(?:(?P<both>{_BOTH})|(?P<label>REF|AR|AVG?|CAR|A1|A2|M1|M2))$",
    re.IGNORECASE,
)
# what a suffix says of the reference; `Ref` says that there is one, and nothing else
_REFERENCES = {
    "REF": None, "AR": "average", "AV": "average", "AVG": "average", "CAR": "average",
    "A1": "A1", "A2": "A2", "M1": "M1", "M2": "M2",
}  # fmt: skip
_EARS = ("A1", "A2", "M1", "M2")
_PAIR = re.compile(r"^(?P<active>[^\s:/–-]+)\s*[:/–-]\s*(?P<other>[^\s:/–-]+)$")
# digits inside a shaft's name are its own (``2LA3``), unless a dash follows (``A1-A2``)
_CONTACT = re.compile(r"^(?P<shaft>(?!.*\d\s*[–-])(?=.*[^\W\d_]).*\D)(?P<number>\d+)$")
# so many pairs with the same second electrode are a montage with that reference
_COMMON = 3
# Inputs of an amplifier, or contacts of shafts, are called A1 to H32: a few of these labels are
# names of the 10-05 system too (A1, C3, F4), but never many of the others (A3, B1, H7).
_INPUT = re.compile(r"^[A-H]\d{1,2}$")
_MANY_INPUTS = 4


@dataclass(frozen=True, kw_only=True)
class Lead:
    """What an EEG channel's name says.

    Attributes
    ----------
    name : str
        The channel's normalised name.
    active : str
        Its electrode; the first of the two of a bipolar derivation. Empty if it only looks like
        one.
    reference : str or None
        The other side: an electrode, ``average``, ``A1+A2``; None where the name does not tell.
    bipolar : bool
        True for a derivation between two electrodes, which lies midway between them.
    """

    name: str
    active: str
    reference: str | None = None
    bipolar: bool = False


def normalise_name(name: str) -> str:
    """Return the 10-05 spelling of an EEG channel name, or the name stripped.

    ``EEG Fp1-Ref``, ``FP1`` and ``Fp1.`` become ``Fp1``; ``T3`` becomes ``T7``; a bipolar
    derivation such as ``EEG FP1-F7`` keeps both electrodes: ``Fp1-F7``. A name that is no
    10-05 position is only stripped of blanks, prefix and trailing dots.

    Parameters
    ----------
    name : str
        The channel's name as its file has it.

    Returns
    -------
    str
        The normalised name.
    """
    return _lead(name).name


def read_leads(names: Sequence[str]) -> list[Lead]:
    """Read the names of all EEG channels of a recording together.

    ``Fp1-CPz`` by itself is a bipolar derivation. Where three channels or more are pairs, and all
    have the same second electrode, that is the reference of the recording: the channel is ``Fp1``.
    ``A1`` is an ear, but not beside ``A3`` to ``A16``, which are inputs of an amplifier.

    Parameters
    ----------
    names : sequence of str
        As the file has them.

    Returns
    -------
    list of Lead
        One for each name.
    """
    leads = [_lead(name) for name in names]
    inputs = {name.strip() for name in names if _INPUT.match(name.strip())}
    if sum(ten_twenty(name) is None for name in inputs) >= _MANY_INPUTS:
        leads = [
            Lead(name=name.strip(), active="") if name.strip() in inputs else lead
            for name, lead in zip(names, leads, strict=True)
        ]
    pairs = [lead for lead in leads if lead.bipolar]
    if len({p.active for p in pairs}) < _COMMON or len({p.reference for p in pairs}) > 1:
        return leads
    taken = {lead.name for lead in leads if not lead.bipolar}
    if taken & {p.active for p in pairs}:
        return leads
    return [
        Lead(name=lead.active, active=lead.active, reference=lead.reference)
        if lead.bipolar
        else lead
        for lead in leads
    ]


def contact_of(name: str) -> tuple[str, int] | None:
    """Split the name of an intracranial contact into its shaft and its number on it.

    Parameters
    ----------
    name : str
        Such as ``L'1``, ``LA12``, ``POL LAH-3`` or ``G 64``.

    Returns
    -------
    (str, int) or None
        The shaft and the number; None if the name has no such parts.
    """
    bare = re.sub(r"[\s_-]*(?:REF)?$", "", _PREFIX.sub("", name.strip()), flags=re.IGNORECASE)
    match = _CONTACT.match(bare)
    if match is None:
        return None
    shaft = match["shaft"].rstrip(" _-")
    return (shaft, int(match["number"])) if shaft else None


def contact_pair(name: str) -> tuple[str, str] | None:
    """Read the name of a difference between two intracranial contacts.

    Parameters
    ----------
    name : str
        Such as ``LA1-LA2`` or ``POL L'3 - L'4``.

    Returns
    -------
    (str, str) or None
        The derivation's name, ``LA1-LA2``, and its second contact; None if it is no derivation.
    """
    match = _PAIR.match(_PREFIX.sub("", name.strip()))
    if match is None or not (contact_of(match["active"]) and contact_of(match["other"])):
        return None
    return f"{match['active']}-{match['other']}", match["other"]


def ten_twenty(name: str) -> str | None:
    """Return the 10-05 spelling of an electrode's name, old names included, or None."""
    upper = name.strip().upper()
    return _spellings().get(_OLD_NAMES.get(upper, upper))


def _lead(name: str) -> Lead:
    bare = _PREFIX.sub("", name.strip()).strip().rstrip(".").strip()
    if known := ten_twenty(bare):
        return Lead(name=known, active=known)
    match = _REFERENCE.match(bare)
    known = ten_twenty(match["active"]) if match else None
    if match and known:
        if match["both"]:
            both = "M1+M2" if "M" in match["both"].upper() else "A1+A2"
            return Lead(name=known, active=known, reference=both)
        # ear against ear is a derivation, not an electrode with a reference
        if not (known in _EARS and match["label"].upper() in _EARS):
            return Lead(name=known, active=known, reference=_REFERENCES[match["label"].upper()])
    if match := _PAIR.match(bare):
        active, other = ten_twenty(match["active"]), ten_twenty(match["other"])
        if active and other:
            return Lead(name=f"{active}-{other}", active=active, reference=other, bipolar=True)
    plain = bare if re.search(r"[^\W\d]", bare) else name.strip()
    return Lead(name=plain, active=plain)


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
    return montage_positions("colin27_1005" if "colin27_1005" in names else "standard_1005")


@cache
def montage_positions(name: str) -> dict[str, tuple[float, ...]]:
    """Positions of one of MNE's montages in the frame of its own fiducials, in metres.

    Parameters
    ----------
    name : str
        Such as ``biosemi128`` or ``GSN-HydroCel-256``.

    Returns
    -------
    dict
        Electrode -> position in the head frame.

    Raises
    ------
    ConfigError
        If MNE has no such montage.
    """
    import mne

    known = mne.channels.get_builtin_montages()
    if name not in known:
        raise unknown_name("montage", name, known)
    montage = mne.channels.make_standard_montage(name)
    info = mne.create_info(montage.ch_names, 100.0, "eeg")
    info.set_montage(montage)
    return {ch["ch_name"]: tuple(float(v) for v in ch["loc"][:3]) for ch in info["chs"]}

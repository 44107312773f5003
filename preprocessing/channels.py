"""Which channels are brain sensors, after the types a file claims have been repaired."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import mne

from neurofm.errors import SensorError
from neurofm.preprocessing.naming import matches

_EEG = 2  # FIFFV_EEG_CH
ChannelType = Literal["eeg", "seeg", "ecog", "dbs", "stim", "drop"]

# Readers of formats without channel types call everything EEG. Whole words only: `DC` must not
# take `DC'1` of a depth electrode with it, nor `EMG` any name that happens to contain it.
_NOT_BRAIN = re.compile(
    r"(?:^|[\s_:.+-])"
    r"(?:[EK][CK]G|[HVLR]?EOG|EMG|DC|STI|STATUS|STIM|TRIG(?:GER)?|RESP(?:IRATION)?|PHOTIC|"
    r"SPO2|PLETH|PULSE|GSR|EDA|TEMP|MARKER|EVENTS?|VNS|IBI|BURSTS|SUPPR)"
    r"(?:[LRHV]|\s*\d+)?(?=$|[\s_:.+-])",
    re.IGNORECASE,
)
# The corners of the eyes, as sleep laboratories and epilepsy units call them; `LOC1` is a contact.
_EYES = re.compile(
    r"^(?:EEG[\s_]+)?(?:[LR]OC(?:\s*[-:/]\s*(?:[AM][12]|REF|LE|AR|[LR]OC|Fpz?))?"
    r"|E[12]\s*[-:/]\s*[AM][12])$",
    re.IGNORECASE,
)
# a placeholder in the file: no letter and no digit, but for the number a reader gave it
_NOTHING = re.compile(r"^[\W_]*(?:-\d+)?$")


def looks_not_brain(name: str) -> bool:
    """Tell whether a channel's name says, as a whole word, that it is no brain sensor."""
    name = name.strip()
    return any(pattern.search(name) is not None for pattern in (_NOT_BRAIN, _EYES, _NOTHING))


def rename_channels(raw: mne.io.BaseRaw, wanted: Mapping[str, str], where: str) -> None:
    """Give channels the names that a source gives them, in place.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        The recording.
    wanted : mapping of str to str
        Name in the file, blanks around it aside -> name.
    where : str
        The file, for the message.

    Raises
    ------
    SensorError
        If the file has no such channel, or two would have one name.
    """
    names = {name.strip(): name for name in raw.ch_names}
    if unknown := [name for name in wanted if name not in names]:
        raise SensorError(
            f"{where}: the config's `rename` names {', '.join(map(repr, unknown[:5]))}, which "
            f"is not in the file; found {', '.join(list(names)[:8])}",
            hint="correct the name, or make a source of its own of the files that have it",
        )
    after = [wanted.get(name.strip(), name.strip()) for name in raw.ch_names]
    if twice := sorted({name for name in wanted.values() if after.count(name) > 1}):
        raise SensorError(
            f"{where}: the config's `rename` makes channels of one name: {', '.join(twice)}",
            hint="give each channel a name of its own",
        )
    raw.rename_channels({names[old]: new for old, new in wanted.items()}, verbose="error")


def repair_types(
    info: mne.Info, wanted: Mapping[str, ChannelType], where: str
) -> tuple[mne.Info, dict[str, str]]:
    """Return an info with repaired channel types, and the channels that are no brain sensors.

    Parameters
    ----------
    info : mne.Info
        The measurement info; not changed.
    wanted : mapping of glob to type
        The config's `channels`; the first glob that matches a name decides.
    where : str
        The file, for the message.

    Returns
    -------
    info : mne.Info
        A copy with the types that `wanted` asks for.
    dropped : dict
        Why each dropped channel is dropped. Channels that were never typed as brain sensors
        are not in it.

    Raises
    ------
    SensorError
        If a glob of `wanted` without wildcards matches no channel.
    """
    _require_known(info, wanted, where)
    dropped: dict[str, str] = {}
    types: dict[str, str] = {}
    for ch in info["chs"]:
        name = ch["ch_name"]
        rule = next((t for g, t in wanted.items() if matches(name.strip(), (g,), path=False)), None)
        if rule == "drop":
            dropped[name] = "dropped by the config"
        elif rule is not None:
            types[name] = rule
        elif int(ch["kind"]) == _EEG and looks_not_brain(name):
            dropped[name] = "typed eeg, but its name says it is not"
    repaired = info.copy()
    if types:
        repaired.set_channel_types(types, on_unit_change="ignore", verbose="error")
    return repaired, dropped


def _require_known(info: mne.Info, wanted: Mapping[str, ChannelType], where: str) -> None:
    names = [name.strip() for name in info["ch_names"]]
    for glob in wanted:
        if not any(matches(name, (glob,), path=False) for name in names) and not (
            "*" in glob or "?" in glob
        ):
            raise SensorError(
                f"{where}: the config's `channels` names {glob!r}, which is not in the file; "
                f"found {', '.join(names[:8])}{', …' if len(names) > 8 else ''}",
                hint="correct the name, or use a wildcard where not every file has the channel",
            )

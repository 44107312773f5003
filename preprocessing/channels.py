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
    r"SPO2|PLETH|PULSE|GSR|EDA|TEMP|MARKER|EVENTS?)"
    r"(?:[LRHV]|\s*\d+)?(?=$|[\s_:.+-])",
    re.IGNORECASE,
)


def looks_not_brain(name: str) -> bool:
    """Tell whether a channel's name says, as a whole word, that it is no brain sensor."""
    return _NOT_BRAIN.search(name.strip()) is not None


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

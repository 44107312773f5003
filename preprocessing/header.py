"""Which channels of an MNE recording are brain sensors, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mne
import numpy as np

from neurofm.electrodes import normalise_name
from neurofm.errors import SensorError, SignalError
from neurofm.mne_channel import on_head
from neurofm.preprocessing.magic import Facts
from neurofm.sensors import (
    MEG_KINDS,
    Knowledge,
    SensorKind,
    Sensors,
    kind_of,
    scalp_shrunken,
    sensors_from_info,
)

# what a file beside the recording calls the frame of its positions
_FRAMES = {"head": Knowledge.MEASURED, "mni": Knowledge.MNI, "scan": Knowledge.SCAN}
_LANDMARK = 1  # FIFFV_POINT_CARDINAL
_OTHER_FRAMES = {
    Knowledge.DEVICE: "positions are in the device frame: the file has no device-to-head transform",
    Knowledge.MNI: "positions are in MNI space",
    Knowledge.SCAN: "positions are in a frame of which no transform to the head is known",
}


def label_of(name: str, facts: Facts) -> str:
    """Undo the running number a reader gave to a label that occurs more than once."""
    label, dash, number = name.rpartition("-")
    return label if dash and number.isdigit() and label in facts.duplicates else name.strip()


def brain_channels(info: mne.Info, dropped: dict[str, str], where: str) -> list[int]:
    """Return the indices of brain sensors that are not dropped.

    Raises
    ------
    SignalError
        If there is none.
    """
    keep = [i for i, ch in enumerate(info["chs"]) if ch["ch_name"] not in dropped]
    with _naming(where):
        among = [i for i in keep if kind_of(info["chs"][i]) is not None]
    if not among:
        raise SignalError(
            f"{where}: no usable channel: none of {len(info['ch_names'])} is a brain sensor"
            + (f" ({listed(dropped)})" if dropped else ""),
            hint="repair the types in the config's `channels`, for example {'LFP*': dbs}",
        )
    return among


def describe(info: mne.Info, picks: list[int], facts: Facts, where: str) -> Sensors:
    """Read the sensors of a recording from its header and the files beside it.

    Parameters
    ----------
    info : mne.Info
        With repaired channel types.
    picks : list of int
        The brain sensors.
    facts : Facts
        What else was found: labels that occur twice, regions, frame and reference.
    where : str
        The file, for messages.

    Returns
    -------
    Sensors
        One entry per pick.
    """
    names = [info["ch_names"][i] for i in picks]
    labels = [label_of(name, facts) for name in names]
    if facts.duplicates:
        info = info.copy()
        with info._unlock():
            for i, label in zip(picks, labels, strict=True):
                info["chs"][i]["ch_name"] = label
    with _naming(where, _said_twice(names, labels)):
        sensors = sensors_from_info(info, picks)
    facts.notes += _off_head_notes(info, picks, sensors)
    electric = [kind not in MEG_KINDS for kind in sensors.kind]
    sensors = _on_template(sensors, labels, facts)
    known = sensors.known.copy()
    measured = electric & (known == Knowledge.MEASURED)
    if facts.frame:
        known[measured] = _FRAMES[facts.frame]
    elif not any(int(point["kind"]) == _LANDMARK for point in info["dig"] or ()):
        # without landmarks MNE calls any frame the head's, also a template's or a scan's
        known[measured & (sensors.kind != SensorKind.EEG)] = Knowledge.SCAN
    return sensors.evolve(
        known=known,
        region=tuple(facts.regions.get(label) for label in labels),
        reference=tuple(
            of or (facts.reference or None if potential else None)
            for of, potential in zip(sensors.reference, electric, strict=True)
        ),
    )


def _off_head_notes(info: mne.Info, picks: list[int], sensors: Sensors) -> list[str]:
    """Name the channels whose position is on no head, and say what is used instead."""
    tiny = scalp_shrunken(info)
    far = [
        row
        for row, i in enumerate(picks)
        if not on_head(info["chs"][i]["loc"][:3])
        or (tiny and sensors.kind[row] == SensorKind.EEG and np.any(info["chs"][i]["loc"][:3]))
    ]
    # what no file gives a position of has not-a-number for one
    far = [row for row in far if np.isfinite(info["chs"][picks[row]]["loc"][:3]).all()]
    if not far:
        return []
    first = info["chs"][picks[far[0]]]
    distance = float(np.linalg.norm(first["loc"][:3].astype(float)))
    names = ", ".join(sensors.ch_names[row] for row in far[:5])
    more = f" and {len(far) - 5} more" if len(far) > 5 else ""
    template = (sensors.known[far] == Knowledge.TEMPLATE).any()
    return [
        f"positions in the file that are on no head, not used: {names}{more}; {first['ch_name']} "
        f"is {distance:.3g} m from the middle" + (", the template's are used" if template else "")
    ]


def _on_template(sensors: Sensors, labels: list[str], facts: Facts) -> Sensors:
    """Put scalp electrodes that nobody has measured where the source's montage has them."""
    position, known = sensors.position.copy(), sensors.known.copy()
    for i, names in enumerate(zip(labels, sensors.ch_names, strict=True)):
        place = next((facts.template[name] for name in names if name in facts.template), None)
        measured = known[i] not in (Knowledge.ABSENT, Knowledge.TEMPLATE)
        if place is not None and sensors.kind[i] == SensorKind.EEG and not measured:
            position[i], known[i] = place, Knowledge.TEMPLATE
    return sensors.evolve(position=position, known=known)


def _said_twice(names: list[str], labels: list[str]) -> str | None:
    """Return what to do about names of which several mean one electrode; None if there is none."""
    alike: dict[str, list[str]] = {}
    for name, label in zip(names, labels, strict=True):
        alike.setdefault(normalise_name(label), []).append(name.strip())
    twins = [name for group in alike.values() for name in group[1:]]
    settings = ", ".join(f"{name!r}: drop" for name in twins[:4])
    return f"`channels: {{{settings}}}` in the source, or `rename` them" if twins else None


@contextmanager
def _naming(where: str, twins: str | None = None) -> Iterator[None]:
    """Say which file an error about a sensor is about, and what to do about `twins`."""
    try:
        yield
    except SensorError as error:
        hint = twins if error.problem.startswith("channel names") else None
        raise SensorError(f"{where}: {error.problem}", hint=hint or error.hint) from None


def position_notes(sensors: Sensors, allow_unlocated: bool, where: str) -> list[str]:
    """Say what is not known of where sensors are.

    Raises
    ------
    SensorError
        If nothing is, and that is not allowed.
    """
    located = sensors.located
    if not located.any() and not allow_unlocated:
        raise SensorError(
            f"{where}: no channel has a position: none is digitised, and none of "
            f"{', '.join(sensors.ch_names[:6])}, … is a name of the 10-05 system",
            hint="add positions to the files, `rename` the channels, or accept recordings "
            "without any by `allow_unlocated: true` in the source",
        )
    notes = []
    if not located.all():
        names = [n for n, known in zip(sensors.ch_names, located, strict=True) if not known]
        notes.append(f"{len(names)} channels without a position: {', '.join(names[:10])}")
    for knowledge, said in _OTHER_FRAMES.items():
        if (sensors.known == knowledge).any():
            notes.append(said)
    return notes


def listed(dropped: Mapping[str, Any], most: int = 6) -> str:
    """Return the first of what was dropped, with the reasons, in one line."""
    items = [f"{name}: {why}" for name, why in list(dropped.items())[:most]]
    more = len(dropped) - most
    return "; ".join(items) + (f"; and {more} more" if more > 0 else "")

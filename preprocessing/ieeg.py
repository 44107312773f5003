"""Shafts, strips and grids: which intracranial contacts are neighbours, and differences of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from neurofm.electrodes import contact_of
from neurofm.sensors import Knowledge, SensorKind, Sensors

# No shaft or strip is longer; where contacts have no positions, more of them are a grid, in which
# the numbers do not tell who is beside whom.
_LONGEST_SHAFT = 18
# Contacts further apart than this many times the usual distance are not neighbours: a number is
# missing, a row of a grid ends, or the shaft is a spliced one.
_REACH = 1.6
# on a grid a diagonal is 1.41 times the distance between neighbours
_GRID_REACH = 1.25


@dataclass(frozen=True)
class Derived:
    """Channels made of contacts.

    Attributes
    ----------
    rows : list of ndarray, each of shape (C,)
        Weights of the contacts in each channel that is made.
    sensors : Sensors
        The channels that are made.
    dropped : dict
        Contact of which nothing is made -> why.
    """

    rows: list[np.ndarray]
    sensors: Sensors
    dropped: dict[str, str] = field(default_factory=dict)


def bipolar(sensors: Sensors, kind: SensorKind) -> Derived:
    """Take differences between contacts that follow one another on a shaft.

    Parameters
    ----------
    sensors : Sensors
        All channels of a recording.
    kind : SensorKind
        The kind that is made into differences.

    Returns
    -------
    Derived
        ``LA1-LA2``, ``LA2-LA3``, …, each midway between its contacts and with the second one as
        its reference. What is a difference already stays.
    """
    index: list[tuple[int, int | None]] = []
    dropped: dict[str, str] = {}
    nexts = dict(_consecutive(sensors, kind))
    paired = set(nexts) | set(nexts.values())
    for i in sensors.of_kind(kind):
        if sensors.bipolar[i]:
            index.append((i, None))
        elif i in nexts:
            index.append((i, nexts[i]))
        elif i not in paired:
            dropped[sensors.ch_names[i]] = _why_alone(sensors, i)
    rows, chosen = [], sensors.select([i for i, _ in index])
    position, known = chosen.position.copy(), chosen.known.copy()
    names, region = list(chosen.ch_names), list(chosen.region)
    reference = list(chosen.reference)
    for k, (i, j) in enumerate(index):
        row = np.zeros(len(sensors))
        row[i] = 1.0
        if j is not None:
            row[j] = -1.0
            names[k] = f"{sensors.ch_names[i]}-{sensors.ch_names[j]}"
            reference[k] = sensors.ch_names[j]
            region[k] = sensors.region[i] if sensors.region[i] == sensors.region[j] else None
            if sensors.known[i] == sensors.known[j]:
                position[k] = (sensors.position[i] + sensors.position[j]) / 2
            else:
                position[k], known[k] = 0, Knowledge.ABSENT
        rows.append(row)
    made = chosen.evolve(
        ch_names=tuple(names), position=position, known=known, region=tuple(region),
        reference=tuple(reference),
    )  # fmt: skip
    return Derived(rows, made, dropped)


def laplacian(sensors: Sensors, kind: SensorKind) -> Derived:
    """Subtract from each contact the mean of those beside it.

    On a shaft or a strip these are the contacts before and after it; on a grid whose positions
    are known, those at the grid's distance. The ends of a shaft have one neighbour only: they
    are dropped, for what would be left of them is a bipolar derivation.

    Parameters
    ----------
    sensors : Sensors
        All channels of a recording.
    kind : SensorKind
        The kind that is re-referenced.

    Returns
    -------
    Derived
        Channels with the names and places of their contacts.
    """
    beside: defaultdict[int, set[int]] = defaultdict(set)
    pairs = _consecutive(sensors, kind)
    if kind is SensorKind.ECOG:
        pairs += _adjacent(sensors, kind)
    for a, b in pairs:
        beside[a].add(b)
        beside[b].add(a)
    keep, rows = [], []
    dropped: dict[str, str] = {}
    for i in sensors.of_kind(kind):
        near = sorted(beside[i])
        if sensors.reference[i] == "laplacian":
            near = []
        elif len(near) < 2:
            dropped[sensors.ch_names[i]] = (
                "at the end of its shaft" if near else _why_alone(sensors, i)
            )
            continue
        row = np.zeros(len(sensors))
        row[i] = 1.0
        row[near] = -1.0 / max(1, len(near))
        keep.append(i)
        rows.append(row)
    chosen = sensors.select(keep)
    return Derived(rows, chosen.evolve(reference=("laplacian",) * len(keep)), dropped)


def _shafts(sensors: Sensors, kind: SensorKind) -> dict[str, dict[int, int]]:
    """Group the contacts of a kind: shaft -> number -> row. Derivations are no contacts."""
    shafts: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for i in sensors.of_kind(kind):
        contact = contact_of(sensors.ch_names[i])
        if contact is not None and not sensors.bipolar[i]:
            shafts[contact[0]][contact[1]] = int(i)
    return shafts


def _consecutive(sensors: Sensors, kind: SensorKind) -> list[tuple[int, int]]:
    """Pair contacts whose numbers follow one another, unless their places say otherwise."""
    pairs = []
    for numbers in _shafts(sensors, kind).values():
        located = all(sensors.located[i] for i in numbers.values())
        if len(numbers) > _LONGEST_SHAFT and not located:
            continue
        found = [(numbers[n], numbers[n + 1]) for n in sorted(numbers) if n + 1 in numbers]
        if located and found:
            apart = np.array([_distance(sensors, a, b) for a, b in found])
            reach = _REACH * float(np.median(apart))
            found = [pair for pair, d in zip(found, apart, strict=True) if d <= reach]
        pairs += found
    return pairs


def _adjacent(sensors: Sensors, kind: SensorKind) -> list[tuple[int, int]]:
    """Pair contacts of a grid that lie beside one another."""
    pairs = []
    for numbers in _shafts(sensors, kind).values():
        rows = np.array(sorted(numbers.values()))
        if len(rows) <= _LONGEST_SHAFT or not sensors.located[rows].all():
            continue
        places = sensors.position[rows].astype(float)
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        spacing = float(np.median(apart.min(axis=1)))
        near = np.argwhere(np.triu(apart <= _GRID_REACH * spacing))
        pairs += [(int(rows[a]), int(rows[b])) for a, b in near]
    return pairs


def _distance(sensors: Sensors, a: int, b: int) -> float:
    return float(np.linalg.norm(sensors.position[a].astype(float) - sensors.position[b]))


def _why_alone(sensors: Sensors, i: int) -> str:
    contact = contact_of(sensors.ch_names[i])
    if contact is None:
        return "its name is not that of a contact: a shaft and a number"
    alike = [
        k
        for k in sensors.of_kind(SensorKind(sensors.kind[i]))
        if (contact_of(sensors.ch_names[k]) or ("",))[0] == contact[0]
    ]
    if len(alike) > _LONGEST_SHAFT and not sensors.located[alike].all():
        return f"one of {len(alike)} contacts of a grid without positions"
    return "no neighbour on its shaft"

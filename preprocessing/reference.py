"""References: what potentials are taken against, as one matrix."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np

from neurofm.contract import KindName, Reference
from neurofm.errors import SignalError
from neurofm.preprocessing.history import marked_bad
from neurofm.preprocessing.ieeg import Derived, bipolar, laplacian
from neurofm.preprocessing.spatial import Spatial, SpatialStep, selection
from neurofm.sensors import SensorKind, Sensors
from neurofm.signals import Recording


class Rereference(SpatialStep):
    """Reference the channels of each kind as a contract asks for.

    Parameters
    ----------
    reference : dict
        Kind -> ``as_recorded``; ``average``, against the mean of the kind; ``bipolar``, the
        difference between contacts that follow one another on a shaft; or ``laplacian``, against
        the mean of the contacts beside each. Kinds not named stay. Channels marked bad have no
        part in an average, and are dropped where differences would spread what is wrong with
        them.
    """

    name: Literal["rereference"] = "rereference"
    reference: dict[KindName, Reference]

    def operator(self, recording: Recording) -> Spatial | None:
        """Return the operator; None if nothing is to be changed.

        Raises
        ------
        SignalError
            If a kind to be averaged has one channel, of which nothing would be left, or no
            contact of a kind has a neighbour.
        """
        sensors, where, bad = recording.sensors, recording.recording_id, marked_bad(recording)
        spread = {
            name: f"{bad[name]}; its neighbours are not derived from it"
            for name, kind in zip(sensors.ch_names, sensors.kind, strict=True)
            if name in bad
            and self.reference.get(SensorKind(kind).label) in ("bipolar", "laplacian")  # type: ignore[call-overload]
        }
        if not spread:
            return reference_operator(sensors, self.reference, where, without=bad)
        keep = np.flatnonzero([name not in spread for name in sensors.ch_names])
        first = selection(sensors, keep, {"step": "drop_marked", "dropped": spread})
        then = reference_operator(first.sensors, self.reference, where, without=bad)
        return first if then is None else then.after(first)


def reference_operator(
    sensors: Sensors,
    reference: dict[KindName, Reference],
    where: str,
    without: Collection[str] = (),
) -> Spatial | None:
    """Return what `Rereference` does to channels; see there.

    Parameters
    ----------
    sensors : Sensors
        The channels that come in.
    reference : dict
        Kind -> reference.
    where : str
        The recording, for messages.
    without : collection of str
        Channels that have no part in an average.

    Raises
    ------
    SignalError
        If the channels of a kind cannot have the reference that is asked for.
    """
    step: dict[str, Any] = {"step": "rereference"}
    derived: dict[int, Derived] = {}
    for label, how in reference.items():
        kind = SensorKind[label.upper()]
        rows = sensors.of_kind(kind)
        if how == "as_recorded" or not len(rows):
            continue
        _require_enough(sensors, rows, label, how, where)
        if how == "average":
            made = _average(sensors, kind, without)
        else:
            made = {"bipolar": bipolar, "laplacian": laplacian}[how](sensors, kind)
        if not made.rows:
            raise SignalError(
                f"{where}: {how} reference leaves nothing of {len(rows)} {label} channels: "
                f"{_first(made.dropped)}",
                hint=f"name contacts by shaft and number (LA1, LA2), give them positions, or set "
                f"the contract's reference.{label} to as_recorded",
            )
        derived[int(kind)] = made
        step.setdefault(how, []).append(label)
        if made.dropped:
            step["dropped"] = step.get("dropped", {}) | made.dropped
    return _joined(sensors, derived, step) if derived else None


def _average(sensors: Sensors, kind: SensorKind, without: Collection[str]) -> Derived:
    rows = sensors.of_kind(kind)
    good = np.array([i for i in rows if sensors.ch_names[i] not in without], int)
    good = good if len(good) else rows
    weights = np.zeros((len(rows), len(sensors)))
    weights[:, rows] = np.eye(len(rows))
    weights[:, good] -= 1.0 / len(good)
    made = sensors.select(rows)
    # the mean of derivations is no electrode's potential: they stay what they are
    if not made.bipolar.all():
        made = made.evolve(reference=("average",) * len(rows))
    return Derived(list(weights), made)


def _require_enough(sensors: Sensors, rows: np.ndarray, label: str, how: str, where: str) -> None:
    if how == "average" and len(rows) == 1:
        raise SignalError(
            f"{where}: average reference of a single {label} channel "
            f"({sensors.ch_names[rows[0]]}) leaves nothing",
            hint=f"set the contract's reference.{label} to as_recorded",
        )
    derivations = [sensors.ch_names[i] for i in rows if sensors.bipolar[i]]
    mixed = how == "average" and len(derivations) < len(rows)
    if derivations and (mixed or how == "laplacian"):
        raise SignalError(
            f"{where}: {how} reference of {len(rows)} {label} channels, of which "
            f"{len(derivations)} are bipolar derivations already ({', '.join(derivations[:3])})",
            hint=f"their own reference is gone: drop them in the config's `channels`, or set the "
            f"contract's reference.{label} to as_recorded",
        )


def _joined(sensors: Sensors, derived: dict[int, Derived], step: dict[str, Any]) -> Spatial:
    """Put what was made of each kind where the kind's first channel was."""
    matrix: list[np.ndarray] = []
    parts: list[Sensors] = []
    placed: set[int] = set()
    for i, kind in enumerate(sensors.kind):
        if int(kind) not in derived:
            matrix.append(np.eye(1, len(sensors), i)[0])
            parts.append(sensors.select([i]))
        elif int(kind) not in placed:
            placed.add(int(kind))
            matrix += derived[int(kind)].rows
            parts.append(derived[int(kind)].sensors)
    return Spatial(np.array(matrix), Sensors.concatenate(parts), step)


def _first(dropped: dict[str, str]) -> str:
    name, why = next(iter(dropped.items()), ("", "no contact"))
    return f"{name}: {why}"

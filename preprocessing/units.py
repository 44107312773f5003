"""Units: what a header says, against what brains and amplifiers make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from neurofm.contract import robust_sd
from neurofm.errors import SignalError
from neurofm.preprocessing.spatial import Spatial
from neurofm.sensors import SensorKind, Sensors
from neurofm.signals import Recording

Units = Literal["check", "repair", "trust"]

# Robust standard deviation of band-passed signals, (low, high) in the kind's SI unit: wide
# enough for every healthy recording we have seen, narrow enough to catch a factor of 1000.
PLAUSIBLE: dict[SensorKind, tuple[float, float]] = {
    SensorKind.EEG: (4e-7, 3e-4),
    SensorKind.SEEG: (1e-6, 9e-4),
    SensorKind.ECOG: (1e-6, 9e-4),
    SensorKind.DBS: (4e-7, 3e-4),
    SensorKind.MAG: (1e-14, 8e-12),
    SensorKind.GRAD_PLANAR: (2e-13, 1.5e-10),
    SensorKind.GRAD_AXIAL: (1e-14, 8e-12),
    SensorKind.OPM: (2e-14, 1.5e-11),
}
_PREFIXES = {1e-15: "f", 1e-12: "p", 1e-9: "n", 1e-6: "u", 1e-3: "m"}


@dataclass(frozen=True)
class Misfit:
    """A kind whose amplitude no brain and amplifier make.

    Attributes
    ----------
    kind : SensorKind
        The kind.
    n_channels : int
        How many channels of it there are.
    found : float
        Robust standard deviation of its median channel, in its SI unit; of one or two
        channels, of the less plausible.
    factor : float or None
        The power of 1000 that would make it plausible; None if none would.
    """

    kind: SensorKind
    n_channels: int
    found: float
    factor: float | None

    def __str__(self) -> str:
        """Say what was found, what is plausible, and what is likely."""
        low, high = PLAUSIBLE[self.kind]
        unit = self.kind.unit
        return (
            f"{self.kind.label} amplitude is {self.found:.2g} {unit} (robust SD, median of "
            f"{self.n_channels} channels); plausible is {low:.2g} to {high:.2g} {unit}"
            + _likely(self.factor, unit)
        )


def misfits(amplitude: np.ndarray, sensors: Sensors) -> list[Misfit]:
    """Compare the amplitude of every kind with what is plausible for it.

    Parameters
    ----------
    amplitude : ndarray, shape (C,)
        Robust standard deviations of band-passed channels in what is said to be SI units.
    sensors : Sensors
        The channels.

    Returns
    -------
    list of Misfit
        One for each kind whose median channel, or one of its two, is too small or too large.
    """
    found = []
    for kind, (low, high) in PLAUSIBLE.items():
        rows = sensors.of_kind(kind)
        if len(rows):
            middle = _typical(amplitude[rows], low, high)
            if not low <= middle <= high:
                found.append(Misfit(kind, len(rows), middle, _factor(middle, low, high)))
    return found


def _typical(amplitude: np.ndarray, low: float, high: float) -> float:
    """Return the median; of two channels, which cannot outvote one, the less plausible."""
    if len(amplitude) >= 3:
        return float(np.median(amplitude))
    distance = np.maximum(amplitude / high, low / np.maximum(amplitude, np.finfo(float).tiny))
    return float(amplitude[np.argmax(distance)])


def check_amplitude(
    signal: np.ndarray,
    sensors: Sensors,
    where: str,
    unit_scale: float | Mapping[str, float] = 1.0,
) -> None:
    """Refuse amplitudes that no brain and amplifier make, naming the likely mistake.

    Parameters
    ----------
    signal : ndarray, shape (C, T)
        Band-passed samples in what is said to be SI units.
    sensors : Sensors
        The channels.
    where : str
        File or recording, for the message.
    unit_scale : float or mapping of kind to float
        What the samples have been multiplied by already; the hint reckons with it.

    Raises
    ------
    SignalError
        If the median channel of some kind is too small or too large.
    """
    found = misfits(robust_sd(signal), sensors)
    if found:
        raise _refusal(found, sensors, where, unit_scale)


def settle_units(recording: Recording, units: Units) -> Recording:
    """Check the amplitude of every kind, and do about it what a source asks for.

    Parameters
    ----------
    recording : Recording
        Band-passed, in what is said to be SI units.
    units : "check", "repair" or "trust"
        Refuse what is not plausible; multiply by the power of 1000 that makes it so, and refuse
        what none does; or take it as it is. What was repaired or trusted is in the history.

    Returns
    -------
    Recording
        The same, where nothing was to be done.

    Raises
    ------
    SignalError
        If the median channel of some kind is too small or too large, and stays so.
    """
    found = misfits(robust_sd(recording.signal), recording.sensors)
    if not found:
        return recording
    where = recording.recording_id
    if units == "trust":
        notes = [f"{misfit}: trusted" for misfit in found]
        return recording.evolve({"step": "trust_units", "notes": notes})
    if units == "check" or any(misfit.factor is None for misfit in found):
        raise _refusal(found, recording.sensors, where, _scaled_by(recording))
    factors = np.ones(len(recording.sensors))
    for misfit in found:
        factors[recording.sensors.of_kind(misfit.kind)] = misfit.factor or 1.0
    step: dict[str, Any] = {
        "step": "repair_units",
        "factor": {misfit.kind.label: misfit.factor for misfit in found},
        "notes": [f"{misfit}: multiplied by {misfit.factor:g}" for misfit in found],
    }
    return Spatial(np.diag(factors), recording.sensors, step).lazily(recording)


def scale_of(unit_scale: float | Mapping[Any, float], sensors: Sensors) -> float | np.ndarray:
    """Return what samples are multiplied by: one factor, or a column with one for each channel."""
    if not isinstance(unit_scale, Mapping):
        return unit_scale
    labels = [SensorKind(kind).label for kind in sensors.kind]
    return np.array([[unit_scale.get(label, 1.0)] for label in labels])


def _refusal(
    found: list[Misfit], sensors: Sensors, where: str, unit_scale: float | Mapping[str, float]
) -> SignalError:
    if any(misfit.factor is None for misfit in found):
        hint = (
            "look at the signal; exclude the file if nothing was connected, or take it as it is "
            "by `units: trust` in the source"
        )
    else:
        hint = f"if so, set `unit_scale: {_wanted(found, sensors, unit_scale)}` for this source"
    return SignalError(f"{where}: {'; '.join(map(str, found))}", hint=hint)


def _wanted(found: list[Misfit], sensors: Sensors, unit_scale: float | Mapping[str, float]) -> str:
    """Spell the setting that would make amplitudes plausible, what is set already included."""

    def now(kind: str) -> float:
        return unit_scale.get(kind, 1.0) if isinstance(unit_scale, Mapping) else unit_scale

    wanted = {kind: now(kind) for kind in sensors.kinds if kind != "ref_meg"}
    wanted |= {m.kind.label: now(m.kind.label) * (m.factor or 1.0) for m in found}
    if len(set(wanted.values())) == 1:
        return f"{next(iter(wanted.values())):g}"
    said = (f"{kind}: {scale:g}" for kind, scale in wanted.items() if scale != 1.0)
    return "{" + ", ".join(said) + "}"


def _scaled_by(recording: Recording) -> float | dict[str, float]:
    scales: list[Any] = [s["unit_scale"] for s in recording.history if "unit_scale" in s]
    return scales[0] if scales else 1.0


def _factor(found: float, low: float, high: float) -> float | None:
    """Return the power of 1000 that brings `found` well inside of what is plausible, if one does.

    What would only just be plausible is as likely no brain signal at all: no guess is made.
    """
    if not found > 0:
        return None
    middle = float(np.sqrt(low * high))
    power = round(np.log10(middle / found) / 3)
    factor = float(10.0 ** (3 * power))
    return factor if power and 3 * low <= found * factor <= high / 3 else None


def _likely(factor: float | None, unit: str) -> str:
    if factor is None:
        return ""
    for size, prefix in _PREFIXES.items():
        if np.isclose(factor, size, rtol=1e-6, atol=0):
            return f"; the numbers look like {prefix}{unit} declared as {unit}"
        if np.isclose(factor, 1 / size, rtol=1e-6, atol=0):
            return f"; the numbers look {1 / size:g} times too small, as if scaled to {unit} twice"
    return ""

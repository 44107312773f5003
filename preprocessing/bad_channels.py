"""Bad channels: broken, saturated, or nothing like the sensors around them.

A channel is compared with others of its kind in the same recording, never with a number in
volts: what a healthy amplitude is differs between devices, and is checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neurofm.config import Config
from neurofm.contract import robust_sd
from neurofm.preprocessing.history import at_limits, band_passed, marked_bad
from neurofm.preprocessing.stretches import Stretches
from neurofm.sensors import MEG_KINDS, SensorKind, Sensors
from neurofm.signals import Recording

# what becomes of bad channels: see `cleaning.BadChannels`
Policy = Literal["drop", "interpolate", "mark", "keep"]
Criterion = Literal["flat", "saturated", "amplitude", "spectrum", "correlation", "ransac"]

# Spectra and correlations of fewer stretches, or among fewer channels, are chance.
_LEAST_STRETCHES = 2
_LEAST_CHANNELS = 6
_BAND_HZ = 1.0
_NEIGHBOURS = 6
_PREFIXES = ("m", "u", "n")  # of units a thousand, a million, a billion times smaller


class Limits(Config):
    """What makes a channel of some kind a bad one; None switches a criterion off.

    Parameters
    ----------
    flat_share : float, optional
        Share of samples that equal the one before.
    saturated_share : float, optional
        Share of samples at the channel's smallest or largest value, as recorded.
    amplitude_ratio : float, optional
        How many times louder or quieter than the median channel of its kind.
    spectrum_iqr : float, optional
        How many interquartile ranges above the upper quartile a channel's distance from the
        others lies, in log power per hertz.
    spectrum_decades : float
        The least distance, in decades of power, that can make a channel bad: among channels
        that are much alike, small differences are many interquartile ranges.
    correlation : float, optional
        Largest absolute correlation with a neighbour, in the median stretch of 4 s. Only
        where channels of this kind do follow their neighbours: the median channel must reach
        more than twice the limit.
    """

    # nothing was connected: also what reading refuses
    flat_share: float | None = Field(default=0.98, gt=0, lt=1)
    # at its rails every fifth sample: no filter brings back what was cut off
    saturated_share: float | None = Field(default=0.2, gt=0, lt=1)
    # in another unit, or not connected: it would swamp an average reference
    amplitude_ratio: float | None = Field(default=200.0, gt=1)
    # as BrainOmni: 10 interquartile ranges catch what nobody would argue about
    spectrum_iqr: float | None = Field(default=10.0, gt=0)
    # thirty times the others' power all over the spectrum, or a thirtieth. Muscle at a temporal
    # electrode reaches 1.0 (eegmmidb), a healthy depth contact 1.6.
    spectrum_decades: float = Field(default=1.5, ge=0)
    correlation: float | None = Field(default=None, gt=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class BadChannel:
    """A channel and what is wrong with it.

    Attributes
    ----------
    name : str
        The channel.
    criterion : str
        Which limit it broke.
    value, limit : float or None
        What was found, where that is a number, and what would have been allowed.
    why : str
        Both, in words.
    """

    name: str
    criterion: Criterion
    value: float | None
    limit: float
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a history."""
        numbers = {"value": self.value, "limit": self.limit}
        told = {key: float(f"{v:.4g}") for key, v in numbers.items() if v is not None}
        return {"name": self.name, "criterion": self.criterion, **told}


class FindBadChannels(Config):
    """Find bad channels.

    Parameters
    ----------
    eeg, meg, ieeg : Limits
        For scalp electrodes; for magnetometers and gradiometers of every sort; and for
        contacts inside the head.
    """

    # Volume conduction ties neighbours on the scalp: 0.2 is far below what any healthy channel
    # has among 20 others. PREP's 0.4 holds for dense caps only.
    eeg: Limits = Limits(correlation=0.2)
    # Coils an inch apart see the same field, but planar ones cross it in two directions.
    # They are built alike and far from muscles: ten times the power is a fault.
    meg: Limits = Limits(spectrum_decades=1.0, correlation=0.1)
    # Each contact has its own tissue: contacts in the white matter, or in a focus, differ by
    # far more than electrodes on a scalp, and are what the recording was made for.
    ieeg: Limits = Limits(spectrum_decades=2.0, correlation=None)

    def find(self, recording: Recording) -> tuple[BadChannel, ...]:
        """Return bad channels, each with the first limit it broke, in order of channels.

        Parameters
        ----------
        recording : Recording
            Band-passed. What could only be seen before, samples at the amplifier's limits, is
            taken from its history; channels marked bad there are not judged again.
        """
        known, names = marked_bad(recording), recording.sensors.ch_names
        found: dict[int, BadChannel] = {}
        stretches = Stretches(recording)
        for code in np.unique(recording.sensors.kind):
            kind = SensorKind(code)
            rows, limits = recording.sensors.of_kind(kind), self._limits(kind)
            for look in (_flat, _saturated, _amplitude, _spectrum, _correlation):
                # a channel known to be bad is nobody's measure
                rest = np.array([i for i in rows if i not in found and names[i] not in known], int)
                for row, bad in look(recording, stretches, rest, limits):
                    found.setdefault(row, bad)
        return tuple(found[row] for row in sorted(found))

    def _limits(self, kind: SensorKind) -> Limits:
        if kind in MEG_KINDS:
            return self.meg
        return self.eeg if kind is SensorKind.EEG else self.ieeg


def _flat(
    recording: Recording, stretches: Stretches, rows: np.ndarray, limits: Limits
) -> Iterator[tuple[int, BadChannel]]:
    limit = limits.flat_share
    if limit is None or not stretches.starts:
        return
    repeats = [np.mean(b[:, 1:] == b[:, :-1], axis=1) for b in stretches.of(rows)]
    for row, share in zip(rows, np.mean(repeats, axis=0), strict=True):
        if share > limit:
            why = f"flat for {share:.1%} of the time (limit {limit:.0%})"
            yield _bad(recording, row, "flat", share, limit, why)


def _saturated(
    recording: Recording, stretches: Stretches, rows: np.ndarray, limits: Limits
) -> Iterator[tuple[int, BadChannel]]:
    limit, shares = limits.saturated_share, at_limits(recording)
    if limit is None:
        return
    for row in rows:
        share = shares.get(recording.sensors.ch_names[row], 0.0)
        if share > limit:
            why = f"at its limits for {share:.1%} of the time (limit {limit:.0%})"
            yield _bad(recording, row, "saturated", share, limit, why)


def _amplitude(
    recording: Recording, stretches: Stretches, rows: np.ndarray, limits: Limits
) -> Iterator[tuple[int, BadChannel]]:
    limit = limits.amplitude_ratio
    # with two, nobody can say which of them is the strange one
    if limit is None or len(rows) < 3:
        return
    amplitude = robust_sd(recording.signal)[rows]
    middle = float(np.median(amplitude))
    if not middle > 0:
        return
    for row, ratio in zip(rows, amplitude / middle, strict=True):
        if not 1 / limit < ratio < limit:
            times = f"{ratio:.3g} times" if ratio > 1 else f"1/{1 / max(ratio, 1e-30):.3g} of"
            why = f"amplitude {times} the median channel of its kind (limit {limit:g})"
            unit = SensorKind(recording.sensors.kind[row]).unit
            yield _bad(recording, row, "amplitude", ratio, limit, why + _other_unit(ratio, unit))


def _other_unit(ratio: float, unit: str) -> str:
    """Say it where a channel is off by a power of 1000, give or take a factor of three."""
    decades = np.log10(max(ratio, 1e-30))  # a channel may be flat for most of the time
    power = round(decades / 3)
    if not 1 <= abs(power) <= len(_PREFIXES) or abs(decades - 3 * power) > 0.5:
        return ""
    if power > 0:
        return f", as if {_PREFIXES[power - 1]}{unit} had been taken for {unit}"
    return f", as if scaled to {unit} once more than the others"


def _spectrum(
    recording: Recording, stretches: Stretches, rows: np.ndarray, limits: Limits
) -> Iterator[tuple[int, BadChannel]]:
    if limits.spectrum_iqr is None or not _enough(stretches, rows):
        return
    spectra = _log_spectra(recording, stretches, rows)
    if not spectra.shape[1]:
        return
    gram = np.sqrt(((spectra[:, None] - spectra[None]) ** 2).mean(axis=2))
    distance = np.median(gram, axis=1)
    low, high = np.percentile(distance, [25, 75])
    limit = max(high + limits.spectrum_iqr * (high - low), limits.spectrum_decades)
    for row, far in zip(rows, distance, strict=True):
        if far > limit:
            why = f"spectrum {far:.2f} decades from the other channels (limit {limit:.2f})"
            yield _bad(recording, row, "spectrum", far, limit, why)


def _correlation(
    recording: Recording, stretches: Stretches, rows: np.ndarray, limits: Limits
) -> Iterator[tuple[int, BadChannel]]:
    limit = limits.correlation
    if limit is None or not _enough(stretches, rows):
        return
    near = _neighbours(recording.sensors.select(rows))
    reached = []
    for block in stretches.of(rows):
        norm = np.maximum(np.linalg.norm(block, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        unit = block / norm
        reached.append(np.where(near, np.abs(unit @ unit.T), 0).max(axis=1))
    best = np.median(reached, axis=0)
    if np.median(best) <= 2 * limit:
        return
    for row, value in zip(rows, best, strict=True):
        if value < limit:
            why = f"correlation of {value:.2f} with its nearest neighbours (limit {limit:g})"
            yield _bad(recording, row, "correlation", value, limit, why)


def _log_spectra(recording: Recording, stretches: Stretches, rows: np.ndarray) -> np.ndarray:
    """Return log10 power in bands of 1 Hz inside the pass band, shape (len(rows), bands)."""
    n, sfreq = stretches.n_times, recording.sfreq
    low, high, notches = band_passed(recording)
    freqs = np.fft.rfftfreq(n, 1 / sfreq)
    edges = np.arange(max(low, _BAND_HZ), min(high, 0.45 * sfreq), _BAND_HZ)
    edges = edges[[not any(abs(e + _BAND_HZ / 2 - f) < 3 for f in notches) for e in edges]]
    first = np.searchsorted(freqs, edges)
    last = np.searchsorted(freqs, edges + _BAND_HZ)
    first, last = first[last > first], last[last > first]
    window = np.hanning(n).astype(np.float32)
    logs = []
    for block in stretches.of(rows):
        spectrum = np.fft.rfft(block * window, axis=1)
        # summed in double precision: slow waves hold a million times the power of fast ones
        total = np.cumsum(spectrum.real**2 + spectrum.imag**2, axis=1, dtype=np.float64)
        total = np.pad(total, ((0, 0), (1, 0)))
        band = (total[:, last] - total[:, first]) / (last - first)
        logs.append(np.log10(np.maximum(band, 1e-40)))
    return np.median(logs, axis=0)


def _neighbours(sensors: Sensors) -> np.ndarray:
    """Return which channels are near which, shape (C, C): all, for those without a position."""
    near = ~np.eye(len(sensors), dtype=bool)
    located = np.flatnonzero(sensors.located)
    if len(located) <= _NEIGHBOURS:
        return near
    position = sensors.position[located].astype(float)
    distance = np.linalg.norm(position[:, None] - position[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    reach = np.sort(distance, axis=1)[:, _NEIGHBOURS - 1 : _NEIGHBOURS]
    near[np.ix_(located, located)] = distance <= reach
    return near


def _enough(stretches: Stretches, rows: np.ndarray) -> bool:
    return len(stretches.starts) >= _LEAST_STRETCHES and len(rows) >= _LEAST_CHANNELS


def _bad(
    recording: Recording, row: int, criterion: Criterion, value: float, limit: float, why: str
) -> tuple[int, BadChannel]:
    return int(row), BadChannel(
        name=recording.sensors.ch_names[row],
        criterion=criterion,
        value=float(value),
        limit=float(limit),
        why=why,
    )

"""The signal contract: what a store offers and a checkpoint needs, and whether data fit it."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, model_validator

from neurofm.config import Config
from neurofm.errors import ConfigError, ContractError
from neurofm.sensors import SensorKind
from neurofm.signals import whole_samples

KindName = Literal["eeg", "mag", "grad_planar", "grad_axial", "opm", "seeg", "ecog", "dbs"]
Reference = Literal["as_recorded", "average", "bipolar", "laplacian"]
# contacts have neighbours along a shaft; electrodes of a cap and coils have not
_ON_SHAFTS = ("seeg", "ecog", "dbs")
CtfGrade = Literal["as_recorded", 0, 1, 2, 3]
Normalisation = Literal["channel", "kind", "group", "quantile", "fixed"]


class SignalContract(Config):
    """What every recording of a store has been made to be.

    Parameters
    ----------
    sfreq : float
        Sampling rate in hertz.
    band_hz : (float, float)
        High-pass and low-pass edges in hertz. The high-pass edge must be above zero:
        normalisation divides by a scale and removes no offset.
    line_hz : "auto", "none" or float
        Mains frequency whose harmonics are notched; ``auto`` finds 50 or 60 Hz in the
        spectrum.
    reference : {kind: "as_recorded", "average", "bipolar" or "laplacian"}
        Reference per kind; kinds not named stay as recorded. ``bipolar`` and ``laplacian`` are
        for intracranial contacts: differences along a shaft, and each contact against those
        beside it.
    ctf_grade : 0, 1, 2, 3 or "as_recorded"
        Compensation grade that CTF recordings are brought to before their reference channels
        go; other devices have none.
    normalisation : "channel", "kind", "group", "quantile" or "fixed"
        What makes a signal unitless. Each channel is divided by its robust standard deviation
        over the recording (``channel``), by the median of these over its kind (``kind``: weak
        channels stay weaker than strong ones), by a quantile of its absolute samples
        (``quantile``), or by a constant of its kind (``fixed``: amplitudes stay comparable
        between recordings). ``group``, as BrainOmni, first takes the mean across a kind's
        channels from every sample, then divides by the standard deviation of them all.
    quantile : float
        The quantile that ``quantile`` divides by.
    scale : {kind: float}
        The constants that ``fixed`` divides by, in the kind's SI unit: one for every kind kept.
    clip : float
        Standardised samples are limited to plus and minus this many deviations.
    window_s : float
        Length of one model window in seconds.
    kinds : tuple of str
        Sensor kinds that are kept.
    """

    sfreq: float = Field(gt=0)
    band_hz: tuple[float, float]
    line_hz: Literal["auto", "none"] | Annotated[float, Field(gt=0)] = "auto"
    reference: dict[KindName, Reference] = Field(default_factory=dict)
    ctf_grade: CtfGrade = 3
    normalisation: Normalisation = "channel"
    quantile: float = Field(default=0.95, gt=0, le=1)  # as BIOT
    scale: dict[KindName, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    clip: float = Field(default=15.0, gt=0)
    window_s: float = Field(gt=0)
    kinds: tuple[KindName, ...] = get_args(KindName)

    @model_validator(mode="after")
    def _consistent(self) -> SignalContract:
        low, high = self.band_hz
        if not 0 < low < high:
            raise ValueError(f"band_hz must be 0 < high-pass < low-pass, got {low:g} and {high:g}")
        if high > self.sfreq / 2:
            raise ValueError(
                f"band_hz reaches {high:g} Hz, above the Nyquist frequency {self.sfreq / 2:g} Hz "
                f"of sfreq {self.sfreq:g} Hz"
            )
        try:
            whole_samples(self.window_s, self.sfreq)
        except ConfigError as error:
            raise ValueError(f"window_s: {error}") from None
        if not self.kinds:
            raise ValueError("kinds is empty: no channel would be kept")
        for kind, how in self.reference.items():
            if how in ("bipolar", "laplacian") and kind not in _ON_SHAFTS:
                raise ValueError(
                    f"reference.{kind} is {how}, which is for contacts of a shaft or a grid: "
                    f"{', '.join(_ON_SHAFTS)}"
                )
        self._normalisable()
        return self

    def _normalisable(self) -> None:
        if self.scale and self.normalisation != "fixed":
            raise ValueError(f"scale is for normalisation fixed, not {self.normalisation}")
        missing = [kind for kind in self.kinds if kind not in self.scale]
        if self.normalisation == "fixed" and missing:
            raise ValueError(
                f"normalisation fixed has no scale for {', '.join(missing)}: give one in `scale`, "
                "or leave the kind out of `kinds`"
            )
        others = {kind: how for kind, how in self.reference.items() if how != "average"}
        if self.normalisation == "group" and others:
            raise ValueError(
                "normalisation group takes the mean across channels from every sample, which is "
                f"not what reference asks for: {others}"
            )

    @property
    def references(self) -> dict[KindName, Reference]:
        """The reference of every kind that does not stay as it was recorded."""
        if self.normalisation == "group":
            return dict.fromkeys(self.kinds, "average")
        return {kind: how for kind, how in self.reference.items() if how != "as_recorded"}

    @property
    def n_times(self) -> int:
        """Samples in one window."""
        return whole_samples(self.window_s, self.sfreq)

    def keeps(self, kind: int) -> bool:
        """Tell whether channels of a kind are kept."""
        return SensorKind(kind).label in self.kinds

    def require_same(self, other: SignalContract, ours: str, theirs: str) -> None:
        """Raise unless two contracts promise the same signal.

        Parameters
        ----------
        other : SignalContract
            The contract to compare with.
        ours, theirs : str
            What carries each contract, for the message.

        Raises
        ------
        ContractError
            Naming every field that differs.
        """
        a, b = self.to_dict(), other.to_dict()
        differing = [f"{key}: {a[key]!r} against {b[key]!r}" for key in a if a[key] != b[key]]
        if differing:
            raise ContractError(
                f"{ours} and {theirs} have different signal contracts: {'; '.join(differing)}",
                hint="preprocess the recordings again under the contract that is needed",
            )

    def divisor(self, signal: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """Return what each channel is divided by to become unitless.

        Parameters
        ----------
        signal : ndarray, shape (C, T)
            A whole recording, band-passed and re-referenced, in SI units.
        kind : ndarray of int, shape (C,)
            `SensorKind` codes.

        Returns
        -------
        ndarray of float32, shape (C,)
            In SI units.
        """
        if self.normalisation == "fixed":
            return np.array([self.scale[SensorKind(k).label] for k in kind], np.float32)  # type: ignore[index]
        if self.normalisation == "quantile":
            scale = np.quantile(np.abs(thinned(signal)), self.quantile, axis=1)
        elif self.normalisation == "group":
            scale = np.empty(len(kind))
            samples = thinned(signal)
            for code in np.unique(kind):
                scale[kind == code] = samples[kind == code].std(dtype=np.float64)
        else:
            scale = robust_sd(signal)
            if self.normalisation == "kind":
                for code in np.unique(kind):
                    scale[kind == code] = np.median(scale[kind == code])
        return scale.astype(np.float32)


def thinned(signal: np.ndarray, most: int = 65_536) -> np.ndarray:
    """Return a view of samples (C, T) at a regular stride: at least `most` of them, if as many.

    Scales are measured on these: that is as exact, and as fast however long a recording is.
    """
    return signal[:, :: max(1, signal.shape[1] // most)]


def robust_sd(signal: np.ndarray) -> np.ndarray:
    """Interquartile range of each row over 1.349: the standard deviation, were it Gaussian.

    Parameters
    ----------
    signal : ndarray, shape (C, T)
        Rows longer than 65 536 samples are read at a regular stride.

    Returns
    -------
    ndarray of float64, shape (C,)
        One value a row.
    """
    # what lies in a file remembers what has been measured of it
    remembered: dict[str, np.ndarray] = getattr(signal, "remembered", {})
    if "robust_sd" not in remembered:
        remembered["robust_sd"] = _robust_sd(thinned(signal))
    return remembered["robust_sd"].copy()


def _robust_sd(samples: np.ndarray) -> np.ndarray:
    # sorting whole rows is four times as fast as numpy's percentile; what is not a number is last
    rows = np.sort(samples, axis=1)
    at = np.array([0.25, 0.75]) * (rows.shape[1] - 1)
    below = at.astype(int)
    above = np.minimum(below + 1, rows.shape[1] - 1)
    low, high = (rows[:, below] + (at - below) * (rows[:, above] - rows[:, below].astype(float))).T
    return np.where(np.isnan(rows[:, -1]), np.nan, (high - low) / 1.349)

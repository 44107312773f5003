"""Uncertainty over subjects: bootstrap intervals and paired sign-flip tests.

The unit is the subject. Trials of one subject resemble each other, so an interval over trials
would promise more than another cohort would keep.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from neurofm.errors import ProtocolError

EXACT_UP_TO = 14  # subjects; 2**14 sign patterns


@dataclass(frozen=True)
class Estimate:
    """A mean over subjects and its interval.

    Attributes
    ----------
    mean : float
        Mean over subjects.
    low, high : float or None
        Ends of the interval; None with fewer than two subjects.
    n_subjects : int
        How many subjects.
    """

    mean: float
    low: float | None
    high: float | None
    n_subjects: int

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.mean:.3f} [one subject]"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def bootstrap(
    values: np.ndarray, *, level: float = 0.95, n_draws: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean over subjects with an expanded percentile bootstrap interval.

    The plain percentile interval is too narrow for few subjects: it lacks the factor
    sqrt(n / (n - 1)) and takes normal for t quantiles. The percentiles read here are those
    that make up for both (Hesterberg 2015).

    Parameters
    ----------
    values : ndarray, shape (n_subjects,)
        One value a subject; their order does not matter.
    level : float
        Coverage.
    n_draws : int
        Number of resamples.
    seed : int
        Seed of the resampling.

    Returns
    -------
    Estimate
        Without an interval if there is one subject only.

    Raises
    ------
    ProtocolError
        If there is no value, or one is not finite.
    """
    values = np.sort(_checked(values))
    n = len(values)
    if n < 2:
        return Estimate(float(values.mean()), None, None, n)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(n, size=(n_draws, n))].mean(axis=1)
    reach = np.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1)
    tail = stats.norm.sf(reach)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high), n)


@dataclass(frozen=True)
class Difference:
    """Mean paired difference over subjects, its interval, and a sign-flip p value.

    Attributes
    ----------
    estimate : Estimate
        Mean and interval of the differences.
    p_value : float
        Two-sided; at least ``2 / 2**n`` for n subjects.
    """

    estimate: Estimate
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**self.estimate.to_dict(), "p_value": self.p_value}


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, *, n_draws: int = 10_000, seed: int = 0
) -> Difference:
    """Compare two models on the same subjects.

    Parameters
    ----------
    ours, theirs : ndarray, shape (n_subjects,)
        One value a subject, in the same order.
    n_draws : int
        Random sign patterns, where not all can be tried.
    seed : int
        Seed of the resampling and of the signs.

    Returns
    -------
    Difference
        Ours minus theirs.

    Raises
    ------
    ProtocolError
        If the two have different lengths, or hold no finite values.
    """
    if np.shape(ours) != np.shape(theirs):
        raise ProtocolError(
            f"cannot pair {np.shape(ours)} with {np.shape(theirs)} values: "
            "the two models were tested on different subjects"
        )
    differences = np.sort(_checked(np.asarray(ours, float) - np.asarray(theirs, float)))
    n = len(differences)
    if n <= EXACT_UP_TO:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
    else:
        rng = np.random.default_rng(seed)
        signs = rng.choice((1.0, -1.0), size=(n_draws, n))
        signs[0] = 1.0  # what was observed is one of the patterns: p is never zero
    flipped = np.abs(signs @ differences)
    observed = abs(differences.sum())
    p_value = float(np.mean(flipped >= observed - 1e-12 * max(1.0, observed)))
    return Difference(bootstrap(differences, n_draws=n_draws, seed=seed), p_value)


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ProtocolError(f"expected one value a subject, found shape {values.shape}")
    if not np.isfinite(values).all():
        raise ProtocolError(f"{int((~np.isfinite(values)).sum())} of the values are not finite")
    return values

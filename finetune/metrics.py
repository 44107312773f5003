"""Metrics of one fold: balanced accuracy, kappa, weighted F1, AUROC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score

from neurofm.errors import ProtocolError

MAIN = "balanced_accuracy"
TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "kappa": "kappa",
    "weighted_f1": "weighted F1",
    "auroc": "AUROC",
}


@dataclass(frozen=True)
class Scores:
    """What could be computed, and why the rest could not.

    Attributes
    ----------
    values : dict of str to float
        Finite values by metric.
    missing : dict of str to str
        The reason, for each metric that is not defined.
    """

    values: dict[str, float]
    missing: dict[str, str] = field(default_factory=dict)


def score(y: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Score predicted probabilities against the truth.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        True classes.
    probabilities : ndarray, shape (n, K)
        Predicted probability of each class; the largest is the prediction.

    Returns
    -------
    Scores
        Every metric, as a value or as a reason why there is none.

    Raises
    ------
    ProtocolError
        If there is nothing to score, or a probability is not a number.
    """
    if not len(y):
        raise ProtocolError("nothing to score: the test part is empty")
    if not np.isfinite(probabilities).all():
        raise ProtocolError(
            "predicted probabilities are not all finite",
            hint="training diverged: lower the learning rate",
        )
    predicted = probabilities.argmax(axis=1)
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    metrics: dict[str, Callable[[], float]] = {
        "balanced_accuracy": lambda: balanced_accuracy(y, predicted),
        "kappa": lambda: cohen_kappa_score(y, predicted),
        "weighted_f1": lambda: f1_score(y, predicted, average="weighted", zero_division=0.0),
        "auroc": lambda: _auroc(y, probabilities),
    }
    for name, compute in metrics.items():
        reason = _undefined(name, y, predicted, probabilities.shape[1])
        if reason:
            missing[name] = reason
        else:
            values[name] = float(compute())
    return Scores(values, missing)


def balanced_accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes present in `y` of the share that was found."""
    return float(np.mean([(predicted[y == c] == c).mean() for c in np.unique(y)]))


def _undefined(name: str, y: np.ndarray, predicted: np.ndarray, n_classes: int) -> str | None:
    present = np.unique(y)
    if name == "auroc" and len(present) < n_classes:
        return f"AUROC needs every class in the test part, found {len(present)} of {n_classes}"
    if name == "kappa" and len(np.union1d(present, predicted)) < 2:
        return "kappa is 0/0 when truth and prediction are one and the same class"
    return None


def _auroc(y: np.ndarray, probabilities: np.ndarray) -> float:
    n_classes = probabilities.shape[1]
    if n_classes == 2:
        return roc_auc_score(y, probabilities[:, 1])
    columns = [roc_auc_score(y == c, probabilities[:, c]) for c in range(n_classes)]
    return float(np.mean(columns))  # macro average, each class against the rest

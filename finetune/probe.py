"""Linear probe: logistic regression on the features of a frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from neurofm.config import Config
from neurofm.finetune.covariances import one_thread
from neurofm.finetune.encoders import EncoderSource
from neurofm.finetune.features import PoolName, signals_digest, trial_features
from neurofm.finetune.metrics import balanced_accuracy
from neurofm.finetune.models import Fold, Prediction
from neurofm.finetune.trials import Trials
from neurofm.readers import WindowReader


class LinearProbeConfig(Config):
    """Standardised features and L2-regularised logistic regression.

    Parameters
    ----------
    pool : "mean" or "channels"
        Mean over all tokens; or over time only, keeping the shared channels apart.
    align : "none" or "recentred"
        ``recentred`` subtracts each subject's own mean over all its trials, tested ones
        included, without labels: transductive, and named ``linear_probe_recentred``.
    regularisations : list of float
        Candidates for C, chosen by balanced accuracy in folds within the training part: by
        subject where there are several, else by stratified trials.
    fallback : float
        C where the training part is too small to be split.
    inner_folds : int
        At most this many inner folds.
    """

    name: Literal["linear_probe"] = "linear_probe"
    pool: PoolName = "mean"
    align: Literal["none", "recentred"] = "none"
    regularisations: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1
    )
    fallback: float = Field(default=1e-2, gt=0)
    inner_folds: int = Field(default=5, ge=2)

    @property
    def label(self) -> str:
        """The adaptation's name in tables."""
        parts = ["linear_probe"]
        if self.pool == "channels":
            parts.append("channels")
        if self.align == "recentred":
            parts.append("recentred")
        return "_".join(parts)


class LinearProbe:
    """A frozen encoder's features of all trials, and what to fit on them.

    Parameters
    ----------
    config : LinearProbeConfig
        Settings.
    source : EncoderSource
        Where encoders come from.
    reader : WindowReader
        The cohort.
    trials : Trials
        All trials of the task.
    device : torch.device
        Where features are computed.
    cache : Path, optional
        Where features are kept.
    """

    def __init__(
        self,
        config: LinearProbeConfig,
        source: EncoderSource,
        reader: WindowReader,
        trials: Trials,
        *,
        device: torch.device,
        cache: Path | None = None,
    ):
        self.config = config
        self.source = source
        self.name = source.name
        self.adaptation = config.label
        self.transductive = config.align == "recentred"
        self._reader, self._trials = reader, trials
        self._device, self._cache = device, cache
        self._signals = signals_digest(reader, source.contract, trials)
        self._features: dict[int, np.ndarray] = {}

    def features(self, seed: int) -> np.ndarray:
        """Return the features of all trials, shape (n_trials, D)."""
        if seed not in self._features:
            found = trial_features(
                self.source.fresh(seed),
                self._reader,
                self._trials,
                signals=self._signals,
                pool=self.config.pool,
                device=self._device,
                cache=self._cache,
            )
            if self.config.align == "recentred":
                found = _recentred(found, self._trials.persons)
            self._features[seed] = found
        return self._features[seed]

    def fit_predict(self, fold: Fold, seed: int) -> Prediction:
        """Learn and predict."""
        features = self.features(seed)
        known = fold.taught
        with one_thread():
            model = fit_probe(features[known], fold.y[known], fold.persons[known], self.config)
            return Prediction(model.predict_proba(features[fold.test]), len(known))


def fit_probe(
    x: np.ndarray, y: np.ndarray, persons: np.ndarray, config: LinearProbeConfig
) -> Pipeline:
    """Choose C within the training part and fit on all of it.

    Parameters
    ----------
    x : ndarray, shape (n, D)
        Features of training trials, and of no others.
    y : ndarray of int, shape (n,)
        Classes.
    persons : ndarray of str, shape (n,)
        Who each trial is from.
    config : LinearProbeConfig
        Settings.

    Returns
    -------
    Pipeline
        Scaler and logistic regression.
    """
    splits = inner_splits(y, persons, config.inner_folds)
    if not splits:
        return _probe(config.fallback).fit(x, y)
    means = []
    for c in config.regularisations:
        scores = [
            balanced_accuracy(y[held], _probe(c).fit(x[rest], y[rest]).predict(x[held]))
            for rest, held in splits
        ]
        means.append(np.mean(scores))
    return _probe(config.regularisations[int(np.argmax(means))]).fit(x, y)


def inner_splits(
    y: np.ndarray, persons: np.ndarray, n_folds: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split the training part: by subject if there are several, else by trial, else not at all."""
    n_persons = len(np.unique(persons))
    if n_persons > 1:
        folds = GroupKFold(min(n_folds, n_persons)).split(y, y, persons)
        return [(rest, held) for rest, held in folds if len(np.unique(y[rest])) > 1]
    fewest = int(np.unique(y, return_counts=True)[1].min())
    if fewest < 2:
        return []
    return list(StratifiedKFold(min(n_folds, fewest)).split(y, y))


def _probe(c: float) -> Pipeline:
    regression = LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
    return make_pipeline(StandardScaler(), regression)


def _recentred(features: np.ndarray, persons: np.ndarray) -> np.ndarray:
    out = features.copy()
    for person in np.unique(persons):
        rows = persons == person
        out[rows] -= features[rows].mean(axis=0)
    return out

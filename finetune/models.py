"""What every model that is scored offers, and what it is shown of a fold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

HIDDEN = -1  # what stands for the label of a trial that is not trained on


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold, as models see it: the labels of test trials are not in it.

    Attributes
    ----------
    protocol, name : str
        Names of the protocol and of the fold.
    train, validation, test : ndarray of int
        Positions of trials in the task's table.
    y : ndarray of int, shape (n_trials,)
        Class codes of training and validation trials, `HIDDEN` elsewhere.
    persons : ndarray of str, shape (n_trials,)
        Who each trial is from.
    n_classes : int
        K.
    """

    protocol: str
    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    y: np.ndarray
    persons: np.ndarray
    n_classes: int

    @property
    def taught(self) -> np.ndarray:
        """Training and validation trials together, for models without early stopping."""
        return np.sort(np.concatenate([self.train, self.validation]))


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of a fold's test trials.

    Attributes
    ----------
    probabilities : ndarray, shape (n_test, K)
        In the order of ``fold.test``.
    n_train : int
        Trials that were trained or selected on.
    curves : DataFrame, optional
        Columns epoch, train_loss and validation_balanced_accuracy, where training has epochs.
    """

    probabilities: np.ndarray
    n_train: int
    curves: pd.DataFrame | None = field(default=None)


class Model(Protocol):
    """Something that learns from a fold's training part and predicts its test part."""

    @property
    def name(self) -> str:
        """The model's name in tables."""

    @property
    def adaptation(self) -> str:
        """How it was fitted to the task; ``none`` for baselines."""

    @property
    def transductive(self) -> bool:
        """Whether unlabelled test trials take part in what is learned."""

    def fit_predict(self, fold: Fold, seed: int) -> Prediction:
        """Learn and predict."""

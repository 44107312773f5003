"""Baselines: chance, and tangent space with logistic regression."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from pyriemann.tangentspace import TangentSpace
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from neurofm.config import Config
from neurofm.finetune.covariances import CovarianceSource, covariances, one_thread, recentre
from neurofm.finetune.models import Fold, Prediction
from neurofm.finetune.trials import Trials


class ChanceConfig(Config):
    """Predict the training part's class frequencies, whatever the signal."""

    name: Literal["chance"] = "chance"

    @property
    def key(self) -> tuple[str, str]:
        """Model and adaptation, as tables call them."""
        return "chance", "none"

    def build(self) -> Chance:
        """Build the model."""
        return Chance()


class Chance:
    """See `ChanceConfig`."""

    name = "chance"
    adaptation = "none"
    transductive = False

    def fit_predict(self, fold: Fold, seed: int) -> Prediction:
        """Learn and predict; nothing is drawn at random."""
        known = fold.taught
        dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(known), 1)), fold.y[known])
        return Prediction(dummy.predict_proba(np.zeros((len(fold.test), 1))), len(known))


Band = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class TangentSpaceConfig(Config):
    """Covariances in their tangent space, and logistic regression (Barachant et al. 2012).

    Parameters
    ----------
    bands_hz : list of (float, float)
        The continuous recording is band-passed before windows are cut. With several bands
        the filtered signals are stacked as if they were more channels, so that their
        covariance also says how bands vary together.
    start_s, stop_s : float, optional
        The baseline's own window, in seconds after time zero; the encoder's by default.
    align : "none" or "recentred"
        ``recentred`` whitens each subject's covariances by their own mean over all trials,
        tested ones included, without labels: transductive, and named ``ts_lr_recentred``.
    regularisation : float
        C of the logistic regression; larger is weaker.
    """

    name: Literal["ts_lr"] = "ts_lr"
    bands_hz: tuple[Band, ...] = Field(default=((4.0, 40.0),), min_length=1)
    start_s: float | None = None
    stop_s: float | None = None
    align: Literal["none", "recentred"] = "none"
    regularisation: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> TangentSpaceConfig:
        for low, high in self.bands_hz:
            if low >= high:
                raise ValueError(f"bands_hz: {low:g} Hz is not below {high:g} Hz")
        if self.start_s is not None and self.stop_s is not None and self.start_s >= self.stop_s:
            raise ValueError(f"start_s {self.start_s:g} is not before stop_s {self.stop_s:g}")
        return self

    @property
    def key(self) -> tuple[str, str]:
        """Model and adaptation, as tables call them."""
        return ("ts_lr_recentred" if self.align == "recentred" else "ts_lr"), "none"

    def window(self, trials: Trials) -> tuple[np.ndarray, int]:
        """Return the first sample of each trial's window, and the samples in a window."""
        table, sfreq = trials.table, trials.sfreq
        shift = table["start"].to_numpy() / sfreq - table["onset_s"].to_numpy()
        begin_s = shift if self.start_s is None else np.full(len(table), self.start_s)
        end_s = shift + trials.n_times / sfreq
        if self.stop_s is not None:
            end_s = np.full(len(table), self.stop_s)
        start = np.round((table["onset_s"].to_numpy() + begin_s) * sfreq).astype(int)
        return start, round(float(np.median(end_s - begin_s)) * sfreq)

    def build(self, source: CovarianceSource, trials: Trials) -> TangentSpaceModel:
        """Compute the covariances of all trials, once for all folds.

        Raises
        ------
        ProtocolError
            If recordings share no channel, or a window runs beyond its recording.
        """
        start, n_times = self.window(trials)
        windows = trials.table[["trial_id", "recording_id"]].assign(start=start)
        found = covariances(
            source, windows, n_times, bands_hz=self.bands_hz, where=f"{self.name} baseline"
        )
        if self.align == "recentred":
            found = recentre(found, trials.persons)
        return TangentSpaceModel(self, found)


class TangentSpaceModel:
    """Covariances of all trials, and what to fit on them."""

    adaptation = "none"

    def __init__(self, config: TangentSpaceConfig, found: np.ndarray):
        self.config = config
        self.covariances = found
        self.transductive = config.align == "recentred"
        self.name = config.key[0]

    def fit_predict(self, fold: Fold, seed: int) -> Prediction:
        """Learn and predict; nothing is drawn at random."""
        known = fold.taught
        space = TangentSpace(metric="riemann")
        model = LogisticRegression(C=self.config.regularisation, max_iter=2000)
        with one_thread():
            model.fit(space.fit_transform(self.covariances[known]), fold.y[known])
            tested = space.transform(self.covariances[fold.test])
            return Prediction(model.predict_proba(tested), len(known))

"""Fit every model on every fold, then read the labels of the test part, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from neurofm.errors import ProtocolError
from neurofm.finetune.metrics import score
from neurofm.finetune.models import HIDDEN, Fold, Model, Prediction
from neurofm.finetune.protocols import Folds
from neurofm.finetune.trials import Trials

RESULT_COLUMNS = (
    "dataset", "task", "protocol", "fold", "subject", "session", "model", "adaptation", "seed",
    "n_train", "n_test", "metric", "value",
)  # fmt: skip


@dataclass(eq=False)
class Tally:
    """Everything that was predicted and scored, row by row.

    Attributes
    ----------
    task : str
        The task's name.
    trials : Trials
        The truth.
    """

    task: str
    trials: Trials
    _results: list[dict[str, Any]] = field(default_factory=list)
    _missing: list[dict[str, Any]] = field(default_factory=list)
    _predictions: list[pd.DataFrame] = field(default_factory=list)
    _curves: list[pd.DataFrame] = field(default_factory=list)

    def add(self, model: Model, fold: Fold, seed: int, prediction: Prediction) -> None:
        """Score a prediction; only here are labels of test trials read.

        Raises
        ------
        ProtocolError
            If there is not one probability a class for each trial of the test.
        """
        probabilities = prediction.probabilities
        expected = (len(fold.test), fold.n_classes)
        if probabilities.shape != expected:
            raise ProtocolError(
                f"{model.name}, fold {fold.name!r}: probabilities have shape "
                f"{probabilities.shape}, expected {expected}"
            )
        tested = self.trials.table.iloc[fold.test]
        sessions = tested["session"].unique()
        key: dict[str, Any] = {
            "protocol": fold.protocol,
            "fold": fold.name,
            "model": model.name,
            "adaptation": model.adaptation,
            "seed": seed,
        }
        row = {
            "dataset": tested["dataset"].iloc[0],
            "task": self.task,
            **key,
            "subject": tested["subject"].iloc[0],
            "session": sessions[0] if len(sessions) == 1 else "",
            "n_train": prediction.n_train,
            "n_test": len(fold.test),
        }
        scores = score(self.trials.y[fold.test], probabilities)
        self._results += [{**row, "metric": m, "value": v} for m, v in scores.values.items()]
        self._missing += [{**row, "metric": m, "reason": r} for m, r in scores.missing.items()]
        self._predictions.append(self._table_of(tested, key, probabilities))
        if prediction.curves is not None:
            self._curves.append(prediction.curves.assign(**key))

    def _table_of(
        self, tested: pd.DataFrame, key: dict[str, Any], probabilities: np.ndarray
    ) -> pd.DataFrame:
        classes = np.array(self.trials.classes)
        table = pd.DataFrame({"trial_id": tested["trial_id"].to_numpy(), **key})
        table["y"] = classes[tested["y"].to_numpy()]
        table["predicted"] = classes[probabilities.argmax(axis=1)]
        for code, name in enumerate(classes):
            table[f"p_{name}"] = probabilities[:, code]
        return table

    @property
    def results(self) -> pd.DataFrame:
        """One row a metric, fold, seed and model: `RESULT_COLUMNS`."""
        return pd.DataFrame(self._results, columns=list(RESULT_COLUMNS))

    @property
    def missing(self) -> pd.DataFrame:
        """As `results`, with the reason why there is no value."""
        return pd.DataFrame(self._missing, columns=[*RESULT_COLUMNS[:-1], "reason"])

    @property
    def predictions(self) -> pd.DataFrame:
        """One row a test trial, fold, seed and model."""
        return pd.concat(self._predictions, ignore_index=True)

    @property
    def curves(self) -> pd.DataFrame:
        """One row an epoch, where training has epochs."""
        return pd.concat(self._curves, ignore_index=True) if self._curves else pd.DataFrame()


def folds_of(folds: Folds, trials: Trials) -> Iterator[Fold]:
    """Turn a table of roles into folds in which labels of test trials are hidden."""
    place = pd.Series(np.arange(len(trials)), index=trials.table["trial_id"])
    for name, rows in folds.table.groupby("fold", sort=False):
        at = {
            role: np.sort(place.loc[part["trial_id"]].to_numpy())
            for role, part in rows.groupby("role")
        }
        none = np.empty(0, int)
        train, validation = at["train"], at.get("validation", none)
        y = np.full(len(trials), HIDDEN, np.int64)
        shown = np.concatenate([train, validation])
        y[shown] = trials.y[shown]
        yield Fold(
            protocol=folds.name,
            name=str(name),
            train=train,
            validation=validation,
            test=at["test"],
            y=y,
            persons=trials.persons,
            n_classes=len(trials.classes),
        )


def score_model(
    model: Model,
    protocols: Sequence[Folds],
    seeds: Sequence[int],
    tally: Tally,
    advance: Callable[[int], None],
) -> None:
    """Fit and score a model on all folds of all protocols."""
    for folds in protocols:
        for fold in folds_of(folds, tally.trials):
            for seed in seeds:
                tally.add(model, fold, seed, model.fit_predict(fold, seed))
                advance(1)

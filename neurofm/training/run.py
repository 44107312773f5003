"""A training run in its folder: where it starts, what is trained, what it tells of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from neurofm.config import Config
from neurofm.errors import TrainingError
from neurofm.signals import Batch
from neurofm.training.fit import fit
from neurofm.training.metrics_csv import MetricsCsv, read_metrics
from neurofm.training.module import TrainModule
from neurofm.training.resume import restore_objective, resume_point
from neurofm.training.run_config import RunConfig
from neurofm.training.run_folder import write_provenance

_LOSSES_TOLD = 200


class TrainingRun:
    """A run that begins or goes on: its folder is claimed, its config and versions are written.

    Parameters
    ----------
    config : RunConfig
        Of the run.
    identity : dict
        Digests of ``config`` and ``data``; a snapshot to continue from must share them.

    Attributes
    ----------
    folder : Path
        Of the run.
    first_step : int
        The step it starts at; `config.steps` where it is finished.
    snapshot : Path or None
        What it continues from.
    environment : dict
        Versions, git state and seed.

    Raises
    ------
    TrainingError
        If the folder holds another run, or one that must not be continued.
    """

    def __init__(self, config: RunConfig, identity: dict[str, str]):
        self.config, self.identity = config, identity
        self.folder = Path(config.folder)
        self.first_step, self.snapshot = resume_point(config, self.folder, identity, config.resume)
        self.environment = write_provenance(self.folder, config, seed=config.seed)
        self._metrics = MetricsCsv(self.folder / "metrics.csv", first_step=self.first_step)

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.first_step >= self.config.steps

    def train(
        self,
        objective: nn.Module,
        batches: Iterable[Batch],
        bar: AbstractContextManager[Callable[[int], None]],
    ) -> None:
        """Take the steps that are left, or restore the weights where none is.

        Parameters
        ----------
        objective : Module
            Maps a batch and a generator to a `Loss`.
        batches : iterable of Batch
            Of these steps.
        bar : context manager
            Yields what advances a bar.
        """
        if self.finished and self.snapshot is not None:
            restore_objective(objective, self.snapshot)
            return
        module = TrainModule(
            objective,
            self.config.optim,
            total_steps=self.config.steps,
            seed=self.config.seed,
            metrics=self._metrics,
            identity=self.identity,
        )
        fit(self.config, module, batches, snapshot=self.snapshot, bar=bar)

    def metrics(self) -> list[dict[str, float]]:
        """Return one row a step.

        Raises
        ------
        TrainingError
            If there is none: the file was lost.
        """
        path = self._metrics.path
        rows = read_metrics(path) if path.exists() else []
        if not rows:
            raise TrainingError(
                f"{path}: the metrics of a finished run are gone",
                hint=f"delete {self.folder} and start the run again",
            )
        return rows

    def told(self, objective: Config) -> dict[str, Any]:
        """Return what is saved with the weights of how they were trained."""
        rows = self.metrics()
        return {
            "objective": objective.to_dict(),
            "steps": self.config.steps,
            "seed": self.config.seed,
            "loss": [
                [int(row["step"]), row["loss"]]
                for row in rows[:: max(1, len(rows) // _LOSSES_TOLD)]
            ],
        }


@dataclass(frozen=True)
class RunResult:
    """Where a finished run is, and how it went.

    Attributes
    ----------
    folder : Path
        Of the run.
    first_step : int
        Where it was resumed; 0 if it was not.
    metrics : list of dict
        One row a step.
    """

    folder: Path
    first_step: int
    metrics: list[dict[str, float]]

    def last(self) -> dict[str, float]:
        """Return the mean of every metric over the last twentieth of the steps."""
        tail = self.metrics[-max(1, len(self.metrics) // 20) :]
        return {key: sum(row[key] for row in tail) / len(tail) for key in tail[0]}

    def losses(self) -> str:
        """Return how many steps there were, and how far the loss came."""
        resumed = f", resumed at {self.first_step}" if self.first_step else ""
        return (
            f"{len(self.metrics)} steps{resumed}: "
            f"loss {self.metrics[0]['loss']:.3f} -> {self.last()['loss']:.3f}"
        )

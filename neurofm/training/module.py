"""The training step of every objective, for Lightning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from neurofm.errors import TrainingError
from neurofm.signals import Batch
from neurofm.training.metrics_csv import MetricsCsv
from neurofm.training.optim import OptimConfig
from neurofm.training.seeding import derived_seed, step_generator


@dataclass(frozen=True, slots=True)
class Loss:
    """A scalar to minimise, and the parts worth plotting."""

    total: Tensor
    terms: dict[str, Tensor]


class Stream:
    """Batches without a stated length.

    Lightning ends an epoch after as many batches as a loader says it has, and starts the loader
    again: resumed in the middle, a run would see its first samples twice.

    Parameters
    ----------
    batches : iterable of Batch
        The steps still to come.
    """

    def __init__(self, batches: Iterable[Batch]):
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class TrainModule(lightning.LightningModule):
    """One objective, one optimiser; every random number is a function of (seed, step).

    Parameters
    ----------
    objective : Module
        Maps a batch and a generator to the `Loss` that is minimised.
    optim : OptimConfig
        How.
    total_steps : int
        Length of the schedule.
    seed : int
        The run's seed.
    metrics : MetricsCsv
        Where every step's loss goes.
    identity : dict
        Plain values that a snapshot must share with the run that continues it.
    """

    def __init__(
        self,
        objective: nn.Module,
        optim: OptimConfig,
        *,
        total_steps: int,
        seed: int,
        metrics: MetricsCsv,
        identity: dict[str, str],
    ):
        super().__init__()
        self.objective = objective
        self.optim = optim
        self.total_steps = total_steps
        self.seed = seed
        self.metrics = metrics
        self.identity = identity

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the loss of one batch; None where nothing has a gradient.

        Raises
        ------
        TrainingError
            If it is not a number, by the names of the recordings.
        """
        step = self.global_step
        torch.manual_seed(derived_seed(self.seed, "dropout", step))
        loss = self.objective(batch, step_generator(self.seed, step, "mask"))
        if not torch.isfinite(loss.total):
            raise TrainingError(
                f"step {step}: the loss is {loss.total.item()} on recordings "
                f"{', '.join(sorted(set(batch.recording_ids)))}",
                hint="lower optim.lr, or look at these recordings with `neurofm inspect`",
            )
        values = {"loss": loss.total.detach(), **loss.terms}
        self.log_dict(values, batch_size=len(batch))
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.metrics.write(step, {**{k: float(v) for k, v in values.items()}, "lr": rate})
        return loss.total if loss.total.requires_grad else None

    def configure_optimizers(self) -> Any:
        """Return optimiser and schedule."""
        optimiser, schedule = self.optim.build(self, self.total_steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a frozen batch, which Lightning's own walk cannot."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember what this run is."""
        checkpoint["neurofm"] = self.identity

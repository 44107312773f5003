"""Run an objective over batches, with snapshots and logs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import lightning
from lightning.pytorch.loggers import TensorBoardLogger

from neurofm.signals import Batch
from neurofm.training.bar import StepBar
from neurofm.training.module import Stream, TrainModule
from neurofm.training.snapshots import SnapshotEvery


def fit(  # noqa: PLR0913 - what is trained, on what, for how long, and where it is kept
    module: TrainModule,
    batches: Iterable[Batch],
    folder: Path,
    *,
    snapshot_every: int,
    snapshot: Path | None = None,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    bar: AbstractContextManager[Callable[[int], None]],
) -> None:
    """Train to the last step of the module's schedule.

    Parameters
    ----------
    module : TrainModule
        What is trained.
    batches : iterable of Batch
        The steps still to come.
    folder : Path
        Of the run.
    snapshot_every : int
        Steps between snapshots.
    snapshot : Path, optional
        Where to continue from.
    accelerator, precision : str
        As in Lightning.
    bar : context manager
        Yields what advances a bar.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its greetings say nothing
    trainer = lightning.Trainer(
        max_steps=module.total_steps,
        max_epochs=-1,
        accelerator=accelerator,
        devices=1,
        precision=precision,
        gradient_clip_val=module.optim.clip_norm,
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        callbacks=[SnapshotEvery(folder / "snapshots", every=snapshot_every), StepBar(bar)],
        log_every_n_steps=min(10, module.total_steps),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        # Lightning's own business with torch, of no use to whoever trains
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
        # a frozen tokenizer is in evaluation mode on purpose
        warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode.*")
        # what is counted and not descended to (quantiles) has no gradient
        warnings.filterwarnings("ignore", message="`training_step` returned `None`.*")
        warnings.filterwarnings("ignore", message="`parameters` is an empty generator.*")
        trainer.fit(module, Stream(batches), ckpt_path=snapshot, weights_only=True)

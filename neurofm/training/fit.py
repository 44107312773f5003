"""Run an objective over batches, with snapshots and logs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import lightning
from lightning.pytorch.loggers import TensorBoardLogger

from neurofm.signals import Batch
from neurofm.training.bar import StepBar
from neurofm.training.module import Stream, TrainModule
from neurofm.training.run_config import RunConfig
from neurofm.training.snapshots import SnapshotEvery


def fit(
    config: RunConfig,
    module: TrainModule,
    batches: Iterable[Batch],
    *,
    snapshot: Path | None = None,
    bar: AbstractContextManager[Callable[[int], None]],
) -> None:
    """Train to the last step of a run.

    Parameters
    ----------
    config : RunConfig
        How long, on what, and where snapshots and logs go.
    module : TrainModule
        What is trained.
    batches : iterable of Batch
        The steps still to come.
    snapshot : Path, optional
        Where to continue from.
    bar : context manager
        Yields what advances a bar.
    """
    folder = Path(config.folder)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its greetings say nothing
    trainer = lightning.Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        accelerator=config.accelerator,
        devices=1,
        precision=config.precision,
        gradient_clip_val=config.optim.clip_norm,
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        callbacks=[SnapshotEvery(folder / "snapshots", every=config.snapshot_every), StepBar(bar)],
        log_every_n_steps=min(10, config.steps),
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

"""Training snapshots: written whole or not at all, found again, and never unpickled."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import lightning
import torch

from neurofm.errors import TrainingError

_NAME = re.compile(r"^step-(\d{9})\.ckpt$")


class SnapshotEvery(lightning.Callback):
    """Write the full training state every `every` steps and at the end.

    Parameters
    ----------
    folder : Path
        Where ``step-000001000.ckpt`` and the like go.
    every : int
        Steps between snapshots.
    keep : int
        How many of the newest snapshots stay.
    """

    def __init__(self, folder: Path, *, every: int, keep: int = 2):
        self.folder = folder
        self.every = every
        self.keep = keep

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any
    ) -> None:
        """Write a snapshot where one is due."""
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps:
            self._write(trainer, step)

    def _write(self, trainer: lightning.Trainer, step: int) -> None:
        final = self.folder / f"step-{step:09d}.ckpt"
        if final.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{final.name}.part"
        trainer.save_checkpoint(temporary)
        if not trainer.is_global_zero:
            return
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(final)
        for old in snapshots(self.folder)[: -self.keep]:
            old.unlink()


def snapshots(folder: Path) -> list[Path]:
    """Complete snapshots of a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.match(path.name))


def read_snapshot(path: Path) -> dict[str, Any]:
    """Load a snapshot without running any code that may be in it.

    Raises
    ------
    TrainingError
        If the file is damaged or holds more than plain values and tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path}: the snapshot cannot be read: {str(error).splitlines()[0]}",
            hint="delete it; the run continues from the one before",
        ) from error

"""The config that every training run shares."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neurofm.config import Config
from neurofm.training.optim import OptimConfig


class RunConfig(Config):
    """What every run that trains on stores is told.

    Parameters
    ----------
    stores : tuple of str
        Paths of the stores. They must have one contract.
    folder : str
        Where snapshots, logs and the result go.
    optim : OptimConfig
        How weights follow gradients.
    steps : int
        Optimiser steps.
    snapshot_every : int
        Steps between training snapshots.
    seed : int
        Decides initial weights, the order of windows and everything that is drawn.
    resume : "auto" or "never"
        ``auto`` continues at the exact next sample if the folder holds a snapshot.
    accelerator, precision : str
        As in Lightning.
    threads : int, optional
        Processor threads of torch; by default as many as torch finds. One is as fast as two
        where the model is small.
    """

    stores: tuple[str, ...] = Field(min_length=1)
    folder: str
    optim: OptimConfig = Field(default_factory=OptimConfig)
    steps: int = Field(gt=0)
    snapshot_every: int = Field(default=200, gt=0)
    seed: int = 0
    resume: Literal["auto", "never"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int | None = Field(default=None, ge=1)

    def deciding(self) -> dict[str, Any]:
        """Return the values that decide the weights: not where they go, nor how fast."""
        spared = {"stores", "folder", "snapshot_every", "resume", "accelerator", "threads"}
        return {key: value for key, value in self.to_dict().items() if key not in spared}

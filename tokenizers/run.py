"""Train a tokenizer on stores, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from pydantic import Field

from neurofm.config import Config, digest_of
from neurofm.contract import SignalContract
from neurofm.data.loader import Loader, training_loader
from neurofm.data.plan import LoaderConfig
from neurofm.data.several import SeveralReaders, digest_of_recordings, subjects_seen
from neurofm.errors import ConfigError, TrainingError
from neurofm.report.progress import progress
from neurofm.signals import Batch
from neurofm.store.reader import open_store
from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.quality import QualityConfig, measure
from neurofm.tokenizers.reconstruction import ReconstructionConfig
from neurofm.tokenizers.report import make_page
from neurofm.tokenizers.saved import save_tokenizer
from neurofm.tokenizers.scores import Quality
from neurofm.tokenizers.trainable import TrainableConfig
from neurofm.training.fit import fit
from neurofm.training.metrics_csv import MetricsCsv, read_metrics
from neurofm.training.module import TrainModule
from neurofm.training.optim import OptimConfig
from neurofm.training.resume import restore_objective, resume_point
from neurofm.training.run_folder import write_provenance
from neurofm.training.seeding import derived_seed
from neurofm.training.threads import torch_threads


class TokenizeConfig(Config):
    """A run that trains a tokenizer.

    Parameters
    ----------
    stores : tuple of str
        Paths of the stores. They must have one contract.
    folder : str
        Where snapshots, logs, the tokenizer and the report go.
    held_out : tuple of str
        Names of recordings, or patterns such as ``*_sub-03_*``, that are not trained on: the
        report is about them.
    tokenizer, objective, loader, optim, quality
        The parts.
    steps : int
        Optimiser steps.
    snapshot_every : int
        Steps between training snapshots.
    seed : int
        Decides initial weights, order of windows, and what is withheld.
    resume : "auto" or "never"
        ``auto`` continues at the exact next sample if the folder holds a snapshot.
    accelerator, precision : str
        As in Lightning.
    threads : int, optional
        Processor threads of torch; by default as many as torch finds.
    """

    stores: tuple[str, ...] = Field(min_length=1)
    folder: str
    held_out: tuple[str, ...] = ()
    tokenizer: TrainableConfig = Field(default_factory=BrainTokenizerConfig)
    objective: ReconstructionConfig = Field(default_factory=ReconstructionConfig)
    loader: LoaderConfig = Field(default_factory=lambda: LoaderConfig(token_budget=512))
    optim: OptimConfig = Field(default_factory=OptimConfig)
    quality: QualityConfig = Field(default_factory=QualityConfig)
    steps: int = Field(gt=0)
    snapshot_every: int = Field(default=200, gt=0)
    seed: int = 0
    resume: Literal["auto", "never"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int | None = Field(default=None, ge=1)


CONFIG = TokenizeConfig


@dataclass(frozen=True)
class TokenizeResult:
    """Where a finished run is, and how it went."""

    folder: Path
    tokenizer: Path
    first_step: int
    metrics: list[dict[str, float]]
    quality: Quality

    def summary(self) -> str:
        """Return what the command prints."""
        tail = self.metrics[-max(1, len(self.metrics) // 20) :]
        loss = sum(row["loss"] for row in tail) / len(tail)
        resumed = f", resumed at {self.first_step}" if self.first_step else ""
        return (
            f"trained {len(self.metrics)} steps{resumed}: loss {self.metrics[0]['loss']:.3f} -> "
            f"{loss:.3f}\n{self.quality.summary()}\n"
            f"tokenizer: {self.tokenizer}\nreport: {self.folder / 'report.html'}"
        )


def plan(config: TokenizeConfig) -> str:
    """Return what a run would do, without training anything."""
    data = _Data(config)
    parts = data.tokenizer.build_parts(data.contract)
    parameters = sum(p.numel() for p in parts.parameters())
    hours = float(data.trained["duration_s"].sum()) / 3600
    return (
        f"{len(data.trained)} recordings, {hours:.1f} h, {data.plan.n_windows} windows of "
        f"{data.contract.window_s:g} s in {data.plan.steps_per_epoch} steps an epoch; "
        f"{len(data.held)} recordings held out\n"
        f"{config.steps} steps = {config.steps / data.plan.steps_per_epoch:.1f} epochs; "
        f"tokenizer of {parameters:,} parameters\nto {config.folder}"
    )


def run(config: TokenizeConfig) -> TokenizeResult:
    """Train, or continue, or return what is finished.

    Raises
    ------
    TrainingError
        If the folder holds another run, the stores changed since its snapshot, or the loss
        is not a number.
    ContractError
        If the stores have different contracts.
    ConfigError
        If a pattern of `held_out` holds nothing out, all of them everything, or one a subject
        that the tokenizer would have to have been trained on.
    """
    folder = Path(config.folder)
    data = _Data(config)
    first_step, snapshot = resume_point(config, folder, data.identity, config.resume)
    environment = write_provenance(folder, config, seed=config.seed)
    metrics = MetricsCsv(folder / "metrics.csv", first_step=first_step)
    torch.manual_seed(derived_seed(config.seed, "init"))
    objective = config.objective.build(data.tokenizer.build_parts(data.contract))
    objective.parts.begin(config.steps)
    with torch_threads(config.threads):
        if first_step < config.steps:
            module = TrainModule(
                objective,
                config.optim,
                total_steps=config.steps,
                seed=config.seed,
                metrics=metrics,
                identity=data.identity,
            )
            fit(
                module,
                data.loader(config, first_step, config.steps),
                folder,
                snapshot_every=config.snapshot_every,
                snapshot=snapshot,
                accelerator=config.accelerator,
                precision=config.precision,
                bar=progress("tokenize", config.steps),
            )
        elif snapshot is not None:
            restore_objective(objective, snapshot)
        parts = objective.parts.cpu().eval()
        parts.finish(data.epoch(config))
        rows = read_metrics(folder / "metrics.csv")
        _export(config, folder, parts, data, rows)
        shown = data.held if len(data.held) else data.trained
        quality = measure(config.quality, parts, data.stores, shown, seed=config.seed)
    quality.write(folder)
    sfreq, held_out = data.contract.sfreq, len(data.held) > 0
    page = make_page(quality, rows, environment, sfreq=sfreq, held_out=held_out)
    page.write(folder / "report.html")
    return TokenizeResult(folder, folder / "tokenizer", first_step, rows, quality)


class _Data:
    """The stores of a run, what of them is trained on, and in which order."""

    def __init__(self, config: TokenizeConfig):
        self.stores = {path: open_store(path) for path in config.stores}
        (first, store), *others = self.stores.items()
        for path, other in others:
            store.contract.require_same(other.contract, first, path)
        self.contract: SignalContract = store.contract
        self.reader = SeveralReaders(self.stores)
        self.trained, self.held = _split(self.reader.index, config.held_out)
        self.tokenizer: TrainableConfig = config.tokenizer.fitted(
            self.reader, self.trained["recording_id"]
        )
        self.tokenizer.fitted(self.reader, self.held["recording_id"])  # or it could not be measured
        self.plan = config.loader.plan(
            self.trained,
            n_times=self.contract.n_times,
            patches=self.contract.n_times // config.tokenizer.patch_len(self.contract),
            seed=config.seed,
        )
        self.identity = {
            "config": _run_digest(config),
            "data": digest_of_recordings(self.reader.index),
        }

    def epoch(self, config: TokenizeConfig) -> Iterator[Batch]:
        """Return what was trained on once, or less where the run was shorter."""
        last_step = min(config.steps, self.plan.steps_per_epoch)
        return (batch.standardised() for batch in self.loader(config, 0, last_step))

    def loader(self, config: TokenizeConfig, first_step: int, last_step: int) -> Loader:
        """Return the batches of some steps, the last one excluded."""
        return training_loader(
            config.loader,
            self.reader,
            self.plan,
            sfreq=self.contract.sfreq,
            first_step=first_step,
            last_step=last_step,
        )


def _split(index: pd.DataFrame, held_out: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that are trained on, and those that are held out."""
    names = index["recording_id"].tolist()
    for pattern in held_out:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"held_out: no recording is called {pattern!r}",
                hint=f"there are {len(names)}, such as {', '.join(sorted(names)[:3])}",
            )
    held = index["recording_id"].map(lambda n: any(fnmatchcase(n, p) for p in held_out))
    held = held.astype(bool)
    if held.all():
        raise ConfigError("held_out: every recording is held out, none is left to train on")
    return index[~held], index[held]


def _run_digest(config: TokenizeConfig) -> str:
    """Digest of all that decides the weights: not where they go, how fast, or what is shown."""
    values = config.to_dict()
    for key in (
        "folder", "resume", "snapshot_every", "stores", "accelerator", "threads", "quality",
    ):  # fmt: skip
        values.pop(key)
    values["loader"] = config.loader.order()
    return digest_of(values)


def _export(
    config: TokenizeConfig,
    folder: Path,
    parts: Coder,
    data: _Data,
    rows: list[dict[str, Any]],
) -> None:
    if not rows:
        raise TrainingError(f"{folder}: a finished run without metrics", hint="start it again")
    stride = max(1, len(rows) // 200)
    save_tokenizer(
        folder / "tokenizer",
        parts,
        data.tokenizer,
        contract=data.contract,
        provenance={
            "subjects": subjects_seen(data.trained),
            "recordings": sorted(data.trained["recording_id"]),
            "hours": round(float(data.trained["duration_s"].sum()) / 3600, 3),
        },
        training={
            "objective": config.objective.to_dict(),
            "steps": config.steps,
            "seed": config.seed,
            "loss": [[int(r["step"]), r["loss"]] for r in rows[::stride]],
        },
    )

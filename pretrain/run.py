"""Pretrain an encoder on stores, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from neurofm import checkpoint
from neurofm.config import Config, digest_of
from neurofm.contract import SignalContract
from neurofm.data.codes import ReadersWithCodes
from neurofm.data.loader import training_loader
from neurofm.data.plan import LoaderConfig
from neurofm.data.several import SeveralReaders, digest_of_recordings, subjects_seen
from neurofm.encoder import Encoder, EncoderConfig
from neurofm.errors import ConfigError, TrainingError
from neurofm.pretrain.code_prediction import CodePredictionConfig
from neurofm.pretrain.masked_reconstruction import MaskedReconstructionConfig
from neurofm.report.progress import progress
from neurofm.store.reader import Store, open_store
from neurofm.tokenizers.codes import stored_codes
from neurofm.tokenizers.saved import SavedTokenizer, load_tokenizer, put_into
from neurofm.tokenizers.slot import CodedTokenizer
from neurofm.tokenizers.trainable import is_trainable
from neurofm.training.fit import fit
from neurofm.training.metrics_csv import MetricsCsv, read_metrics
from neurofm.training.module import TrainModule
from neurofm.training.optim import OptimConfig
from neurofm.training.resume import restore_objective, resume_point
from neurofm.training.run_folder import write_provenance
from neurofm.training.seeding import derived_seed
from neurofm.training.threads import torch_threads

ObjectiveConfig = Annotated[
    MaskedReconstructionConfig | CodePredictionConfig, Field(discriminator="name")
]


class PretrainConfig(Config):
    """A pretraining run.

    Parameters
    ----------
    stores : tuple of str
        Paths of the stores. They must have one contract.
    folder : str
        Where snapshots, logs and the checkpoint go.
    tokenizer_from : str, optional
        A folder that ``neurofm tokenize`` wrote: the encoder's tokenizer, which must be of the
        same architecture, starts from its weights, or keeps them where it is frozen.
    codes : "compute" or "stored"
        ``stored`` reads the codes of `tokenizer_from`, which must be frozen, from the stores, where
        ``neurofm codes`` has put them, instead of computing them for every batch: the same run,
        faster. Windows must be cut on the ``grid``.
    encoder, objective, loader, optim
        The parts.
    steps : int
        Optimiser steps.
    snapshot_every : int
        Steps between training snapshots.
    seed : int
        Decides initial weights, order of windows, masks and dropout.
    resume : "auto" or "never"
        ``auto`` continues at the exact next sample if the folder holds a snapshot.
    accelerator, precision : str
        As in Lightning.
    threads : int, optional
        Processor threads of torch; by default as many as torch finds. One is as fast as two
        where the encoder is small.
    """

    stores: tuple[str, ...] = Field(min_length=1)
    folder: str
    tokenizer_from: str | None = None
    codes: Literal["compute", "stored"] = "compute"
    encoder: EncoderConfig
    objective: ObjectiveConfig = Field(default_factory=MaskedReconstructionConfig)
    loader: LoaderConfig = Field(default_factory=LoaderConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    steps: int = Field(gt=0)
    snapshot_every: int = Field(default=200, gt=0)
    seed: int = 0
    resume: Literal["auto", "never"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int | None = Field(default=None, ge=1)


CONFIG = PretrainConfig
_GOODNESS = {
    "signal_explained": "hidden signal explained",
    "accuracy": "hidden codes predicted",
}


@dataclass(frozen=True)
class PretrainResult:
    """Where a finished run is, and how it went."""

    folder: Path
    checkpoint: Path
    first_step: int
    metrics: list[dict[str, float]]

    def summary(self) -> str:
        """Return what the command prints."""
        tail = self.metrics[-max(1, len(self.metrics) // 20) :]
        last = {key: sum(row[key] for row in tail) / len(tail) for key in tail[0]}
        resumed = f", resumed at {self.first_step}" if self.first_step else ""
        good = ", ".join(
            f"{what} {last[key]:.1%}" for key, what in _GOODNESS.items() if key in last
        )
        return (
            f"pretrained {len(self.metrics)} steps{resumed}: loss {self.metrics[0]['loss']:.3f} -> "
            f"{last['loss']:.3f}, {good}\n"
            f"checkpoint: {self.checkpoint}"
        )


def plan(config: PretrainConfig) -> str:
    """Return what a run would do, without training anything."""
    data = _Data(config)
    encoder = data.encoder.build(data.contract)
    parameters = sum(p.numel() for p in encoder.parameters())
    hours = float(data.reader.index["duration_s"].sum()) / 3600
    return (
        f"{len(data.reader.index)} recordings, {hours:.1f} h, {data.plan.n_windows} windows of "
        f"{data.contract.window_s:g} s in {data.plan.steps_per_epoch} steps an epoch\n"
        f"{config.steps} steps = {config.steps / data.plan.steps_per_epoch:.1f} epochs; "
        f"encoder of {parameters:,} parameters\n"
        f"to {config.folder}"
    )


def run(config: PretrainConfig) -> PretrainResult:
    """Train, or continue, or return what is finished.

    Raises
    ------
    TrainingError
        If the folder holds another run, the stores changed since its snapshot, or the loss
        is not a number.
    ContractError
        If the stores have different contracts.
    """
    folder = Path(config.folder)
    data = _Data(config)
    first_step, snapshot = resume_point(config, folder, data.identity, config.resume)
    write_provenance(folder, config, seed=config.seed)
    metrics = MetricsCsv(folder / "metrics.csv", first_step=first_step)
    if first_step < config.steps:
        torch.manual_seed(derived_seed(config.seed, "init"))
        objective = config.objective.build(_encoder(config, data), data.contract)
        module = TrainModule(
            objective,
            config.optim,
            total_steps=config.steps,
            seed=config.seed,
            metrics=metrics,
            identity=data.identity,
        )
        with torch_threads(config.threads):
            _fit(config, module, data, first_step, snapshot)
        _export(config, folder, objective.encoder, data)
    elif not (folder / "checkpoint").exists():
        _export(config, folder, _encoder_of(config, data, snapshot), data)
    rows = read_metrics(folder / "metrics.csv")
    return PretrainResult(folder, folder / "checkpoint", first_step, rows)


class _Data:
    """The stores of a run, seen as one, and the order their windows are drawn in."""

    def __init__(self, config: PretrainConfig):
        stores = {path: open_store(path) for path in config.stores}
        (first, store), *others = stores.items()
        for path, other in others:
            store.contract.require_same(other.contract, first, path)
        self.contract: SignalContract = store.contract
        where = config.tokenizer_from
        self.tokenizer = None if where is None else load_tokenizer(where)
        self.reader = _reader(config, stores, self.tokenizer)
        settings = config.encoder.tokenizer.fitted(
            self.reader,
            self.reader.index["recording_id"],
            None if self.tokenizer is None else self.tokenizer.config,
        )
        self.encoder = config.encoder.model_copy(update={"tokenizer": settings})
        tokenizer = settings.build(self.contract, config.encoder.width)
        self.plan = config.loader.plan(
            self.reader.index,
            n_times=self.contract.n_times,
            patches=tokenizer.n_patches(self.contract.n_times),
            seed=config.seed,
        )
        self.identity = {
            "config": _run_digest(config, self.tokenizer),
            "data": digest_of_recordings(self.reader.index),
        }


def _reader(
    config: PretrainConfig, stores: dict[str, Store], tokenizer: SavedTokenizer | None
) -> SeveralReaders:
    """Return the stores as one, with the codes of their windows where they are to be read."""
    if config.codes == "compute":
        return SeveralReaders(stores)
    if tokenizer is None or not getattr(config.encoder.tokenizer, "frozen", True):
        raise ConfigError(
            "codes: stored reads what a frozen tokenizer has made: tokenizer_from is "
            f"{config.tokenizer_from}, encoder.tokenizer is {config.encoder.tokenizer.name}",
            hint="give tokenizer_from and set encoder.tokenizer.frozen, or set codes: compute",
        )
    if config.loader.cut != "grid":
        raise ConfigError(
            f"codes: stored knows windows on the grid, and loader.cut is {config.loader.cut}",
            hint="set loader.cut to grid, or codes to compute",
        )
    return ReadersWithCodes(
        stores, {path: stored_codes(store, tokenizer) for path, store in stores.items()}
    )


def _encoder(config: PretrainConfig, data: _Data) -> Encoder:
    """Build the encoder, and fill its tokenizer where a trained one is given."""
    encoder = data.encoder.build(data.contract)
    settings, slot = data.encoder.tokenizer, encoder.tokenizer
    if data.tokenizer is not None:
        if not (isinstance(slot, CodedTokenizer) and is_trainable(settings)):
            raise ConfigError(
                f"tokenizer_from is given, but the encoder's tokenizer is {settings.name}",
                hint=f"set encoder.tokenizer.name to {data.tokenizer.config.name}, with the values "
                "it was trained with",
            )
        put_into(slot, settings, data.contract, data.tokenizer)
    return encoder


def _run_digest(config: PretrainConfig, tokenizer: SavedTokenizer | None) -> str:
    """Digest of all that decides the weights: not where they go, nor how fast."""
    values = config.to_dict()
    values["tokenizer_from"] = tokenizer and tokenizer.digest
    for key in (
        "folder", "resume", "snapshot_every", "stores", "accelerator", "threads", "codes",
    ):  # fmt: skip
        values.pop(key)
    values["loader"] = config.loader.order()
    return digest_of(values)


def _fit(
    config: PretrainConfig,
    module: TrainModule,
    data: _Data,
    first_step: int,
    snapshot: Path | None,
) -> None:
    loader = training_loader(
        config.loader,
        data.reader,
        data.plan,
        sfreq=data.contract.sfreq,
        first_step=first_step,
        last_step=config.steps,
    )
    fit(
        module,
        loader,
        Path(config.folder),
        snapshot_every=config.snapshot_every,
        snapshot=snapshot,
        accelerator=config.accelerator,
        precision=config.precision,
        bar=progress("pretrain", config.steps),
    )


def _encoder_of(config: PretrainConfig, data: _Data, snapshot: Path | None) -> Any:
    """Rebuild the encoder of a finished run whose checkpoint was not written in time."""
    if snapshot is None:
        raise TrainingError("a finished run without a snapshot", hint="start it again")
    objective = config.objective.build(data.encoder.build(data.contract), data.contract)
    restore_objective(objective, snapshot)
    return objective.encoder


def _export(config: PretrainConfig, folder: Path, encoder: Any, data: _Data) -> None:
    rows = read_metrics(folder / "metrics.csv")
    stride = max(1, len(rows) // 200)
    index = data.reader.index
    checkpoint.save(
        folder / "checkpoint",
        encoder.cpu(),
        contract=data.contract,
        provenance={
            "subjects": subjects_seen(index),
            "recordings": sorted(index["recording_id"]),
            "hours": round(float(index["duration_s"].sum()) / 3600, 3),
        },
        training={
            "objective": config.objective.to_dict(),
            "steps": config.steps,
            "seed": config.seed,
            "loss": [[int(r["step"]), r["loss"]] for r in rows[::stride]],
        },
    )

"""Pretrain an encoder on stores, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from neurofm import checkpoint
from neurofm.config import digest_of
from neurofm.data.codes import ReadersWithCodes
from neurofm.data.loader import Loader, training_loader
from neurofm.data.plan import LoaderConfig
from neurofm.data.recordings import digest_of_recordings, told_of
from neurofm.data.several import SeveralReaders
from neurofm.encoder import Encoder, EncoderConfig
from neurofm.errors import ConfigError
from neurofm.pretrain.code_prediction import CodePredictionConfig
from neurofm.pretrain.masked_reconstruction import MaskedReconstructionConfig
from neurofm.report.progress import progress
from neurofm.store.reader import Store
from neurofm.store.several import open_stores
from neurofm.tokenizers.codes import stored_codes
from neurofm.tokenizers.saved import SavedTokenizer, load_tokenizer, put_into
from neurofm.tokenizers.slot import CodedTokenizer
from neurofm.tokenizers.trainable import is_trainable
from neurofm.training.processor import processor
from neurofm.training.run import RunResult, TrainingRun
from neurofm.training.run_config import RunConfig
from neurofm.training.seeding import derived_seed

ObjectiveConfig = Annotated[
    MaskedReconstructionConfig | CodePredictionConfig, Field(discriminator="name")
]


class PretrainConfig(RunConfig):
    """A pretraining run: what every run is told, and these.

    Parameters
    ----------
    tokenizer_from : str, optional
        A folder that ``neurofm tokenize`` wrote: the encoder's tokenizer, which must be of the
        same architecture, starts from its weights, or keeps them where it is frozen.
    codes : "compute" or "stored"
        ``stored`` reads the codes of `tokenizer_from`, which must be frozen, from the stores, where
        ``neurofm codes`` has put them, instead of computing them for every batch: the same run,
        faster. Windows must be cut on the ``grid``.
    encoder, objective, loader
        The parts.
    """

    tokenizer_from: str | None = None
    codes: Literal["compute", "stored"] = "compute"
    encoder: EncoderConfig
    objective: ObjectiveConfig = Field(default_factory=MaskedReconstructionConfig)
    loader: LoaderConfig = Field(default_factory=LoaderConfig)

    def identity(self, tokenizer: SavedTokenizer | None) -> str:
        """Digest of all that decides the weights; of a trained tokenizer, of what it holds."""
        values = self.deciding()
        del values["codes"]
        values["tokenizer_from"] = tokenizer and tokenizer.digest
        return digest_of(values | {"loader": self.loader.order()})


CONFIG = PretrainConfig
_GOODNESS = {
    "signal_explained": "hidden signal explained",
    "accuracy": "hidden codes predicted",
}


class PretrainResult(RunResult):
    """Where a finished run is, and how it went."""

    @property
    def checkpoint(self) -> Path:
        """What `neurofm.load` reads."""
        return self.folder / "checkpoint"

    def summary(self) -> str:
        """Return what the command prints."""
        last = self.last()
        good = ", ".join(
            f"{what} {last[key]:.1%}" for key, what in _GOODNESS.items() if key in last
        )
        return f"pretrained {self.losses()}, {good}\ncheckpoint: {self.checkpoint}"


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
    data = _Data(config)
    begun = TrainingRun(config, data.identity)
    target = begun.folder / "checkpoint"
    if not (begun.finished and target.exists()):
        torch.manual_seed(derived_seed(config.seed, "init"))
        objective = config.objective.build(_encoder(config, data), data.contract)
        with processor(config.threads):
            batches = data.loader(config, begun.first_step)
            begun.train(objective, batches, progress("pretrain", config.steps))
        checkpoint.save(
            target,
            objective.encoder.cpu(),
            contract=data.contract,
            provenance=told_of(data.reader.index),
            training=begun.told(config.objective),
        )
    return PretrainResult(begun.folder, begun.first_step, begun.metrics())


class _Data:
    """The stores of a run, seen as one, and the order their windows are drawn in."""

    def __init__(self, config: PretrainConfig):
        stores, self.contract = open_stores(config.stores)
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
            "config": config.identity(self.tokenizer),
            "data": digest_of_recordings(self.reader.index),
        }

    def loader(self, config: PretrainConfig, first_step: int) -> Loader:
        """Return the batches of the steps from one on."""
        return training_loader(
            config.loader,
            self.reader,
            self.plan,
            sfreq=self.contract.sfreq,
            first_step=first_step,
            last_step=config.steps,
        )


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

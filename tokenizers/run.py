"""Train a tokenizer on stores, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
import torch
from pydantic import Field

from neurofm.config import digest_of
from neurofm.data.loader import Loader, training_loader
from neurofm.data.plan import LoaderConfig
from neurofm.data.recordings import digest_of_recordings, told_of
from neurofm.data.several import SeveralReaders
from neurofm.errors import ConfigError
from neurofm.report.progress import progress
from neurofm.signals import Batch
from neurofm.store.several import open_stores
from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.quality import QualityConfig, measure
from neurofm.tokenizers.reconstruction import ReconstructionConfig
from neurofm.tokenizers.report import make_page
from neurofm.tokenizers.saved import save_tokenizer
from neurofm.tokenizers.scores import Quality
from neurofm.tokenizers.trainable import TrainableConfig
from neurofm.training.processor import processor
from neurofm.training.run import RunResult, TrainingRun
from neurofm.training.run_config import RunConfig
from neurofm.training.seeding import derived_seed


class TokenizeConfig(RunConfig):
    """A run that trains a tokenizer: what every run is told, and these.

    Parameters
    ----------
    held_out : tuple of str
        Names of recordings, or patterns such as ``*_sub-03_*``, that are not trained on: the
        report is about them.
    tokenizer, objective, loader, quality
        The parts.
    """

    held_out: tuple[str, ...] = ()
    tokenizer: TrainableConfig = Field(default_factory=BrainTokenizerConfig)
    objective: ReconstructionConfig = Field(default_factory=ReconstructionConfig)
    loader: LoaderConfig = Field(default_factory=lambda: LoaderConfig(token_budget=512))
    quality: QualityConfig = Field(default_factory=QualityConfig)

    def identity(self) -> str:
        """Digest of all that decides the weights, and not of what is shown of them."""
        values = self.deciding()
        del values["quality"]
        return digest_of(values | {"loader": self.loader.order()})


CONFIG = TokenizeConfig


@dataclass(frozen=True)
class TokenizeResult(RunResult):
    """Where a finished run is, how it went, and how good the tokenizer is."""

    quality: Quality

    @property
    def tokenizer(self) -> Path:
        """What `load_tokenizer` reads."""
        return self.folder / "tokenizer"

    def summary(self) -> str:
        """Return what the command prints."""
        return (
            f"trained {self.losses()}\n{self.quality.summary()}\n"
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
    data = _Data(config)
    begun = TrainingRun(config, data.identity)
    torch.manual_seed(derived_seed(config.seed, "init"))
    objective = config.objective.build(data.tokenizer.build_parts(data.contract))
    objective.parts.begin(config.steps)
    with processor(config.threads):
        batches = data.loader(config, begun.first_step, config.steps)
        begun.train(objective, batches, progress("tokenize", config.steps))
        parts = objective.parts.cpu().eval()
        parts.finish(data.epoch(config))
        save_tokenizer(
            begun.folder / "tokenizer",
            parts,
            data.tokenizer,
            contract=data.contract,
            provenance=told_of(data.trained),
            training=begun.told(config.objective),
        )
        shown = data.held if len(data.held) else data.trained
        quality = measure(config.quality, parts, data.stores, shown, seed=config.seed)
    quality.write(begun.folder)
    rows = begun.metrics()
    sfreq, held_out = data.contract.sfreq, len(data.held) > 0
    page = make_page(quality, rows, begun.environment, sfreq=sfreq, held_out=held_out)
    page.write(begun.folder / "report.html")
    return TokenizeResult(begun.folder, begun.first_step, rows, quality)


class _Data:
    """The stores of a run, what of them is trained on, and in which order."""

    def __init__(self, config: TokenizeConfig):
        self.stores, self.contract = open_stores(config.stores)
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
            "config": config.identity(),
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

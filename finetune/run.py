"""Fine-tune and score: a task, its protocols, all models, one folder of results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from neurofm import checkpoint as checkpoints
from neurofm.checkpoint import Checkpoint
from neurofm.config import load_config
from neurofm.errors import ConfigError
from neurofm.files import write_atomically
from neurofm.finetune.baselines import ChanceConfig, TangentSpaceConfig
from neurofm.finetune.cohort import Cohort
from neurofm.finetune.config import (
    EncoderModelConfig,
    FinetuneConfig,
    ModelConfig,
    PretrainedConfig,
)
from neurofm.finetune.encoders import EncoderSource
from neurofm.finetune.full import FullConfig, FullFineTuning
from neurofm.finetune.models import Model
from neurofm.finetune.probe import LinearProbe
from neurofm.finetune.protocols import Folds
from neurofm.finetune.provenance import losses, sentences, subjects_seen
from neurofm.finetune.report import Material, make_page
from neurofm.finetune.results import aligned, score_table, summarise
from neurofm.finetune.scoring import Tally, score_model
from neurofm.finetune.trials import find_trials
from neurofm.report.progress import progress
from neurofm.training.processor import processor
from neurofm.training.run_folder import write_provenance

CONFIG = FinetuneConfig


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """Where the results are, and what they say.

    Attributes
    ----------
    folder : Path
        Holds results.csv, predictions.csv, summary.json, report.html and the folds.
    results : DataFrame
        One row a metric, fold, seed and model.
    entries : list of dict
        The scores of ``summary.json``.
    notes : list of str
        Sentences on provenance and on dropped trials.
    """

    folder: Path
    results: pd.DataFrame
    entries: list[dict[str, Any]]
    notes: list[str]

    def summary(self) -> str:
        """Return what the command prints."""
        notes = [note.lstrip("! ") for note in self.notes]
        table = aligned(score_table(self.entries))
        return "\n".join([table, "", *notes, f"report: {self.folder / 'report.html'}"])


def plan(config: FinetuneConfig) -> str:
    """Return the trials of every subject and all folds; nothing is fitted, no signal read."""
    data = _Data(config)
    dropped = data.trials.dropped["reason"].value_counts()
    window_s = data.trials.n_times / data.trials.sfreq
    lines = [
        f"task {config.task.name}: {len(data.trials)} trials of {window_s:g} s",
        data.trials.counts().to_string(max_rows=40),
        *(f"{n} dropped: {reason}" for reason, n in dropped.items()),
        *(str(folds) for folds in data.protocols),
        "models: " + ", ".join("/".join(model.key) for model in config.models),
        f"to {config.folder}",
    ]
    return "\n".join(lines)


def run(config: FinetuneConfig) -> FinetuneResult:
    """Fit and score every model on every fold, and write the results.

    Raises
    ------
    ConfigError
        If the folder holds results of another config.
    ContractError
        If stores and checkpoint have different contracts.
    ProtocolError
        If the task or a protocol cannot be carried out on these recordings.
    LeakError
        If a split would leak.
    """
    folder = Path(config.folder)
    _refuse_other_results(config, folder)
    data = _Data(config)
    checkpoint = _load_checkpoint(config, data)
    environment = write_provenance(folder, config, seed=config.seeds[0])
    tally = Tally(config.task.name, data.trials)
    transductive: dict[tuple[str, str], bool] = {}
    n_fits = sum(len(folds) for folds in data.protocols) * sum(
        len(config.seeds_of(model)) for model in config.models
    )
    with processor(config.threads), progress("fine-tune", n_fits) as advance:
        for settings in config.models:
            model = _build(settings, config, data, checkpoint)
            transductive[model.name, model.adaptation] = model.transductive
            seeds = config.seeds_of(settings)
            score_model(model, data.protocols, seeds, tally, advance)
    entries = summarise(tally.results, transductive)
    seen = subjects_seen(checkpoint, data.trials)
    notes = [*sentences(checkpoint, seen), *losses(data.trials)]
    material = Material(
        title=config.task.name,
        trials=data.trials,
        protocols=data.protocols,
        entries=entries,
        results=tally.results,
        predictions=tally.predictions,
        curves=tally.curves,
        missing=tally.missing,
        provenance=notes,
        pretraining_loss=(checkpoint.training.get("loss") or []) if checkpoint else [],
        environment={"config": config.digest(), **environment},
    )
    _write(folder, config, data, material, checkpoint, seen)
    return FinetuneResult(folder, tally.results, entries, notes)


class _Data:
    """The stores of a run, its trials and its folds."""

    def __init__(self, config: FinetuneConfig):
        self.cohort = Cohort(config.stores)
        self.contract = self.cohort.contract
        self.trials = find_trials(
            self.cohort,
            config.task,
            sfreq=self.contract.sfreq,
            window_s=self.contract.window_s,
        )
        self.protocols: tuple[Folds, ...] = tuple(
            folds for protocol in config.protocols for folds in protocol.folds(self.trials)
        )
        names = [folds.name for folds in self.protocols]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"protocols: {sorted(twice)[0]} is listed twice")


def _load_checkpoint(config: FinetuneConfig, data: _Data) -> Checkpoint | None:
    if config.checkpoint is None:
        return None
    checkpoint = checkpoints.load(config.checkpoint)
    data.contract.require_same(
        checkpoint.contract, f"store {data.cohort.name}", f"checkpoint {config.checkpoint}"
    )
    checkpoint.encoder.tokenizer.n_patches(data.trials.n_times)  # refuses a part of a patch
    return checkpoint


def _build(
    settings: ModelConfig, config: FinetuneConfig, data: _Data, checkpoint: Checkpoint | None
) -> Model:
    if isinstance(settings, ChanceConfig):
        return settings.build()
    if isinstance(settings, TangentSpaceConfig):
        start, n_times = settings.window(data.trials)
        windows = data.trials.table.assign(start=start, n_times=n_times)
        for folds in data.protocols:  # its windows may be longer than the encoder's
            folds.check(replace(data.trials, table=windows))
        return settings.build(data.cohort, data.trials)
    if checkpoint is None:
        raise ConfigError(f"model {settings.name} needs a `checkpoint`")
    return _with_encoder(settings, config, data, checkpoint)


def _with_encoder(
    settings: EncoderModelConfig, config: FinetuneConfig, data: _Data, checkpoint: Checkpoint
) -> Model:
    source = EncoderSource(
        settings.name,
        checkpoint.config,
        checkpoint.contract,
        checkpoint.encoder if isinstance(settings, PretrainedConfig) else None,
    )
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu")
        if config.device == "auto"
        else config.device
    )
    adaptation = settings.adaptation
    if isinstance(adaptation, FullConfig):
        return FullFineTuning(adaptation, source, data.cohort, data.trials, device=device)
    cache = Path(config.folder) / "features"
    return LinearProbe(adaptation, source, data.cohort, data.trials, device=device, cache=cache)


# ---------------------------------------------------------------------------------------
# Files


def _refuse_other_results(config: FinetuneConfig, folder: Path) -> None:
    if not ((folder / "results.csv").exists() and (folder / "config.yaml").exists()):
        return
    before = load_config(FinetuneConfig, folder / "config.yaml").to_dict()
    now = config.to_dict()
    unimportant = {"folder", "device", "threads"}
    differing = [key for key in now if before[key] != now[key] and key not in unimportant]
    if differing:
        raise ConfigError(
            f"{folder} holds results of another config; they differ in {', '.join(differing)}",
            hint="choose another `folder`, or remove that one",
        )


def _write(
    folder: Path,
    config: FinetuneConfig,
    data: _Data,
    material: Material,
    checkpoint: Checkpoint | None,
    seen: dict[str, bool | None],
) -> None:
    tables = {
        "trials": data.trials.table,
        "folds": _folds_table(data.protocols),
        "predictions": material.predictions,
        "results": material.results,
    }
    if len(material.curves):
        tables["curves"] = material.curves
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    summary = {
        "task": config.task.name,
        "stores": list(config.stores),
        "contract": data.contract.to_dict(),
        "trials": {
            "n": len(data.trials),
            "digest": data.trials.digest(),
            "counts": data.trials.counts().to_dict("index"),
            "dropped": data.trials.dropped["reason"].value_counts().to_dict(),
        },
        "protocols": {f.name: {"digest": f.digest(), "folds": len(f)} for f in data.protocols},
        "checkpoint": {
            "path": config.checkpoint,
            "weights": checkpoint.digest if checkpoint else None,
            "saw_subject": seen if checkpoint else None,
        },
        "scores": material.entries,
        "missing": material.missing.to_dict("records"),
        "environment": material.environment,
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    make_page(material).write(folder / "report.html")


def _folds_table(protocols: Sequence[Folds]) -> pd.DataFrame:
    parts = [folds.table.assign(protocol=folds.name) for folds in protocols]
    return pd.concat(parts, ignore_index=True)[["protocol", "fold", "trial_id", "role"]]

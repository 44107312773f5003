"""Full fine-tuning: encoder and head together, from the same weights in every fold."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.checkpoint import weights_digest
from neurofm.config import Config
from neurofm.errors import TrainingError
from neurofm.finetune.bank import in_batches, load_bank, rows_of
from neurofm.finetune.encoders import EncoderSource
from neurofm.finetune.heads import Classifier, LinearHead
from neurofm.finetune.metrics import balanced_accuracy
from neurofm.finetune.models import Fold, Prediction
from neurofm.finetune.trials import Trials
from neurofm.readers import WindowReader
from neurofm.signals import Batch
from neurofm.training.optim import OptimConfig
from neurofm.training.seeding import derived_seed


class FullConfig(Config):
    """Train all weights with AdamW, warm-up and cosine decay, on class-weighted cross-entropy.

    Parameters
    ----------
    pool : "mean" or "attention"
        Of the head.
    epochs : int
        At most; exactly this many where a fold has no validation subjects.
    patience : int
        Stop after so many epochs without a better balanced accuracy on the validation
        subjects; the best epoch's weights are used.
    batch_size : int
        Windows in a step.
    lr, weight_decay : float
        Of AdamW.
    warmup_share : float
        Share of all steps in which the rate rises.
    dropout : float
        Share of pooled features dropped before the head's linear map.
    """

    name: Literal["full"] = "full"
    pool: Literal["mean", "attention"] = "mean"
    epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=3, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @property
    def label(self) -> str:
        """The adaptation's name in tables."""
        return "full"


class FullFineTuning:
    """An encoder's initial weights, all trials in memory, and how to train on them.

    Parameters
    ----------
    config : FullConfig
        Settings.
    source : EncoderSource
        Where every fold's encoder comes from.
    reader : WindowReader
        The cohort.
    trials : Trials
        All trials of the task.
    device : torch.device
        Where to train.
    """

    transductive = False

    def __init__(
        self,
        config: FullConfig,
        source: EncoderSource,
        reader: WindowReader,
        trials: Trials,
        *,
        device: torch.device,
    ):
        self.config = config
        self.source = source
        self.name = source.name
        self.adaptation = config.label
        self._device = device
        self._bank = load_bank(reader, trials, device)
        self._first_digest: dict[int, str] = {}

    def fit_predict(self, fold: Fold, seed: int) -> Prediction:
        """Learn and predict.

        Raises
        ------
        TrainingError
            If a fold would not start from the weights of the others, nothing moved, or the
            loss is not a number.
        """
        encoder = self.source.fresh(seed)
        start = weights_digest(encoder)
        expected = self._first_digest.setdefault(seed, start)
        if start != expected:
            raise TrainingError(
                f"fold {fold.name!r} would start from weights {start}, earlier folds from "
                f"{expected}: another fold's training has leaked in"
            )
        with torch.random.fork_rng(devices=_cuda(self._device)):
            torch.manual_seed(derived_seed(seed, fold.protocol, fold.name))
            head = LinearHead(
                encoder.width, fold.n_classes, pool=self.config.pool, dropout=self.config.dropout
            )
            model = Classifier(encoder, head).to(self._device).requires_grad_(True)
            curves = _Trainer(self.config, self._bank, model, fold).fit()
        if weights_digest(model.encoder.cpu()) == start:
            raise TrainingError(
                f"fold {fold.name!r}: full fine-tuning moved no weight of the encoder",
                hint="raise `lr` or `epochs`",
            )
        model.to(self._device)
        n_train = len(fold.train) + len(fold.validation)
        return Prediction(_predict(model, self._bank, fold.test), n_train, curves)


@dataclass(eq=False)
class _Best:
    score: float
    loss: float
    epoch: int
    state: dict[str, Tensor]


class _Trainer:
    """One fold's training. It is given no test trial's label, and touches no test trial."""

    def __init__(self, config: FullConfig, bank: Batch, model: Classifier, fold: Fold):
        self.config, self.bank, self.model, self.fold = config, bank, model, fold
        self.targets = torch.as_tensor(fold.y, device=bank.signal.device)
        counts = np.bincount(fold.y[fold.train], minlength=fold.n_classes)
        weight = torch.as_tensor(len(fold.train) / (fold.n_classes * counts), dtype=torch.float32)
        self.criterion = nn.CrossEntropyLoss(weight=weight.to(bank.signal.device))
        n_steps = config.epochs * -(-len(fold.train) // config.batch_size)
        optim = OptimConfig(
            lr=config.lr,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.999),
            warmup_steps=round(config.warmup_share * n_steps),
        )
        self.clip_norm = optim.clip_norm
        self.optimiser, self.schedule = optim.build(model, n_steps)

    def fit(self) -> pd.DataFrame:
        """Train, keep the best epoch if there is validation, and return the curves."""
        rows = []
        best: _Best | None = None
        for epoch in range(1, self.config.epochs + 1):
            row = {"epoch": epoch, "train_loss": self._epoch()}
            if len(self.fold.validation):
                score, loss = self._validate()
                row |= {"validation_balanced_accuracy": score, "validation_loss": loss}
                if best is None or (score, -loss) > (best.score, -best.loss):
                    best = _Best(score, loss, epoch, copy.deepcopy(self.model.state_dict()))
            rows.append(row)
            if best is not None and epoch - best.epoch >= self.config.patience:
                break
        if best is not None:
            self.model.load_state_dict(best.state)
        return pd.DataFrame(rows)

    def _epoch(self) -> float:
        self.model.train()
        order = self.fold.train[torch.randperm(len(self.fold.train)).numpy()]
        total = 0.0
        for rows in in_batches(order, self.config.batch_size):
            loss = self.criterion(self.model(rows_of(self.bank, rows)), self.targets[rows])
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"fold {self.fold.name!r}: the loss of full fine-tuning is {loss.item()}",
                    hint="lower `lr`",
                )
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.optimiser.step()
            self.schedule.step()
            total += loss.item() * len(rows)
        return total / len(order)

    def _validate(self) -> tuple[float, float]:
        rows = self.fold.validation
        probabilities = _predict(self.model, self.bank, rows)
        truth = self.fold.y[rows]
        chosen = probabilities[np.arange(len(rows)), truth]
        loss = -np.log(np.maximum(chosen, 1e-12)).mean()
        return balanced_accuracy(truth, probabilities.argmax(1)), float(loss)


def _predict(model: Classifier, bank: Batch, rows: np.ndarray) -> np.ndarray:
    model.eval()
    with torch.inference_mode():
        parts = [
            model(rows_of(bank, part)).double().softmax(1).cpu() for part in in_batches(rows, 64)
        ]
    return torch.cat(parts).numpy()


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []

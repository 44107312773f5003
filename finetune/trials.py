"""Trials: what a task's rules find in a store's index and events, before any signal is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd

from neurofm.config import digest_of
from neurofm.errors import ProtocolError, did_you_mean
from neurofm.finetune.tasks import SELECTORS, TaskConfig, TrialRule
from neurofm.signals import Event, whole_samples

COLUMNS = (
    "trial_id", "recording_id", "dataset", "subject", "person", "session", "run",
    "onset_s", "start", "n_times", "label", "y",
)  # fmt: skip


class TrialSource(Protocol):
    """What is asked of a store to find trials in it."""

    @property
    def index(self) -> pd.DataFrame:
        """One row a recording."""

    def events(self, recording_id: str) -> tuple[Event, ...]:
        """Return the events of a recording."""


@dataclass(frozen=True, eq=False)
class Trials:
    """The labelled windows of a task.

    Attributes
    ----------
    table : DataFrame
        One row a trial, in recording order: `COLUMNS`. `start` and `n_times` are samples of
        the encoder's window; `onset_s` is the trial's time zero; `person` is
        ``dataset/subject``.
    classes : tuple of str
        Class names by code.
    sfreq : float
        Sampling rate in hertz.
    dropped : DataFrame
        What matched a rule but could not be used: recording_id, onset_s, label, reason.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    sfreq: float
    dropped: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    @property
    def n_times(self) -> int:
        """Samples in the encoder's window."""
        return int(self.table["n_times"].iloc[0])

    @cached_property
    def y(self) -> np.ndarray:
        """Class codes, shape (n_trials,)."""
        return self.table["y"].to_numpy(np.int64)

    @cached_property
    def persons(self) -> np.ndarray:
        """Who each trial is from, shape (n_trials,)."""
        return self.table["person"].to_numpy(str)

    def digest(self) -> str:
        """Twelve characters that change when any window or label does."""
        rows = self.table[["trial_id", "start", "n_times", "label"]].sort_values("trial_id")
        return digest_of(rows.astype(str).to_numpy().tolist())

    def counts(self) -> pd.DataFrame:
        """Trials per person and class, and how many were dropped in all."""
        counts = pd.crosstab(self.table["person"], self.table["label"])
        counts = counts.reindex(columns=list(self.classes), fill_value=0)
        return counts.rename_axis(index="subject", columns=None)


def find_trials(store: TrialSource, task: TaskConfig, *, sfreq: float, window_s: float) -> Trials:
    """Apply a task's rules to a store; no signal is read.

    Parameters
    ----------
    store : TrialSource
        A store's index and events.
    task : TaskConfig
        The rules.
    sfreq : float
        Sampling rate of the store in hertz.
    window_s : float
        Length of the encoder's window in seconds, where the task does not give one.

    Returns
    -------
    Trials
        Windows inside good spans only; the others are in `dropped`.

    Raises
    ------
    ProtocolError
        If a rule matches no recording or no event, two rules claim one window, a class has
        no trial, or no subject is left.
    """
    n_times = whole_samples(task.window_s or window_s, sfreq)
    index = store.index[~store.index["subject"].isin(task.exclude_subjects)]
    if index.empty:
        raise ProtocolError(
            f"task {task.name!r}: the store has no subject left",
            hint="look at `exclude_subjects`, and at the store with `neurofm inspect`",
        )
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for rule in task.trials:
        recordings = _select(index, rule, task.name)
        onsets = _tiles(n_times) if rule.tile else _onsets(store, recordings, rule, task.name)
        for row in recordings.to_dict("records"):
            for onset_s in onsets(row):
                start = round((onset_s + task.start_s) * sfreq)
                reason = _unusable(start, n_times, row, sfreq)
                trial = {"onset_s": onset_s, "start": start, "label": rule.label}
                if reason:
                    trial = {"recording_id": row["recording_id"], **trial, "reason": reason}
                    dropped.append(trial)
                else:
                    kept.append({**_identity(row, onset_s), **trial})
    return _as_trials(kept, dropped, task, sfreq, n_times)


def _select(index: pd.DataFrame, rule: TrialRule, task: str) -> pd.DataFrame:
    chosen = index
    for key in SELECTORS:
        wanted = getattr(rule, key)
        known = sorted(set(index[key].astype(str)))
        for name in wanted:
            if name not in known:
                raise ProtocolError(
                    f"task {task!r}: rule {rule} wants {key} {name!r}, which the store does not "
                    f"have; found: {_some(known)}",
                    hint=did_you_mean(name, known),
                )
        if wanted:
            chosen = chosen[chosen[key].astype(str).isin(wanted)]
    if chosen.empty:
        raise ProtocolError(f"task {task!r}: rule {rule} matches no recording of the store")
    return chosen.sort_values("recording_id")


Row = dict[Any, Any]
OnsetsOf = Callable[[Row], Iterator[float]]


def _onsets(store: TrialSource, recordings: pd.DataFrame, rule: TrialRule, task: str) -> OnsetsOf:
    found = {
        recording_id: store.events(recording_id) for recording_id in recordings["recording_id"]
    }
    names = {n for es in found.values() for e in es for n in (e.description, e.label) if n}
    for name in rule.event:
        if name not in names:
            raise ProtocolError(
                f"task {task!r}: rule {rule}: no event is called {name!r}; found: "
                f"{_some(sorted(names))}",
                hint=did_you_mean(name, names),
            )

    def onsets(row: Row) -> Iterator[float]:
        for event in found[row["recording_id"]]:
            if event.description in rule.event or event.label in rule.event:
                yield event.onset_s + rule.offset_s

    return onsets


def _tiles(n_times: int) -> OnsetsOf:
    def onsets(row: Row) -> Iterator[float]:
        for i in range(int(row["n_times"]) // n_times):
            yield i * n_times / float(row["sfreq"])

    return onsets


def _unusable(start: int, n_times: int, row: Row, sfreq: float) -> str | None:
    if start < 0 or start + n_times > int(row["n_times"]):
        return "the window runs beyond the recording"
    spans = np.asarray(row["spans"], float).reshape(-1, 2) * sfreq
    inside = (start >= spans[:, 0] - 0.5) & (start + n_times <= spans[:, 1] + 0.5)
    return None if inside.any() else "the window touches a BAD span"


def _identity(row: Row, onset_s: float) -> dict[str, Any]:
    return {
        "trial_id": f"{row['recording_id']}@{onset_s:.3f}",
        "recording_id": row["recording_id"],
        "dataset": str(row["dataset"]),
        "subject": str(row["subject"]),
        "person": f"{row['dataset']}/{row['subject']}",
        "session": str(row["session"]),
        "run": str(row["run"]),
    }


def _as_trials(
    kept: list[dict[str, Any]],
    dropped: list[dict[str, Any]],
    task: TaskConfig,
    sfreq: float,
    n_times: int,
) -> Trials:
    table = pd.DataFrame(kept, columns=[c for c in COLUMNS if c not in ("n_times", "y")])
    losses = pd.DataFrame(dropped, columns=["recording_id", "onset_s", "start", "label", "reason"])
    for name in task.classes:
        if name not in set(table["label"]):
            lost = losses[losses["label"] == name]["reason"].value_counts()
            why = "; ".join(f"{n} dropped: {reason}" for reason, n in lost.items())
            raise ProtocolError(
                f"task {task.name!r}: class {name!r} has no trial" + (f" ({why})" if why else ""),
                hint="look at `start_s` and `window_s`" if why else None,
            )
    twice = table[table["trial_id"].duplicated(keep=False)]
    if not twice.empty:
        first = twice[twice["trial_id"] == twice["trial_id"].iloc[0]]
        raise ProtocolError(
            f"task {task.name!r}: {first['trial_id'].iloc[0]} is claimed by more than one rule or "
            f"event, as {' and '.join(repr(v) for v in first['label'])}",
            hint="say in which `run` or `session` each rule holds",
        )
    codes = {name: code for code, name in enumerate(task.classes)}
    table["y"] = table["label"].map(codes).astype(np.int64)
    table["n_times"] = n_times
    order = ["dataset", "subject", "session", "run", "recording_id", "start"]
    table = table.sort_values(order, ignore_index=True)[list(COLUMNS)]
    return Trials(table, task.classes, sfreq, losses)


def _some(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(repr(n) for n in names[:most])
    return (shown or "none") + (f" and {len(names) - most} more" if len(names) > most else "")

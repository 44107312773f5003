"""Protocols: who is trained on and who is tested, as tables.

A split is a value: it can be printed, hashed and checked for leaks before anything is fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from neurofm.config import Config, digest_of
from neurofm.errors import LeakError, ProtocolError
from neurofm.finetune.trials import Trials

ROLES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Folds:
    """The role of every trial in every fold.

    Attributes
    ----------
    name : str
        The protocol's name in tables, such as ``loso`` or ``few_shot_k5``.
    unit : "subject" or "trial"
        What may have only one role in a fold.
    table : DataFrame
        Columns fold, trial_id, role; a trial that is not listed takes no part in the fold.
    """

    name: str
    unit: Literal["subject", "trial"]
    table: pd.DataFrame

    @property
    def names(self) -> list[str]:
        """Names of the folds, in order."""
        return list(dict.fromkeys(self.table["fold"]))

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Twelve characters that change when any trial changes role, whatever the row order."""
        rows = self.table[["fold", "trial_id", "role"]].astype(str).to_numpy().tolist()
        return digest_of([self.name, sorted(rows)])

    def __str__(self) -> str:
        counts = pd.crosstab(self.table["fold"], self.table["role"])
        counts = counts.reindex(index=self.names, columns=list(ROLES), fill_value=0)
        lines = counts.rename_axis(index=None, columns=None).to_string(max_rows=40)
        return f"{self.name}: {len(self)} folds, digest {self.digest()} (trials per role)\n{lines}"

    def check(self, trials: Trials) -> Folds:
        """Raise unless the folds can be scored honestly; otherwise return them.

        Raises
        ------
        LeakError
            If a subject (or a trial) has two roles in a fold, or a test window shares samples
            with a window that is trained on.
        ProtocolError
            If a trial is unknown, or a class is missing from a fold's train or test part.
        """
        table = self.table.merge(trials.table, on="trial_id", how="left", validate="many_to_one")
        if table["recording_id"].isna().any():
            unknown = table.loc[table["recording_id"].isna(), "trial_id"].iloc[0]
            raise ProtocolError(f"{self.name}: trial {unknown!r} is not one of the task's")
        if wrong := sorted(set(table["role"]) - set(ROLES)):
            raise ProtocolError(
                f"{self.name}: unknown role {wrong[0]!r}; known: {', '.join(ROLES)}"
            )
        self._one_role(table, "trial_id", "trial")
        if self.unit == "subject":
            self._one_role(table, "person", "subject")
        self._no_shared_samples(table)
        self._all_classes(table, trials.classes)
        return self

    def _one_role(self, table: pd.DataFrame, key: str, noun: str) -> None:
        pairs = table[["fold", key, "role"]]
        if key != "trial_id":
            pairs = pairs.drop_duplicates()
        twice = pairs[pairs.duplicated(["fold", key], keep=False)]
        if twice.empty:
            return
        fold, who = twice["fold"].iloc[0], twice[key].iloc[0]
        roles = twice[(twice["fold"] == fold) & (twice[key] == who)]["role"]
        raise LeakError(
            f"{self.name}, fold {fold!r}: {noun} {who!r} is in {' and '.join(roles)}",
            hint="every subject has one role in a fold" if noun == "subject" else None,
        )

    def _no_shared_samples(self, table: pd.DataFrame) -> None:
        table = table.sort_values(["fold", "recording_id", "start"], ignore_index=True)
        group = table.groupby(["fold", "recording_id"], sort=False)
        stop = table["start"] + table["n_times"]
        for role in ROLES:
            # the furthest sample that an earlier window of another role reaches
            others = stop.where(table["role"] != role, -1)
            reach = others.groupby(group.ngroup()).cummax()
            reach = reach.groupby(group.ngroup()).shift(fill_value=-1)
            shared = (table["role"] == role) & (table["start"] < reach)
            if shared.any():
                fold, window = table.loc[shared, ["fold", "trial_id"]].to_numpy(str)[0]
                raise LeakError(
                    f"{self.name}, fold {fold!r}: window {window!r} ({role}) "
                    "shares samples with a window of another role",
                    hint="shorten the window, or split by subject",
                )

    def _all_classes(self, table: pd.DataFrame, classes: Sequence[str]) -> None:
        rows = table[["fold", "role", "label"]].drop_duplicates()
        found = set(rows.itertuples(index=False, name=None))
        for fold, role, label in product(self.names, ("train", "test"), classes):
            if (fold, role, label) not in found:
                raise ProtocolError(
                    f"{self.name}, fold {fold!r}: class {label!r} has no trial in {role}",
                    hint="leave the subject out with `task.exclude_subjects`",
                )


class LosoConfig(Config):
    """Leave one subject out: each subject is tested once by what the others taught.

    Parameters
    ----------
    validation_subjects : int
        How many of the other subjects are set aside in each fold for early stopping. They are
        those whose hashed names come first, so a subject that joins the cohort moves nobody,
        except that it may take one place in validation. Models that need no early stopping
        train on them too.
    seed : int
        Seed of the hash.
    """

    name: Literal["loso"] = "loso"
    validation_subjects: int = Field(default=1, ge=0)
    seed: int = 0

    def folds(self, trials: Trials) -> tuple[Folds, ...]:
        """Return the checked folds, one a subject.

        Raises
        ------
        ProtocolError
            If there are too few subjects, or a class is missing from a fold.
        """
        persons = sorted(set(trials.persons))
        needed = 2 + self.validation_subjects
        if len(persons) < needed:
            raise ProtocolError(
                f"loso with {self.validation_subjects} validation subject(s) needs at least "
                f"{needed} subjects, found {len(persons)}: {', '.join(persons)}",
                hint="lower `validation_subjects`, or use few_shot",
            )
        parts = []
        for tested in persons:
            others = sorted(
                (p for p in persons if p != tested), key=lambda p: self._rank(tested, p)
            )
            role = dict.fromkeys(others, "train")
            role |= dict.fromkeys(others[: self.validation_subjects], "validation")
            role[tested] = "test"
            parts.append(
                pd.DataFrame(
                    {
                        "fold": tested,
                        "trial_id": trials.table["trial_id"],
                        "role": trials.table["person"].map(role),
                    }
                )
            )
        folds = Folds("loso", "subject", pd.concat(parts, ignore_index=True))
        return (folds.check(trials),)

    def _rank(self, tested: str, person: str) -> str:
        return hashlib.sha256(f"{self.seed}\0{tested}\0{person}".encode()).hexdigest()


class FewShotConfig(Config):
    """Train on k trials a class of a subject, test on all the others of that subject.

    Parameters
    ----------
    k : list of int
        Trials per class to train on; each is a protocol of its own.
    within : "subject" or "session"
        Whether a fold is all sessions of a subject, or one.
    order : "chronological" or "random"
        Whether the first k are taken, or k at random.
    draws : int
        How many random draws.
    seed : int
        Seed of the random draws.
    """

    name: Literal["few_shot"] = "few_shot"
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 5, 10), min_length=1)
    within: Literal["subject", "session"] = "subject"
    order: Literal["chronological", "random"] = "chronological"
    draws: int = Field(default=1, ge=1)
    seed: int = 0

    def folds(self, trials: Trials) -> tuple[Folds, ...]:
        """Return the checked folds of each k.

        Raises
        ------
        ProtocolError
            If k trials of some class, and one to test on, are not there.
        """
        return tuple(self._of_k(trials, k).check(trials) for k in self.k)

    def _of_k(self, trials: Trials, k: int) -> Folds:
        name = f"few_shot_k{k}" + ("_random" if self.order == "random" else "")
        keys = ["person"] + (["session"] if self.within == "session" else [])
        parts = []
        for key, rows in trials.table.groupby(keys, sort=True):
            fold = "/".join(str(part) for part in key if part)
            self._enough(rows, k, trials.classes, f"{name}, fold {fold!r}")
            for draw in range(self.draws if self.order == "random" else 1):
                chosen = self._choose(rows, k, draw)
                role = np.where(rows["trial_id"].isin(chosen), "train", "test")
                suffix = f"#{draw}" if self.order == "random" else ""
                parts.append(
                    pd.DataFrame(
                        {"fold": fold + suffix, "trial_id": rows["trial_id"], "role": role}
                    )
                )
        return Folds(name, "trial", pd.concat(parts, ignore_index=True))

    def _enough(self, rows: pd.DataFrame, k: int, classes: Sequence[str], where: str) -> None:
        for label in classes:
            n = int((rows["label"] == label).sum())
            if n < k + 1:
                raise ProtocolError(
                    f"{where}: class {label!r} has {n} trial(s); k={k} needs at least {k + 1}",
                    hint="lower `k`, or leave the subject out with `task.exclude_subjects`",
                )

    def _choose(self, rows: pd.DataFrame, k: int, draw: int) -> set[str]:
        if self.order == "random":
            # ranked by a hash, so that a trial's place does not depend on who else is there
            def rank(trial_id: str) -> str:
                text = f"{self.seed}\0{draw}\0{trial_id}"
                return hashlib.sha256(text.encode()).hexdigest()

            rows = rows.assign(rank=rows["trial_id"].map(rank)).sort_values("rank")
        return set(rows.groupby("label")["trial_id"].head(k))


ProtocolConfig = Annotated[LosoConfig | FewShotConfig, Field(discriminator="name")]

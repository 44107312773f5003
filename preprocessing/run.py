"""Preprocess: recordings in, one harmonised store out, and a row for every file."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from neurofm.config import Config
from neurofm.contract import SignalContract
from neurofm.errors import SourceError, StoreError
from neurofm.preprocessing.account import COMPANION, OTHER, account
from neurofm.preprocessing.pool import WorkerPool
from neurofm.preprocessing.report import (
    FILE_NAME,
    IN_STORE,
    merge_report,
    refusal,
    report_table,
)
from neurofm.preprocessing.sources import Found, SourceConfig, discover
from neurofm.preprocessing.task import Outcome, Task, preprocess_one, what_changed
from neurofm.preprocessing.worker import TimedOut, WorkerDied
from neurofm.report.progress import progress
from neurofm.store.reader import Store, open_store
from neurofm.store.writer import commit, create_store, recover

_COMMIT_EVERY_S = 1.0
_ROLES = (COMPANION, OTHER)


class PreprocessConfig(Config):
    """What to read, what to make of it, and where to put it.

    Parameters
    ----------
    dataset : str
        Name of the data set, the first part of every recording's id.
    root : str
        Folder that the sources' roots are relative to.
    store : str
        Folder of the store; made if it is not there, added to if it is.
    contract : SignalContract
        What every recording is made to be.
    sources : list of SourceConfig
        Which files, and how to read them.
    every_file : bool
        Give every file below `root` a row in the report, also those that no source asks for.
    workers : int or "auto"
        Processes; ``auto`` takes one per core, 0 works without any.
    """

    dataset: str = Field(min_length=1)
    root: str = "."
    store: str
    contract: SignalContract
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    every_file: bool = False
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"


CONFIG = PreprocessConfig


@dataclass(frozen=True, eq=False)
class PreprocessResult:
    """What a run did.

    Attributes
    ----------
    store : Path
        The store.
    report : DataFrame
        One row for every input file of this run.
    """

    store: Path
    report: pd.DataFrame

    def summary(self) -> str:
        """Return counts, and the reasons of what was refused."""
        counts = self.report["status"].value_counts()
        words = ("kept", "skipped", "refused", *(s for s in _ROLES if s in counts))
        listed = ", ".join(f"{counts.get(s, 0)} {s}" for s in words)
        lines = [f"{len(self.report)} files: {listed}"]
        lines += _reasons(self.report)
        lines.append(f"store:  {self.store}\nreport: {self.store / FILE_NAME}")
        return "\n".join(lines)


def plan(config: PreprocessConfig) -> str:
    """List the files and what each would be called; no signal is read, nothing is written."""
    lines = []
    for item in _find(config):
        if item.entities is not None and item.problem is None:
            lines.append(f"{item.relative} -> {item.entities.recording_id}")
        else:
            lines.append(f"{item.relative}: {item.skipped or item.problem}")
    return "\n".join([*lines, f"{len(lines)} files -> {config.store}"])


def _find(config: PreprocessConfig) -> list[Found]:
    found = discover(Path(config.root), config.dataset, config.sources)
    return found + account(Path(config.root), found) if config.every_file else found


def run(config: PreprocessConfig) -> PreprocessResult:
    """Read, harmonise and store every recording that is not in the store yet.

    Stopped at any point and run again, it does what is missing, and the store is the same as
    if it had not been stopped.

    Parameters
    ----------
    config : PreprocessConfig
        What to do.

    Returns
    -------
    PreprocessResult
        The report; it is merged into ``report.csv`` in the store as well.

    Raises
    ------
    SourceError
        If no file is found, or none of them could be kept.
    ContractError
        If the store has another contract.
    StoreError
        If something else is at its path, or it cannot be written.
    """
    store = Path(config.store)
    found = _find(config)
    create_store(store, config.contract)
    recover(store)
    rows, tasks = _sort_out(config, found, open_store(store))
    _work(tasks, store, rows, _n_workers(config))
    result = PreprocessResult(store, report_table(rows))
    status, recording_id = result.report["status"], result.report["recording_id"]
    there = (status == "kept") | ((status == "skipped") & recording_id.astype(bool))
    if not there.any():
        raise SourceError(
            "\n".join([f"none of {len(rows)} files could be kept", *_reasons(result.report)]),
            hint=f"every file and its reason is in {store / FILE_NAME}",
        )
    return result


def _n_workers(config: PreprocessConfig) -> int:
    if config.workers == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return config.workers


def _sort_out(
    config: PreprocessConfig, found: Sequence[Found], store: Store
) -> tuple[list[dict[str, Any]], list[Task]]:
    """Return report rows of what needs no work, and the tasks that do."""
    there = set(store.index["recording_id"])
    rows, tasks = [], []
    for item in found:
        row = {"dataset": item.source.dataset or config.dataset, "path": item.relative}
        if item.entities is None or item.problem is not None:
            name = item.entities.recording_id if item.entities else ""
            skipped = {"status": item.role or "skipped", "reason": item.skipped}
            verdict = refusal(item.problem) if item.problem else skipped
            rows.append({**row, "recording_id": name, **verdict})
            continue
        task = Task(
            path=item.path,
            relative=item.relative,
            entities=item.entities,
            source=item.source,
            contract=config.contract,
            store=store.path,
        )
        if item.entities.recording_id in there:
            rows.append({**row, **_row_of_stored(task, store)})
        else:
            tasks.append(task)
    return rows, tasks


def _row_of_stored(task: Task, store: Store) -> dict[str, Any]:
    name = task.entities.recording_id
    was = store.provenance(name)
    problem = what_changed(task, was)
    if problem is not None:
        return {"recording_id": name, **refusal(problem)}
    row = {"recording_id": name, "status": "skipped", "reason": IN_STORE}
    return {**was.get("report", {}), **row}


def _work(tasks: Sequence[Task], store: Path, rows: list[dict[str, Any]], workers: int) -> None:
    """Do the tasks and append their report rows; what is finished is committed on the way."""
    pool: WorkerPool[Task, Outcome] = WorkerPool(preprocess_one, min(workers, len(tasks)))
    fresh: list[dict[str, Any]] = []
    refused: list[tuple[Task, Outcome]] = []
    last = time.monotonic()
    try:
        with (
            progress("preprocess", len(tasks)) as advance,
            closing(pool.each(tasks)) as outcomes,
        ):
            for task, outcome in outcomes:
                advance(1)
                if isinstance(outcome, WorkerDied | TimedOut):
                    problem = type(outcome)(f"{task.path}: {outcome.problem}", hint=outcome.hint)
                    outcome = Outcome(error=problem)
                if isinstance(outcome.error, StoreError):
                    refused.append((task, outcome))
                    continue
                rows.append(_row_of_outcome(task, outcome))
                if outcome.row is not None:
                    fresh.append(outcome.row)
                if time.monotonic() - last > _COMMIT_EVERY_S:
                    commit(store, fresh)
                    fresh.clear()
                    last = time.monotonic()
    finally:
        if fresh:
            commit(store, fresh)
        rows += _settle(refused, store)
        merge_report(store, rows)


def _settle(refused: Sequence[tuple[Task, Outcome]], store: Path) -> list[dict[str, Any]]:
    """Look again at what the store did not take.

    A worker that dies just after it has put a recording in place is not there to say so, and
    whoever tries again finds the place taken.
    """
    if not refused:
        return []
    adopted = set(recover(store))
    rows = []
    for task, outcome in refused:
        if task.entities.recording_id in adopted:
            row = _row_of_stored(task, open_store(store))
            here = {"dataset": task.entities.dataset, "path": task.relative}
            rows.append(here | row | ({"status": "kept", "reason": ""} if _is_there(row) else {}))
        else:
            rows.append(_row_of_outcome(task, outcome))
    return rows


def _is_there(row: dict[str, Any]) -> bool:
    return row.get("reason") == IN_STORE


def _row_of_outcome(task: Task, outcome: Outcome) -> dict[str, Any]:
    row = {
        "dataset": task.entities.dataset,
        "path": task.relative,
        "recording_id": task.entities.recording_id,
        **outcome.details,
    }
    if outcome.error is None:
        return {**row, "status": "kept"}
    return {**row, **refusal(outcome.error, outcome.unexpected)}


def _reasons(report: pd.DataFrame, most: int = 10) -> list[str]:
    """List what was refused, and what was skipped for want of files, up to a screenful."""
    worth = report["status"].isin(["skipped", "refused"]) & (report["reason"] != IN_STORE)
    told = report[worth].sort_values("status")
    lines = [f"  {row.status} {row.path}: {row.reason}" for row in told.head(most).itertuples()]
    more = len(told) - most
    return [*lines, f"  and {more} more"] if more > 0 else lines

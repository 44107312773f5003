"""Preprocess: recordings in, one harmonised store out, and a row for every file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from neurofm.config import Config, HomePath
from neurofm.contract import SignalContract
from neurofm.errors import SourceError
from neurofm.preprocessing.account import COMPANION, OTHER, account
from neurofm.preprocessing.cleaning import CleaningConfig
from neurofm.preprocessing.cluster import ClusterConfig, DaskPool, SlurmConfig
from neurofm.preprocessing.make import preprocess_one
from neurofm.preprocessing.mirror import is_url, mirror
from neurofm.preprocessing.page import PAGE_NAME, write_page
from neurofm.preprocessing.pool import WorkerPool
from neurofm.preprocessing.report import FILE_NAME, IN_STORE, merge_report, report_table
from neurofm.preprocessing.sorting import Row, set_twins_aside, sort_out
from neurofm.preprocessing.sources import Found, SourceConfig, discover
from neurofm.preprocessing.task import Task
from neurofm.preprocessing.work import Pool, row_of_twin, work, writing
from neurofm.store.reader import open_store
from neurofm.store.remote import Location, location
from neurofm.store.writer import create_store, recover

_ROLES = (COMPANION, OTHER)


class PreprocessConfig(Config):
    """What to read, what to make of it, and where to put it.

    Parameters
    ----------
    dataset : str
        Name of the data set, the first part of every recording's id.
    root : str
        Folder that the sources' roots are relative to; or a URL that fsspec knows, such as
        ``s3://bucket/folder``.
    store : str
        Folder of the store; made if it is not there, added to if it is.
    contract : SignalContract
        What every recording is made to be.
    cleaning : CleaningConfig
        What becomes of bad channels and artefacts.
    sources : list of SourceConfig
        Which files, and how to read them.
    every_file : bool
        Give every file below `root` a row in the report, also those that no source asks for.
    cache : str
        Folder into which files behind a URL are downloaded.
    keep_cache : bool
        False gives back the room of each recording's files as soon as it is done.
    workers : int or "auto"
        Processes; ``auto`` takes one per core, 0 works without any.
    cluster : LocalClusterConfig, SchedulerConfig or SlurmConfig, optional
        Work on a Dask cluster instead, whose size is its own affair.
    timeout_s : float, optional
        Time that one recording may take; what takes longer is stopped and refused. Held by
        worker processes, not by ``workers: 0``.
    """

    dataset: str = Field(min_length=1)
    root: str = "."
    store: str
    contract: SignalContract
    cleaning: CleaningConfig = CleaningConfig()
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    every_file: bool = False
    cache: HomePath = "~/.cache/neurofm/sources"
    keep_cache: bool = True
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    cluster: ClusterConfig | None = None
    # a day of 64 channels takes minutes: an hour means that a reader hangs
    timeout_s: float | None = Field(default=3600.0, gt=0)


CONFIG = PreprocessConfig


@dataclass(frozen=True, eq=False)
class PreprocessResult:
    """What a run did.

    Attributes
    ----------
    store : Path or RemotePath
        The store.
    report : DataFrame
        One row for every input file of this run.
    """

    store: Location
    report: pd.DataFrame

    def summary(self) -> str:
        """Return counts, and the reasons of what was refused."""
        counts = self.report["status"].value_counts()
        words = ("kept", "skipped", "refused", *(s for s in _ROLES if s in counts))
        listed = ", ".join(f"{counts.get(s, 0)} {s}" for s in words)
        lines = [f"{len(self.report)} files: {listed}"]
        lines += _reasons(self.report)
        lines.append(f"store:  {self.store}\nreport: {self.store / PAGE_NAME}, {FILE_NAME}")
        return "\n".join(lines)


def plan(config: PreprocessConfig) -> str:
    """List the files and what each would be called; no signal is read, nothing is written."""
    lines = []
    for item in _find(config):
        if item.entities is not None and item.problem is None:
            lines.append(f"{item.relative} -> {item.entities.recording_id}")
        else:
            lines.append(f"{item.relative}: {item.skipped or item.problem}")
    lines.append(f"{len(lines)} files -> {config.store}")
    if isinstance(config.cluster, SlurmConfig):
        lines += [f"{config.cluster.jobs} jobs of SLURM, each:", config.cluster.job_script()]
    return "\n".join(lines)


def _find(config: PreprocessConfig) -> list[Found]:
    root = Path(config.root)
    if is_url(config.root):
        root = mirror(config.root, Path(config.cache), keep=config.keep_cache)
    found = discover(root, config.dataset, config.sources)
    return found + account(root, found) if config.every_file else found


def run(config: PreprocessConfig, *, found: Sequence[Found] | None = None) -> PreprocessResult:
    """Read, harmonise and store every recording that is not in the store yet.

    Stopped at any point and run again, it does what is missing, and the store is the same as
    if it had not been stopped.

    Parameters
    ----------
    config : PreprocessConfig
        What to do.
    found : sequence of Found, optional
        The recordings, where they are not what the config's sources find.

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
    store = location(config.store)
    items = _find(config) if found is None else list(found)
    with writing(store):
        create_store(store, config.contract)
        recover(store)
    # a name for what the workers remember of the store as it was
    rows, tasks = sort_out(
        items, open_store(store), config.dataset, config.contract, config.cleaning, uuid.uuid4().hex
    )
    try:
        _work(config, tasks, store, rows)
    finally:
        with writing(store):
            merge_report(store, rows)
    with writing(store):
        write_page(store)
    result = PreprocessResult(store, report_table(rows))
    status, recording_id = result.report["status"], result.report["recording_id"]
    there = (status == "kept") | ((status == "skipped") & recording_id.astype(bool))
    if not there.any():
        raise SourceError(
            "\n".join([f"none of {len(rows)} files could be kept", *_reasons(result.report)]),
            hint=f"every file and its reason is in {store / FILE_NAME}",
        )
    return result


def _work(config: PreprocessConfig, tasks: list[Task], store: Location, rows: list[Row]) -> None:
    """Do the tasks; of files with the same bytes the first, and another if that one fails."""
    while tasks:
        tasks, twins = set_twins_aside(tasks)
        work(tasks, store, _pool(config, len(tasks)), rows)
        kept = {row["recording_id"] for row in rows if row["status"] == "kept"}
        tasks = []
        for twin, first in twins:
            name = first.entities.recording_id
            if name in kept:
                here = {"dataset": twin.entities.dataset, "path": twin.relative}
                rows.append(here | row_of_twin(name, first.relative))
            else:
                tasks.append(twin)


def _pool(config: PreprocessConfig, n_tasks: int) -> Pool:
    if config.cluster is not None:
        return DaskPool(preprocess_one, config.cluster, timeout_s=config.timeout_s)
    workers = _cores() if config.workers == "auto" else config.workers
    return WorkerPool(preprocess_one, min(workers, n_tasks), timeout_s=config.timeout_s)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _reasons(report: pd.DataFrame, most: int = 10) -> list[str]:
    """List what was refused, and what was skipped for want of files, up to a screenful."""
    worth = report["status"].isin(["skipped", "refused"]) & (report["reason"] != IN_STORE)
    told = report[worth].sort_values("status")
    lines: list[str] = []
    columns = ["status", "path", "reason", "hint"]
    for status, path, reason, hint in told.head(most)[columns].astype(str).to_numpy():
        lines.append(f"  {status} {path}: {reason}")
        if hint and (shown := f"    hint: {hint}") not in lines:
            lines.append(shown)
    more = len(told) - most
    return [*lines, f"  and {more} more"] if more > 0 else lines

"""What needs work and what does not: files in the store already, and files that are one file."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

from neurofm.contract import SignalContract
from neurofm.errors import NeurofmError, StoreError
from neurofm.preprocessing.cleaning import CleaningConfig
from neurofm.preprocessing.mirror import fetch
from neurofm.preprocessing.report import IN_STORE, refusal
from neurofm.preprocessing.sources import Found
from neurofm.preprocessing.task import Task, content_of, files_of, stat_of, what_changed
from neurofm.store.reader import Store

_SAMPLE = 1 << 16

Row = dict[str, Any]


def sort_out(
    found: Sequence[Found],
    store: Store,
    dataset: str,
    contract: SignalContract,
    cleaning: CleaningConfig,
    run_id: str,
) -> tuple[list[Row], list[Task]]:
    """Return report rows of what needs no work, and the tasks that do.

    Parameters
    ----------
    found : sequence of Found
        The input files.
    store : Store
        What is there already.
    dataset : str
        Of files whose source names none.
    contract : SignalContract
        Of the store.
    cleaning : CleaningConfig
        Of this run.
    run_id : str
        Of this run; see `Task`.
    """
    there = set(store.index["recording_id"])
    rows, tasks = [], []
    for item in found:
        row = {"dataset": item.source.dataset or dataset, "path": item.relative}
        if item.entities is None or item.problem is not None:
            name = item.entities.recording_id if item.entities else ""
            skipped = {"status": item.role or "skipped", "reason": item.skipped}
            verdict = refusal(item.problem) if item.problem else skipped
            rows.append({**row, "recording_id": name, **verdict})
            continue
        task = Task(
            # a worker may run in another folder
            path=item.path.absolute(),
            relative=item.relative,
            entities=item.entities,
            source=item.source,
            contract=contract,
            cleaning=cleaning,
            store=store.path.absolute(),
            run_id=run_id if there else "",
        )
        if item.entities.recording_id in there:
            rows.append({**row, **row_of_stored(task, store)})
        else:
            tasks.append(task)
    return rows, tasks


def row_of_stored(task: Task, store: Store) -> Row:
    """Return the report row of a file whose recording is in the store, or why it is not."""
    name = task.entities.recording_id
    try:
        was = store.provenance(name)
    except StoreError as error:  # one damaged recording is no reason to leave the others
        return {"recording_id": name, **refusal(error)}
    problem = what_changed(task, was)
    if problem is not None:
        return {"recording_id": name, **refusal(problem)}
    row = {"recording_id": name, "status": "skipped", "reason": IN_STORE}
    return {**was.get("report", {}), **row}


def set_twins_aside(tasks: Sequence[Task]) -> tuple[list[Task], list[tuple[Task, Task]]]:
    """Find tasks whose files have the same bytes.

    Only what has the same size, and the same bytes at both ends and in the middle, is read.

    Parameters
    ----------
    tasks : sequence of Task
        In the order of their files.

    Returns
    -------
    tasks : list of Task
        The first task of each content.
    twins : list of (Task, Task)
        Each other task, and the first of its content.
    """
    groups = [list(tasks)]
    for key in (_size, _sampled, _content):
        groups = [part for group in groups for part in _split(group, key)]
    first_of = {id(twin): group[0] for group in groups for twin in group[1:]}
    first = [task for task in tasks if id(task) not in first_of]
    return first, [(task, first_of[id(task)]) for task in tasks if id(task) in first_of]


def _split(group: list[Task], key: Callable[[Task], Hashable]) -> list[list[Task]]:
    """Return the parts of a group that still have more than one member."""
    parts: defaultdict[Hashable, list[Task]] = defaultdict(list)
    for task in group:
        # what cannot be read is a task like any other: it is refused with its reason
        with suppress(NeurofmError, OSError, ValueError):
            parts[key(task)].append(task)
    return [part for part in parts.values() if len(part) > 1]


def _size(task: Task) -> Hashable:
    size, _ = stat_of(files_of(task))
    return size, task.source.reader.part


def _content(task: Task) -> Hashable:
    return content_of(task)


def _sampled(task: Task) -> Hashable:
    digest = hashlib.sha256()
    files = files_of(task)
    fetch(files)
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            for offset in (0, size // 2, max(0, size - _SAMPLE)):
                file.seek(offset)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()

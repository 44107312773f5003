"""Tasks into rows of the report: what is finished enters the store on the way."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol

from neurofm.errors import StoreError, StoreUnwritable
from neurofm.preprocessing.make import Outcome
from neurofm.preprocessing.report import IN_STORE, refusal
from neurofm.preprocessing.sorting import Row, row_of_stored
from neurofm.preprocessing.task import SameContent, Task
from neurofm.preprocessing.worker import TimedOut, WorkerDied
from neurofm.report.progress import progress
from neurofm.store.reader import open_store
from neurofm.store.remote import Location
from neurofm.store.writer import commit, recover

_COMMIT_EVERY_S = 1.0


class Pool(Protocol):
    """Whatever does tasks: `pool.WorkerPool` or `cluster.DaskPool`."""

    def each(
        self, items: Iterable[Task]
    ) -> Generator[tuple[Task, Outcome | WorkerDied | TimedOut], None, None]:
        """Yield tasks with what became of them."""


@contextmanager
def writing(store: Location) -> Iterator[None]:
    """Say that the store cannot be written where the system says so.

    Raises
    ------
    StoreUnwritable
        In place of an `OSError` of the block.
    """
    try:
        yield
    except OSError as error:
        raise StoreUnwritable(
            f"{store} cannot be written: {error}",
            hint="free space, or choose another path; what is complete there is untouched, and "
            "the same run goes on from it",
        ) from error


def work(tasks: Sequence[Task], store: Location, pool: Pool, rows: list[Row]) -> None:
    """Do tasks and append their rows of the report.

    Raises
    ------
    StoreUnwritable
        If the store cannot be written, at the first recording that says so: every other
        would be worked on in vain.
    """
    fresh: list[dict[str, Any]] = []
    doubtful: list[tuple[Task, Outcome]] = []
    last = time.monotonic()
    try:
        with (
            progress("preprocess", len(tasks)) as advance,
            closing(pool.each(tasks)) as outcomes,
        ):
            for task, answer in outcomes:
                advance(1)
                outcome = _outcome(task, answer)
                if isinstance(outcome.error, StoreUnwritable):
                    raise outcome.error
                if isinstance(outcome.error, StoreError | WorkerDied | TimedOut):
                    doubtful.append((task, outcome))
                    continue
                rows.append(_row_of_outcome(task, outcome))
                if outcome.row is not None:
                    fresh.append(outcome.row)
                if time.monotonic() - last > _COMMIT_EVERY_S:
                    with writing(store):
                        commit(store, fresh)
                    fresh.clear()
                    last = time.monotonic()
    finally:
        with writing(store):
            if fresh:
                commit(store, fresh)
            rows += _settle(doubtful, store)


def _outcome(task: Task, answer: Outcome | WorkerDied | TimedOut) -> Outcome:
    if isinstance(answer, Outcome):
        return answer
    return Outcome(error=type(answer)(f"{task.path}: {answer.problem}", hint=answer.hint))


def _settle(doubtful: Sequence[tuple[Task, Outcome]], store: Location) -> list[Row]:
    """Look again at what the store did not take, and at whose worker is gone.

    A worker that dies just after it has put a recording in place is not there to say so, and
    whoever tries again finds the place taken. Another run into the same store may have been faster.
    """
    if not doubtful:
        return []
    adopted = set(recover(store))
    there = open_store(store)
    known = set(there.index["recording_id"])
    rows = []
    for task, outcome in doubtful:
        name = task.entities.recording_id
        row = row_of_stored(task, there) if name in known else {}
        if name not in adopted and row.get("reason") != IN_STORE:
            rows.append(_row_of_outcome(task, outcome))
            continue
        if name in adopted and row["reason"] == IN_STORE:
            row |= {"status": "kept", "reason": ""}
        rows.append({"dataset": task.entities.dataset, "path": task.relative, **row})
    return rows


def _row_of_outcome(task: Task, outcome: Outcome) -> Row:
    row = {
        "dataset": task.entities.dataset,
        "path": task.relative,
        "recording_id": task.entities.recording_id,
        **outcome.details,
    }
    if outcome.error is None:
        return {**row, "status": "kept"}
    if isinstance(outcome.error, SameContent):
        return row | row_of_twin(outcome.error.recording_id, outcome.error.source)
    return {**row, **refusal(outcome.error, outcome.unexpected)}


def row_of_twin(recording_id: str, source: str) -> Row:
    """Return the columns of a file whose bytes are those of another one's recording."""
    return {
        "recording_id": recording_id,
        "status": "skipped",
        "reason": f"the same bytes as {source}, which is {recording_id}",
    }

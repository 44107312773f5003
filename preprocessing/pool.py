"""Many recordings in a few processes, of which any may die or hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits

from neurofm.errors import ConfigError
from neurofm.preprocessing.worker import TimedOut, Worker, WorkerDied

T = TypeVar("T")
R = TypeVar("R")

# how often a process is looked at whose death its socket did not tell
_LOOK_S = 1.0
# after so many that died before any could work, it is not by chance
_STILLBORN = 3


class WorkerPool(Generic[T, R]):
    """Apply a function to items in worker processes, one item a worker at a time.

    Parameters
    ----------
    function : callable
        Must be importable; its results should be small.
    workers : int
        Number of processes; 0 works in this one, where no time limit can be held.
    timeout_s : float, optional
        Time that one item may take.
    """

    def __init__(self, function: Callable[[T], R], workers: int, *, timeout_s: float | None = None):
        self.function = function
        self.workers = workers
        self.timeout_s = timeout_s

    def each(
        self, items: Iterable[T]
    ) -> Generator[tuple[T, R | WorkerDied | TimedOut], None, None]:
        """Yield items with their results, in the order in which they finish.

        No more than one item a worker is under way, so memory does not grow with their number.
        An item whose worker dies is tried once more in the end, alone: memory may have been
        short because of what was done beside it. One that takes too long is not.
        """
        if self.workers == 0:
            with threadpool_limits(1):
                yield from ((item, self.function(item)) for item in items)
            return
        lost: list[T] = []
        with _Crew(self.function, self.workers, self.timeout_s) as crew:
            for item, result in crew.work(iter(items)):
                if isinstance(result, WorkerDied):
                    lost.append(item)
                else:
                    yield item, result
        if lost:
            with _Crew(self.function, 1, self.timeout_s) as crew:
                yield from crew.work(iter(lost))


class _Crew(Generic[T, R]):
    """The processes of one round of work, ended when it is over, in whatever way."""

    def __init__(self, function: Callable[[T], R], size: int, timeout_s: float | None):
        self.function = function
        self.size = size
        self.timeout_s = timeout_s
        self.free: list[Worker[T, R]] = []
        self.busy: dict[Connection, _Job[T, R]] = {}
        self.started = False
        self.stillborn = 0

    def __enter__(self) -> _Crew[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self.free, *(job.worker for job in self.busy.values())]:
            worker.end()

    def work(self, waiting: Iterator[T]) -> Iterator[tuple[T, R | WorkerDied | TimedOut]]:
        self._fill(waiting)
        while self.busy:
            for connection in self._those_with_news():
                job = self.busy[connection]
                answer = self._ask(job)
                if answer is not None:
                    del self.busy[connection]
                    yield job.item, answer[0]
            self._fill(waiting)

    def _fill(self, waiting: Iterator[T]) -> None:
        """Give every worker something to do."""
        while len(self.busy) < self.size:
            try:
                item = next(waiting)
            except StopIteration:
                return
            worker = self.free.pop() if self.free else Worker[T, R](self.function)
            worker.begin(item)
            self.busy[worker.connection] = _Job(worker, item, self.timeout_s)

    def _those_with_news(self) -> list[Connection]:
        """Wait until a worker says something, dies, or has taken too long."""
        while True:
            left = min(job.left_s for job in self.busy.values())
            said = wait_for(list(self.busy), timeout=max(0.0, min(left, _LOOK_S)))
            late = [
                connection
                for connection, job in self.busy.items()
                if job.left_s <= 0 or job.worker.process.poll() is not None
            ]
            if news := list(dict.fromkeys([*said, *late])):
                return news  # type: ignore[return-value]

    def _ask(self, job: _Job[T, R]) -> tuple[R | WorkerDied | TimedOut] | None:
        worker = job.worker
        if job.left_s <= 0 and not worker.connection.poll():
            return (worker.stop_waiting(self.timeout_s),)
        answer = worker.receive()
        if answer is None:
            self.started = True
            job.begun(self.timeout_s)
        elif not isinstance(answer[0], WorkerDied):
            self.free.append(worker)
        elif not self.started:
            self.stillborn += 1
            if self.stillborn >= _STILLBORN:
                raise ConfigError(
                    f"worker processes cannot be started: {answer[0].problem}",
                    hint="what they said is above; workers=0 works in this process",
                )
        return answer


class _Job(Generic[T, R]):
    """A worker and what it does; the clock runs once its process has started."""

    def __init__(self, worker: Worker[T, R], item: T, timeout_s: float | None):
        self.worker = worker
        self.item = item
        self._deadline = float("inf")
        if worker.ready:
            self.begun(timeout_s)

    def begun(self, timeout_s: float | None) -> None:
        self._deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return self._deadline - time.monotonic()

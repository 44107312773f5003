"""Many recordings in a few processes, of which any may die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any, Generic, TypeVar

from neurofm.errors import ConfigError, SourceError

T = TypeVar("T")
R = TypeVar("R")


class WorkerDied(SourceError):
    """The process that worked on a file is gone: out of memory, killed, or crashed."""


class WorkerPool(Generic[T, R]):
    """Apply a function to items in worker processes, one item a worker at a time.

    Parameters
    ----------
    function : callable
        Must be importable; its results should be small.
    workers : int
        Number of processes; 0 works in this one.
    """

    def __init__(self, function: Callable[[T], R], workers: int):
        self.function = function
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def each(self, items: Iterable[T]) -> Generator[tuple[T, R | WorkerDied], None, None]:
        """Yield items with their results, in the order in which they finish.

        No more than one item a worker is under way, so memory does not grow with their number.
        When a worker dies its pool is rebuilt; those under way are tried again one by one, so
        that only the item that kills its worker is lost.
        """
        if self.workers == 0:
            yield from ((item, self.function(item)) for item in items)
            return
        waiting = iter(items)
        running: dict[Future[R], T] = {}
        try:
            self._pool = self._start(self.workers)
            while True:
                broken = self._fill(running, waiting)
                if not running and not broken:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                if any(_is_broken(future) for future in done):
                    done, _ = wait(running)  # with one, all of its pool have failed
                suspects = broken
                for future in done:
                    item = running.pop(future)
                    if _is_broken(future):
                        suspects.append(item)
                    else:
                        yield item, future.result()
                if suspects:
                    yield from self._one_by_one(suspects)
        except BaseException:
            self._stop(at_once=True)
            raise
        self._stop()

    def _fill(self, running: dict[Future[R], T], waiting: Iterator[T]) -> deque[T]:
        """Submit until every worker is busy; return an item a broken pool did not take."""
        while len(running) < self.workers:
            try:
                item = next(waiting)
            except StopIteration:
                break
            try:
                running[self._submit(item)] = item
            except BrokenProcessPool:
                return deque([item])
        return deque()

    def _submit(self, item: T) -> Future[R]:
        if self._pool is None:
            self._pool = self._start(self.workers)
        return self._pool.submit(self.function, item)

    def _one_by_one(self, suspects: Iterable[T]) -> Iterator[tuple[T, R | WorkerDied]]:
        self._stop(at_once=True)
        for item in suspects:
            if self._pool is None:
                self._pool = self._start(1)
            try:
                yield item, self._pool.submit(self.function, item).result()
            except BrokenProcessPool:
                self._stop(at_once=True)
                yield item, WorkerDied("the process that worked on it died")
        self._stop()

    def _start(self, workers: int) -> ProcessPoolExecutor:
        # spawned, not forked: the parent may hold threads and open files
        pool = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare_worker
        )
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool:
            raise ConfigError(
                "worker processes cannot be started",
                hint="in a script, call it under `if __name__ == '__main__':`; or set workers=0 "
                "to work in this process",
            ) from None
        return pool

    def _stop(self, *, at_once: bool = False) -> None:
        """End the workers; what one is writing when it ends at once has no final name yet.

        A broken pool is ended at once: it terminates its workers itself, but not one that was
        being started just then, and would wait for that one for ever.
        """
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for process in list((pool._processes or {}).values()) if at_once else ():
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _is_broken(future: Future[Any]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)


def _prepare_worker() -> None:
    """Leave interrupts to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)

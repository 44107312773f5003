"""Batches in order, made ahead by child processes or by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from neurofm.data.buffers import Buffers, Memory
from neurofm.data.collate import collate, require_counts, samples
from neurofm.data.plan import LoaderConfig, Parallel, WindowPlan, WindowRef
from neurofm.data.processes import can_fork, in_order_by_processes
from neurofm.errors import ConfigError
from neurofm.readers import WindowReader
from neurofm.signals import Batch


class Loader:
    """The batches of steps `first_step` to `last_step` - 1.

    Which windows a step holds depends on the plan alone: not on threads, ranks, or where the
    loader was started.

    Parameters
    ----------
    reader : WindowReader
        A store, or several read as one.
    plan : WindowPlan
        Which windows each step holds.
    n_times : int
        Samples in a window.
    sfreq : float
        Sampling rate in hertz.
    first_step, last_step : int
        Global steps, the last one excluded.
    workers : int
        Processes, or threads, that read and decode.
    parallel : "auto", "processes" or "threads"
        Which of the two; see `LoaderConfig`.
    prefetch : int
        Batches made ahead of the consumer, at most.
    rank, world : int
        This process takes every `world`-th window of a step, from `rank` on. The ranks
        together hold what one would. A rank for which a short step leaves no window gets a
        batch of length zero, so that all ranks take the same number of steps.
    scale_late : bool
        Hand on int16 counts, which `Batch.to` scales where it moves them: half the bytes to
        move, which is worth it where they go to a GPU.

    Raises
    ------
    ConfigError
        If options contradict each other, the reader has no counts to hand on, or cannot be read
        by processes that are asked for.
    """

    def __init__(  # noqa: PLR0913 - what is read, which part of it, and how
        self,
        reader: WindowReader,
        plan: WindowPlan,
        *,
        n_times: int,
        sfreq: float,
        first_step: int = 0,
        last_step: int,
        workers: int = 2,
        parallel: Parallel = "auto",
        prefetch: int = 4,
        rank: int = 0,
        world: int = 1,
        scale_late: bool = False,
    ):
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} of {world}: ranks count from 0 to world - 1")
        if not 0 <= first_step <= last_step:
            raise ConfigError(f"steps {first_step} to {last_step} do not go forward from 0")
        if n_times != plan.n_times:
            raise ConfigError(
                f"the loader reads {n_times} samples a window, the plan has {plan.n_times}"
            )
        self.reader, self.plan, self.n_times, self.sfreq = reader, plan, n_times, sfreq
        self.first_step, self.last_step = first_step, last_step
        self.workers, self.prefetch = workers, prefetch
        self.rank, self.world = rank, world
        self.scale_late = scale_late
        if scale_late:
            _ = require_counts(reader).clip  # refused here and not in a worker
        self.forks = _forks(reader, parallel)

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[Batch]:
        steps = iter(range(self.first_step, self.last_step))
        if self.forks:
            if len(self):  # what is looked up in tables is made here, once, and not in each child
                self.reader.sensors(self.plan.batch(self.first_step)[0].recording_id)
            n_bytes = self.plan.most_samples(self.world) * (2 if self.scale_late else 4)
            return in_order_by_processes(
                self._fill,
                self._make,
                steps,
                workers=self.workers,
                prefetch=self.prefetch,
                n_bytes=n_bytes,
            )
        make = partial(self._make, Buffers(self.prefetch + self.workers + 1))
        return in_order(make, steps, threads=self.workers, prefetch=self.prefetch)

    def _windows(self, step: int) -> tuple[Sequence[WindowRef], int]:
        """Return this rank's windows of a step, and their channels."""
        refs = self.plan.batch(step)  # all of one number of channels
        return refs[self.rank :: self.world], len(self.reader.sensors(refs[0].recording_id))

    def _fill(self, memory: Memory, step: int) -> None:
        refs, n_channels = self._windows(step)
        late = self.scale_late
        samples(self.reader, refs, self.n_times, memory, n_channels=n_channels, scale_late=late)

    def _make(self, memory: Memory, step: int) -> Batch:
        refs, n_channels = self._windows(step)
        return collate(
            self.reader,
            refs,
            self.n_times,
            sfreq=self.sfreq,
            n_channels=n_channels,
            scale_late=self.scale_late,
            buffers=memory,
        )


def _forks(reader: WindowReader, parallel: Parallel) -> bool:
    """Return whether processes read."""
    forkable = getattr(reader, "forkable", False)
    forks = forkable and can_fork()
    if parallel == "processes" and not forks:
        why = (
            "this system, or a daemonic process, does not fork"
            if forkable
            else f"this {type(reader).__name__} cannot be read after a fork"
        )
        raise ConfigError(f"parallel='processes': {why}", hint="use 'auto' or 'threads'")
    return forks and parallel != "threads"


def training_loader(
    config: LoaderConfig,
    reader: WindowReader,
    plan: WindowPlan,
    *,
    sfreq: float,
    first_step: int,
    last_step: int,
) -> Loader:
    """Return the batches still to come of a training run, as counts that `Batch.to` scales.

    Parameters
    ----------
    config : LoaderConfig
        How many workers of which kind, and batches made ahead.
    reader : WindowReader
        Where the samples are.
    plan : WindowPlan
        Which windows each step holds.
    sfreq : float
        Sampling rate in hertz.
    first_step, last_step : int
        Global steps, the last one excluded.
    """
    return Loader(
        reader,
        plan,
        n_times=plan.n_times,
        sfreq=sfreq,
        first_step=first_step,
        last_step=last_step,
        workers=config.workers,
        parallel=config.parallel,
        prefetch=config.prefetch,
        scale_late=True,
    )


def label_batches(
    reader: WindowReader,
    refs: Sequence[WindowRef],
    targets: Sequence[int] | None,
    *,
    n_times: int,
    sfreq: float,
    batch_size: int,
    threads: int = 2,
) -> Iterator[Batch]:
    """Return batches of labelled windows in the order given.

    Parameters
    ----------
    reader : WindowReader
        Where the samples are.
    refs : sequence of WindowRef
        Which windows; consecutive ones share a batch.
    targets : sequence of int or None
        Class of each window; None leaves the batches without.
    n_times : int
        Samples in a window.
    sfreq : float
        Sampling rate in hertz.
    batch_size : int
        Windows in a batch; the last may be short.
    threads : int
        Threads that read and decode.

    Returns
    -------
    iterator of Batch
        Made ahead by the threads.

    Raises
    ------
    ConfigError
        If there are not as many targets as windows, or `batch_size` is not positive.
    """
    if targets is not None and len(targets) != len(refs):
        raise ConfigError(f"{len(targets)} targets for {len(refs)} windows")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be positive, got {batch_size}")

    buffers = Buffers(2 * threads + 2)

    def make(first: int) -> Batch:
        part = slice(first, first + batch_size)
        labels = None if targets is None else targets[part]
        return collate(reader, refs[part], n_times, sfreq=sfreq, targets=labels, buffers=buffers)

    firsts = iter(range(0, len(refs), batch_size))
    return in_order(make, firsts, threads=threads, prefetch=threads + 1)


def in_order(
    make: Callable[[int], Batch], numbers: Iterator[int], *, threads: int, prefetch: int
) -> Iterator[Batch]:
    """Yield ``make(n)`` for each number in order, while threads work on the next `prefetch`.

    An error of a thread is raised where its batch would have come. When the consumer stops
    early, what has not begun is dropped and the threads end.
    """
    executor = ThreadPoolExecutor(threads, thread_name_prefix="neurofm-loader")
    pending: deque[Future[Batch]] = deque()
    try:
        for number in numbers:
            pending.append(executor.submit(make, number))
            if len(pending) > prefetch:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)

"""Batches in order, made ahead by threads.

Threads, not worker processes: reading and decoding release the interpreter, and a batch that a
process made would have to be copied once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from neurofm.data.buffers import Buffers
from neurofm.data.collate import collate, require_counts
from neurofm.data.plan import LoaderConfig, WindowPlan, WindowRef
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
    threads : int
        Threads that read and decode.
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
        If options contradict each other, or the reader has no counts to hand on.
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
        threads: int = 2,
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
        self.threads, self.prefetch = threads, prefetch
        self.rank, self.world = rank, world
        self.scale_late = scale_late
        if scale_late:
            _ = require_counts(reader).clip  # refused here and not in a thread

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[Batch]:
        steps = iter(range(self.first_step, self.last_step))
        buffers = Buffers(self.prefetch + self.threads + 1)
        make = partial(self._make, buffers)
        return in_order(make, steps, threads=self.threads, prefetch=self.prefetch)

    def _make(self, buffers: Buffers, step: int) -> Batch:
        refs = self.plan.batch(step)  # all of one number of channels
        return collate(
            self.reader,
            refs[self.rank :: self.world],
            self.n_times,
            sfreq=self.sfreq,
            n_channels=len(self.reader.sensors(refs[0].recording_id)),
            scale_late=self.scale_late,
            buffers=buffers,
        )


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
        Threads, and batches made ahead.
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
        threads=config.threads,
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

"""Batches in order, read ahead by child processes into memory that they share with this one.

Threads that read wait for one another, and for the training loop, whenever they want the
interpreter back; processes do not. A batch is never sent: a child fills a slot of memory that
it has in common with its parent, and says so with one byte.
"""

from __future__ import annotations

import gc
import logging
import mmap
import multiprocessing
import signal
import struct
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

import numpy as np
import torch
from torch import Tensor

from neurofm.data.buffers import Buffers, Memory
from neurofm.signals import Batch

_SPARE = 3  # slots beside those being filled: a consumer may hold two batches without a copy
_TASK = struct.Struct("<QQ")  # step, slot
_DONE, _FAILED = b"\1", b"\0"
_log = logging.getLogger("neurofm")


Fill = Callable[[Memory, int], None]  # reads the samples of a step into this memory
Make = Callable[[Memory, int], Batch]  # the batch of a step, its samples in this memory


def can_fork() -> bool:
    """Return whether this process may have children that go on with what it has in memory."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


class Slots:
    """Memory of a number of batches, shared with every process that is forked from now on.

    Parameters
    ----------
    n : int
        How many.
    n_bytes : int
        Size of the largest batch.
    """

    def __init__(self, n: int, n_bytes: int):
        self.n_bytes = -(-max(n_bytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        # not a file of /dev/shm, which containers keep small; pages nobody writes cost nothing
        self._memory = mmap.mmap(-1, n * self.n_bytes)
        self.free = deque(range(n))

    def array(self, slot: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """Return a slot as an array that holds what was written there."""
        return np.ndarray(shape, dtype, self._memory, slot * self.n_bytes)


class _Written:
    """A slot, as the child sees it that fills it."""

    filled = False

    def __init__(self, slots: Slots, slot: int):
        self._slots, self._slot = slots, slot

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        return torch.from_numpy(self._slots.array(self._slot, shape, dtype))


class _Read:
    """A slot that a child filled: handed on as it is, or copied where slots run short."""

    filled = True

    def __init__(self, slots: Slots, slot: int, buffers: Buffers):
        self._slots, self._slot, self._buffers = slots, slot, buffers

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        array, free = self._slots.array(self._slot, shape, dtype), self._slots.free
        if free and not self._buffers.pinned:
            # torch holds this array for as long as any tensor or view shares its memory
            weakref.finalize(array, free.append, self._slot).atexit = False
            return torch.from_numpy(array)
        copied = self._buffers.take(shape, dtype)
        copied.copy_(torch.from_numpy(array))
        free.append(self._slot)
        return copied


class _Child:
    """A process that fills slots, and this end of the pipe to it."""

    def __init__(self, fill: Fill, slots: Slots, siblings: list[_Child]):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        # a child that kept these open would not notice that its parent, or a sibling, is gone
        others = [self.pipe, *(sibling.pipe for sibling in siblings)]
        self.process: ForkProcess = context.Process(
            target=_serve, args=(fill, slots, theirs, others), daemon=True, name="neurofm-loader"
        )
        self.process.start()
        theirs.close()
        self.lost = False

    def ask(self, step: int, slot: int) -> None:
        """Have a step made, unless the process has ended."""
        try:
            self.pipe.send_bytes(_TASK.pack(step, slot))
        except OSError:
            self._mourn()

    def answered(self) -> bool:
        """Wait for what was asked for first; return whether it is done."""
        if self.lost:
            return False
        try:
            return self.pipe.recv_bytes() == _DONE
        except (EOFError, OSError):
            self._mourn()
            return False

    def _mourn(self) -> None:
        if not self.lost:
            self.lost = True
            self.process.join(1)
            _log.warning(
                "a process that reads windows ended (exit code %s; -9 is the system's when memory "
                "is short); its batches are read by the main process from now on",
                self.process.exitcode,
            )

    def end(self) -> None:
        """End the process; what it was doing is dropped."""
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _serve(fill: Fill, slots: Slots, pipe: Connection, others: list[Connection]) -> None:
    """Fill slots until the parent closes its end of the pipe, or dies."""
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the parent does
    torch.set_num_threads(1)  # those that the parent had do not live here
    gc.freeze()  # to look through what the parent made would copy all its memory
    with suppress(EOFError, OSError):
        while True:
            step, slot = _TASK.unpack(pipe.recv_bytes())
            pipe.send_bytes(_DONE if _filled(fill, _Written(slots, slot), step) else _FAILED)


def _filled(fill: Fill, memory: Memory, step: int) -> bool:
    try:
        fill(memory, step)
    except Exception:  # noqa: BLE001 - the parent makes this batch again, and raises
        return False
    return True


def in_order_by_processes(
    fill: Fill, make: Make, steps: Iterator[int], *, workers: int, prefetch: int, n_bytes: int
) -> Iterator[Batch]:
    """Yield the batch of each step in order, while children read the next `prefetch`.

    A batch that a child could not read is made here, where its error is raised. When the
    consumer stops early the children end.

    Parameters
    ----------
    fill : callable
        ``fill(memory, step)`` reads the samples of a step into `memory`: what children do.
    make : callable
        ``make(memory, step)`` returns a batch with its samples in `memory`, read there unless it
        is filled.
    steps : iterator of int
        In order.
    workers : int
        Processes. They are forked, so nothing is sent to them but steps.
    prefetch : int
        Batches made ahead of the consumer.
    n_bytes : int
        Bytes of the largest batch.

    Yields
    ------
    Batch
        In memory that is used again when nobody holds it any more.
    """
    slots = Slots(prefetch + 1 + _SPARE, n_bytes)
    buffers = Buffers(prefetch + 1)
    children: list[_Child] = []
    pending: deque[tuple[int, int, _Child]] = deque()

    def finish() -> Batch:
        step, slot, child = pending.popleft()
        if child.answered():
            return make(_Read(slots, slot, buffers), step)
        slots.free.append(slot)
        return make(buffers, step)

    try:
        for _ in range(workers):
            children.append(_Child(fill, slots, children))
        for count, step in enumerate(steps):
            child, slot = children[count % workers], slots.free.popleft()
            child.ask(step, slot)
            pending.append((step, slot, child))
            if len(pending) > prefetch:
                yield finish()
        while pending:
            yield finish()
    finally:
        for child in children:
            child.end()

"""A process that does one item at a time, and may be ended at any moment.

`concurrent.futures` cannot tell which item a process died of, nor end one that hangs, and a
process of `multiprocessing` may have no children where Dask runs it: hence one over a socket.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from neurofm.errors import SourceError

T = TypeVar("T")
R = TypeVar("R")

# Recordings are worked on side by side; threads inside one would only wait for each other, and
# sums split over another number of threads differ in their last bits.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
    "from neurofm.preprocessing.worker import serve; serve(int(sys.argv[1]))"
)


class WorkerDied(SourceError):
    """The process that worked on a file is gone: out of memory, killed, or crashed."""


class TimedOut(SourceError):
    """A file took longer than the time limit, and its process was ended."""


class Worker(Generic[T, R]):
    """A child process that applies a function to items, one at a time.

    It ends when this process does.

    Parameters
    ----------
    function : callable
        Must be importable; its results should be small.

    Attributes
    ----------
    process : Popen
        The process.
    connection : Connection
        Readable when there is something to `receive`.
    ready : bool
        Whether the process has started and knows the function.
    """

    def __init__(self, function: Callable[[T], R]):
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | ONE_THREAD,
                start_new_session=True,  # an interrupt at the terminal is the parent's business
            )
        self.connection = Connection(ours.detach())
        self.ready = False
        self.begin(function)

    def begin(self, item: Any) -> None:
        """Send an item."""
        with suppress(OSError):  # it has died; `receive` tells
            self.connection.send(item)

    def receive(self) -> tuple[R | WorkerDied] | None:
        """Wait for the next message: a result, or None when the process has started.

        Raises
        ------
        Exception
            What the function raised.
        """
        try:
            fine, *result = self.connection.recv()
        except (EOFError, OSError):
            self.end()
            return (_last_words(self.process.returncode),)
        if not fine:
            raise result[0]
        self.ready = True
        return (result[0],) if result else None

    def do(self, item: T, timeout_s: float | None) -> R | WorkerDied | TimedOut:
        """Do one item in no more than `timeout_s` seconds, not counting the process's start."""
        self.begin(item)
        answer = None
        while answer is None:
            if not self.connection.poll(timeout_s if self.ready else None):
                return self.stop_waiting(timeout_s)
            answer = self.receive()
        return answer[0]

    def stop_waiting(self, timeout_s: float | None) -> TimedOut:
        """End the process, and say that the item took too long."""
        self.end()
        return TimedOut(
            f"it took longer than {timeout_s:g} s and was stopped",
            hint="raise `timeout_s` if the recording is only long; otherwise exclude it",
        )

    def end(self) -> None:
        """End the process at once; what it is writing has no final name yet."""
        self.process.kill()
        self.process.wait()
        self.connection.close()


def _last_words(status: int) -> WorkerDied:
    if status >= 0:
        return WorkerDied(f"the process that worked on it died with status {status}")
    name = signal.Signals(-status).name
    return WorkerDied(
        f"the process that worked on it was ended by {name}",
        hint="the kernel does this when memory runs out: use fewer `workers`, or exclude the file"
        if name == "SIGKILL"
        else "a library crashed on it: exclude the file, or convert it with another program",
    )


# ---------------------------------------------------------------------------------------
# In the child


def serve(fd: int) -> None:
    """Receive a function, then items; answer each, until the parent is gone."""
    connection = Connection(fd)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_follow, args=(connection, inbox), daemon=True).start()
    function = inbox.get()
    connection.send((True,))
    while True:
        item = inbox.get()
        try:
            answer = (True, function(item))
        # whatever it is, the parent raises it
        except Exception as error:  # noqa: BLE001
            answer = (False, error)
        connection.send(answer)


def _follow(connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    """Pass on what the parent sends, and end with the parent, also in the middle of an item."""
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)
    # what was sent is not importable here
    except Exception as error:  # noqa: BLE001
        connection.send((False, error))
        os._exit(1)

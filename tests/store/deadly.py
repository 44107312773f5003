"""Runs code in processes that die at the n-th of the calls by which they touch the disk.

Each is a fork of this process and not of the one that tests: that one has threads, whose locks
a fork would take over for ever.
"""

import json
import os
import signal
import sys
from pathlib import Path

from conftest import Maker

from neurofm.store.merge import merge
from neurofm.store.remove import remove
from neurofm.store.writer import commit

KNOWN = {"Path": Path, "merge": merge, "remove": remove, "commit": commit, "put": Maker().put}


def deadly(function, calls, n):
    """A call that kills the process if it is the n-th of its kind."""

    def call(*args, **kwargs):
        calls.append(function)
        if len(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return call


def run_and_die(code, names, n):
    signal.alarm(600)  # a child that hangs is told from one that waits for its turn
    calls = []
    for name in names:
        setattr(os, name, deadly(getattr(os, name), calls, n))
    exec(code, KNOWN)
    os._exit(0)


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run_and_die(*json.loads(line))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer

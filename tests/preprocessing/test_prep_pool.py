import operator
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest

from neurofm.preprocessing.pool import WorkerDied, WorkerPool

# calls are items, so that what runs in a worker is importable there
CALL = operator.call


def test_every_item_comes_back_with_its_result():
    items = [partial(abs, -n) for n in range(7)]
    results = {item.args[0]: result for item, result in WorkerPool(CALL, 2).each(items)}
    assert results == {-n: n for n in range(7)}


def test_a_worker_that_dies_loses_its_item_alone():
    items = [partial(abs, -1), partial(os._exit, 9), partial(abs, -2), partial(abs, -3)]
    lost, kept = [], []
    for item, result in WorkerPool(CALL, 2).each(items):
        (lost if isinstance(result, WorkerDied) else kept).append(item)
    assert lost == [items[1]]
    assert sorted(item.args[0] for item in kept) == [-3, -2, -1]


def test_what_was_under_way_beside_a_dying_worker_is_done_again():
    slow, deadly = partial(time.sleep, 1.0), partial(os._exit, 9)
    results = dict(WorkerPool(CALL, 2).each([slow, deadly]))
    assert results[slow] is None
    assert isinstance(results[deadly], WorkerDied)


def test_a_worker_that_starts_while_another_dies_is_not_waited_for(monkeypatch):
    """The executor forgets it, and joins it: the worker registers just after the pool broke."""
    spawn = ProcessPoolExecutor._spawn_process

    def late(pool):
        before = dict(pool._processes)
        spawn(pool)
        (pid,) = set(pool._processes) - set(before)
        if before:  # the second worker: hide it until the first has died and been noticed
            process = pool._processes.pop(pid)
            deadline = time.monotonic() + 20
            while not pool._broken and time.monotonic() < deadline:
                time.sleep(0.01)
            pool._processes[pid] = process

    monkeypatch.setattr(ProcessPoolExecutor, "_spawn_process", late)
    deadly, harmless = partial(os._exit, 9), partial(abs, -2)
    results = dict(WorkerPool(CALL, 2).each([deadly, harmless]))
    assert isinstance(results[deadly], WorkerDied)
    assert results[harmless] == 2


def test_no_more_items_are_taken_than_workers_are_free():
    taken, worst, done = 0, 0, 0

    def items():
        nonlocal taken
        for _ in range(9):
            taken += 1
            yield partial(time.sleep, 0.02)

    for _ in WorkerPool(CALL, 2).each(items()):
        worst = max(worst, taken - done)
        done += 1
    assert done == 9
    # two under way and, at the moment a result is handed over, the two that may replace them
    assert worst <= 4


def test_errors_of_the_function_are_raised():
    with pytest.raises(ZeroDivisionError):
        list(WorkerPool(CALL, 1).each([partial(divmod, 1, 0)]))


def test_workers_do_not_outlive_an_abandoned_run():
    pool = WorkerPool(CALL, 2)
    results = pool.each([partial(os.getpid), partial(time.sleep, 60)])
    _, pid = next(results)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_without_workers_the_work_is_done_here():
    ((_, pid),) = WorkerPool(CALL, 0).each([os.getpid])
    assert pid == os.getpid()

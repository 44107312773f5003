import operator
import os
import signal
import time
from functools import partial

import pytest

from neurofm.errors import ConfigError
from neurofm.preprocessing.pool import WorkerPool
from neurofm.preprocessing.worker import TimedOut, WorkerDied

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


def test_an_item_that_takes_too_long_is_stopped_and_not_tried_again():
    pool = WorkerPool(CALL, 2, timeout_s=0.5)
    hanging, harmless = partial(time.sleep, 60), partial(abs, -2)
    start = time.monotonic()
    results = dict(pool.each([hanging, harmless]))
    assert isinstance(results[hanging], TimedOut)
    assert "longer than 0.5 s" in results[hanging].problem
    assert "timeout_s" in results[hanging].hint
    assert results[harmless] == 2
    assert time.monotonic() - start < 50


def test_the_time_limit_is_for_each_item_and_not_for_all():
    items = [partial(time.sleep, 0.05) for _ in range(40)]
    assert all(r is None for _, r in WorkerPool(CALL, 1, timeout_s=1.8).each(items))


def test_how_a_worker_died_is_told():
    for deadly, words in (
        (partial(os._exit, 9), "died with status 9"),
        (partial(signal.raise_signal, signal.SIGKILL), "ended by SIGKILL"),
        (partial(signal.raise_signal, signal.SIGSEGV), "ended by SIGSEGV"),
    ):
        ((_, result),) = WorkerPool(CALL, 1).each([deadly])
        assert isinstance(result, WorkerDied) and words in result.problem


def test_a_worker_that_was_killed_once_is_forgiven(tmp_path):
    """The item is done again: nothing says that it was the item's fault."""
    once = partial(exec, DIE_ONCE, {"flag": tmp_path / "flag"})
    assert dict(WorkerPool(CALL, 2).each([once])) == {once: None}


DIE_ONCE = """
import os
if not flag.exists():
    flag.touch()
    os._exit(9)
"""


def test_workers_that_cannot_start_are_an_error_and_not_lost_files(monkeypatch):
    monkeypatch.setattr("neurofm.preprocessing.worker._BOOT", "raise SystemExit(3)")
    items = [partial(abs, -n) for n in range(5)]
    with pytest.raises(ConfigError, match="cannot be started: .* status 3"):
        list(WorkerPool(CALL, 2).each(items))


def test_sums_do_not_depend_on_how_many_threads_the_machine_has():
    ((_, threads),) = WorkerPool(CALL, 1).each([partial(os.getenv, "OPENBLAS_NUM_THREADS")])
    assert threads == "1"


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

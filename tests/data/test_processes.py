"""Child processes that read windows into memory shared with their parent."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import recording_of, write_store

from neurofm.contract import SignalContract
from neurofm.data.codes import ReadersWithCodes
from neurofm.data.loader import Loader
from neurofm.data.plan import WindowPlan
from neurofm.data.processes import Slots
from neurofm.data.several import SeveralReaders
from neurofm.errors import ConfigError
from neurofm.store.reader import open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three recordings of 3 and 5 channels."""
    rng = np.random.default_rng(0)
    recordings = [
        recording_of(rng.normal(scale=1e-5, size=(n, 2500)), "ABCDE"[:n], 100.0, subject=str(i))
        for i, n in enumerate((3, 5, 3))
    ]
    contract = SignalContract(sfreq=100.0, band_hz=(0.5, 40.0), window_s=1.0)
    path = tmp_path_factory.mktemp("processes") / "store"
    return open_store(write_store(path, contract, *recordings))


def make_plan(reader, token_budget=20):
    return WindowPlan(reader.index, n_times=100, patches=1, token_budget=token_budget, seed=0)


def make_loader(reader, *, parallel="processes", last_step=60, **options):
    return Loader(
        reader,
        make_plan(reader),
        n_times=100,
        sfreq=100.0,
        last_step=last_step,
        parallel=parallel,
        **options,
    )


def plain(batch):
    return batch.recording_ids, batch.start_s, batch.to("cpu").signal.numpy().tobytes()


def children():
    return [p for p in multiprocessing.active_children() if p.name == "neurofm-loader"]


def expected(store, **options):
    return [plain(batch) for batch in make_loader(store, parallel="threads", **options)]


@pytest.mark.parametrize("scale_late", [False, True])
@pytest.mark.parametrize("world", [1, 3])
def test_a_consumer_may_keep_every_batch(store, scale_late, world):
    options = {"scale_late": scale_late, "world": world, "rank": world - 1}
    kept = list(make_loader(store, prefetch=1, **options))
    assert [plain(batch) for batch in kept] == expected(store, **options)


def test_memory_of_batches_let_go_is_used_again(store):
    places = set()
    for batch in make_loader(store, prefetch=2):
        places.add(batch.signal.data_ptr())
    assert len(places) <= 2 + 1 + 3


def test_a_view_of_a_batch_keeps_its_memory(store):
    views = []
    for batch in make_loader(store, prefetch=1, last_step=30):
        views.append((batch.signal[0, 0], batch.signal[0, 0].clone()))
    del batch
    gc.collect()
    for view, copy in views:
        torch.testing.assert_close(view, copy, rtol=0, atol=0)


def test_a_consumer_that_stops_early_leaves_no_process(store):
    batches = iter(make_loader(store, workers=3))
    first = next(batches)
    assert len(children()) == 3
    before = plain(first)
    batches.close()
    assert children() == []
    assert plain(first) == before


def test_a_worker_that_is_killed_costs_time_alone(store, caplog):
    seen = []
    for number, batch in enumerate(make_loader(store, workers=2)):
        seen.append(plain(batch))
        if number == 5:
            children()[0].kill()
    assert seen == expected(store)
    assert caplog.text.count("a process that reads windows ended (exit code -9") == 1


def test_all_workers_may_be_killed(store, caplog):
    batches = iter(make_loader(store, workers=2))
    seen = [plain(next(batches))]
    for child in children():
        child.kill()
    seen += [plain(batch) for batch in batches]
    assert seen == expected(store)
    assert caplog.text.count("a process that reads windows ended") == 2


def test_an_interrupt_is_the_parents_to_answer(store):
    batches = iter(make_loader(store, workers=2))
    seen = [plain(next(batches))]
    for child in children():
        os.kill(child.pid, signal.SIGINT)
    seen += [plain(batch) for batch in batches]
    assert seen == expected(store)


PARENT = """
import sys, time, multiprocessing
from neurofm.data.loader import Loader
from neurofm.data.plan import WindowPlan
from neurofm.store.reader import open_store
store = open_store(sys.argv[1])
plan = WindowPlan(store.index, n_times=100, patches=1, token_budget=20, seed=0)
loaders = [
    iter(Loader(store, plan, n_times=100, sfreq=100.0, last_step=10**6, parallel="processes"))
    for _ in range(2)
]
for batches in loaders:
    next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""


def test_children_end_when_their_parent_is_killed(store):
    command = [sys.executable, "-c", PARENT, str(store.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pids = parent.stdout.readline().split()
        parent.kill()
    assert len(pids) == 4
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in pids if alive(pid)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Elsewhere:
    """A reader that says nothing of forks."""

    def __init__(self, store):
        self.index, self.sensors, self.expect = store.index, store.sensors, store.expect
        self.read_standard_into = store.read_standard_into


def test_processes_read_only_what_may_be_read_after_a_fork(store):
    other = Elsewhere(store)
    assert make_loader(store, parallel="auto").forks
    assert make_loader(SeveralReaders({"a": store}), parallel="auto").forks
    assert not make_loader(store, parallel="threads").forks
    for reader in (other, SeveralReaders({"a": other})):
        assert not make_loader(reader, parallel="auto").forks
        with pytest.raises(ConfigError, match=r"this \w+ cannot be read after a fork") as caught:
            make_loader(reader)
        assert "'auto' or 'threads'" in caught.value.hint


@pytest.mark.parametrize(("system", "daemon"), [("darwin", False), ("linux", True)])
def test_processes_are_refused_where_there_can_be_none(store, monkeypatch, system, daemon):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", daemon)
    assert not make_loader(store, parallel="auto").forks
    with pytest.raises(ConfigError, match="this system, or a daemonic process, does not fork"):
        make_loader(store)


@pytest.mark.parametrize("world", [1, 2, 5])
@pytest.mark.parametrize("token_budget", [1, 7, 20, 10_000])
def test_no_batch_is_larger_than_the_plan_says(store, world, token_budget):
    plan = make_plan(store, token_budget)
    channels = {name: len(store.sensors(name)) for name in store.index["recording_id"]}
    sizes = [
        sum(channels[ref.recording_id] * 100 for ref in plan.batch(step)[rank::world])
        for step in range(plan.steps_per_epoch)
        for rank in range(world)
    ]
    assert max(sizes) == plan.most_samples(world)


def test_children_read_samples_alone_and_their_parent_the_codes(store, tmp_path):
    asked = tmp_path / "asked"

    class Codes:
        def read_codes(self, recording_id, start):
            with asked.open("a") as file:
                file.write(f"{os.getpid()}\n")
            return np.full((2, 1, 1, 1), start, np.int16)

    reader = ReadersWithCodes({"a": store}, {"a": Codes()})
    for batch in make_loader(reader, last_step=10):
        starts = [round(start * 100) for start in batch.start_s]
        assert batch.codes[:, 0, 0, 0, 0].tolist() == starts
    assert set(asked.read_text().split()) == {str(os.getpid())}


def test_slots_do_not_overlap():
    slots = Slots(3, 5000)
    arrays = [slots.array(i, (25, 50), np.float32) for i in range(3)]
    for number, array in enumerate(arrays):
        array.fill(number)
    assert [set(array.ravel().tolist()) for array in arrays] == [{0.0}, {1.0}, {2.0}]
    assert slots.array(1, (0, 5), np.int16).shape == (0, 5)

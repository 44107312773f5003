"""What is about to be read is asked for at once, and only if it has to come from a disk."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from neurofm.contract import SignalContract
from neurofm.data.collate import collate
from neurofm.data.plan import WindowRef
from neurofm.data.several import SeveralReaders
from neurofm.sensors import Sensors
from neurofm.signals import Entities, Recording
from neurofm.store import reader
from neurofm.store.reader import open_store
from neurofm.store.windows import ShardReader, fits_memory
from neurofm.store.writer import commit, create_store, write_recording

N_TIMES = 100
REFS = [WindowRef("d_sub-0", 300), WindowRef("d_sub-1", 50), WindowRef("d_sub-0", 700)]


def make_store(path, subjects, *, whole=False):
    create_store(path, SignalContract(sfreq=100.0, band_hz=(0.5, 40.0), window_s=1.0))
    rows = []
    for subject in subjects:
        signal = np.random.default_rng(int(subject)).normal(scale=1e-5, size=(3, 1207))
        recording = Recording(
            signal=signal.astype(np.float32),
            sfreq=100.0,
            sensors=Sensors(
                ch_names=("A", "B", "C"),
                kind=np.zeros(3, np.int8),
                position=np.zeros((3, 3), np.float32),
                orientation=np.zeros((3, 3), np.float32),
                known=np.zeros(3, np.int8),
                oriented=np.zeros(3, bool),
                region=(None,) * 3,
            ),
            entities=Entities(dataset="d", subject=subject),
        )
        rows.append(write_recording(path, recording, quality={}, provenance={}))
    commit(path, rows)
    store = open_store(path)
    store._shards = ShardReader(whole=whole)
    return store


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store", "01")


@pytest.fixture
def asked(monkeypatch):
    """Where the system was asked to read ahead."""
    found = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *extent: found.append(extent))
    return found


def on_disk(monkeypatch, answer):
    """Make every read that must not wait give an answer: as if nothing were in memory."""
    read = os.preadv

    def preadv(fd, buffers, offset, flags=0):
        return answer(fd, buffers, offset) if flags else read(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)


def would_wait(*_):
    raise BlockingIOError


def cannot_tell(*_):
    raise OSError("not supported")


def a_part(fd, buffers, offset):
    return os.pread(fd, len(buffers[0]) // 2, offset).__len__()


def extent_of(store, ref):
    shard = store._shards._shard(store._array(ref.recording_id), 0)
    first, last = ref.start // N_TIMES, -(-(ref.start + N_TIMES) // N_TIMES)
    return (*shard.extent(range(first, last)), os.POSIX_FADV_WILLNEED)


@pytest.mark.parametrize("answer", [would_wait, cannot_tell, a_part])
def test_the_first_window_that_is_not_in_memory_asks_for_all(store, asked, monkeypatch, answer):
    there = collate(store, REFS, N_TIMES, sfreq=100.0).signal
    assert asked == []
    on_disk(monkeypatch, answer)
    batch = collate(store, REFS, N_TIMES, sfreq=100.0)
    assert asked == [extent_of(store, ref) for ref in REFS]
    assert (batch.signal == there).all()


def test_of_a_store_that_memory_can_hold_whole_shards_are_asked_for_once(
    asked, monkeypatch, tmp_path
):
    store = make_store(tmp_path / "store", "01", whole=True)
    on_disk(monkeypatch, would_wait)
    batch = collate(store, REFS, N_TIMES, sfreq=100.0)
    sizes = [store._shards._shard(store._array(f"d_sub-{i}"), 0).size for i in (0, 1)]
    whole = [(0, size, os.POSIX_FADV_WILLNEED) for size in sizes]
    # the third window lies in a shard that was asked for already: what was dropped since comes alone
    assert asked == [*whole, extent_of(store, REFS[2])]
    asked.clear()
    again = collate(store, REFS, N_TIMES, sfreq=100.0)
    assert asked == [extent_of(store, ref) for ref in REFS]
    assert (batch.signal == again.signal).all()


@pytest.mark.parametrize(
    ("meminfo", "n_bytes", "fits"),
    [
        ("MemTotal: 9000 kB\nMemAvailable:    2000 kB\n", 1_000 * 1024, True),
        ("MemTotal: 9000 kB\nMemAvailable:    2000 kB\n", 1_001 * 1024, False),
        ("MemTotal: 9000 kB\n", 1, False),
        (None, 1, False),
    ],
)
def test_a_store_may_take_half_of_the_memory_that_is_free(monkeypatch, meminfo, n_bytes, fits):
    def read_text(path):
        if meminfo is None:
            raise FileNotFoundError(path)
        return meminfo

    monkeypatch.setattr(Path, "read_text", read_text)
    assert fits_memory(n_bytes) is fits


def test_a_store_knows_whether_memory_can_hold_it(store, monkeypatch):
    asked_of = []
    monkeypatch.setattr(reader, "fits_memory", lambda n_bytes: asked_of.append(n_bytes) or True)
    assert open_store(store.path)._shards._whole
    files = (p for p in store.path.rglob("c/0/*") if p.is_file())
    assert asked_of == [sum(p.stat().st_size for p in files)]


def test_a_read_that_nobody_announced_just_waits(store, asked, monkeypatch):
    on_disk(monkeypatch, would_wait)
    store.read_standard_into("d_sub-0", 0, np.empty((3, N_TIMES), np.float32))
    assert asked == []


def test_what_cannot_be_found_is_told_of_where_it_is_read(store, asked, monkeypatch):
    on_disk(monkeypatch, would_wait)
    for path in store.path.glob("recordings/d_sub-1/signal/c/0/*"):
        path.unlink()
    read = partial(store.read_standard_into, out=np.empty((3, N_TIMES), np.float32))
    store.expect(REFS, N_TIMES)
    read("d_sub-0", 300)
    with pytest.raises(Exception, match="d_sub-1: shard .* cannot be read"):
        read("d_sub-1", 50)


def test_each_of_several_stores_is_told_of_its_own(store, asked, monkeypatch, tmp_path):
    other = make_store(tmp_path / "other", "23")
    both = SeveralReaders({"a": store, "b": other})
    on_disk(monkeypatch, would_wait)
    refs = [*REFS, WindowRef("d_sub-3", 0)]
    collate(both, refs, N_TIMES, sfreq=100.0)
    assert asked == [extent_of(both._home[ref.recording_id], ref) for ref in refs]


def test_factors_that_are_shared_cannot_be_written_to(store):
    with pytest.raises(ValueError, match="read-only"):
        store.standard_scale("d_sub-0")[0] = 1

"""Reading: damage is found and named, and a store may be used from anywhere."""

import json
import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest

from neurofm.contract import SignalContract
from neurofm.errors import StoreError
from neurofm.sensors import Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.reader import open_store
from neurofm.store.windows import ShardReader
from neurofm.store.writer import commit, create_store, write_recording

CONTRACT = SignalContract(sfreq=100.0, band_hz=(0.5, 40.0), window_s=1.0)


@pytest.fixture
def path(tmp_path):
    """Three recordings of four channels x 12 s in chunks of 0.5 s."""
    folder = tmp_path / "store"
    create_store(folder, CONTRACT, chunk_s=0.5)
    rng = np.random.default_rng(0)
    sensors = Sensors(
        ch_names=("Fz", "Cz", "Pz", "Oz"),
        kind=np.zeros(4, np.int8),
        position=np.zeros((4, 3), np.float32),
        orientation=np.zeros((4, 3), np.float32),
        known=np.zeros(4, np.int8),
        oriented=np.zeros(4, bool),
        region=(None,) * 4,
    )
    rows = []
    for subject in ("anna", "bert", "carl"):
        recording = Recording(
            signal=rng.normal(scale=1e-5, size=(4, 1200)).astype(np.float32),
            sfreq=100.0,
            sensors=sensors,
            entities=Entities(dataset="d", subject=subject),
        )
        rows.append(write_recording(folder, recording, quality={}, provenance={}))
    commit(folder, rows)
    return folder


def shard_of(path, subject):
    return path / f"recordings/d_sub-{subject}/signal/c/0/0"


def test_a_missing_store_is_said(tmp_path):
    with pytest.raises(StoreError, match=r"there is no store at .*nowhere\n"):
        open_store(tmp_path / "nowhere")


def test_a_folder_without_zarr_is_not_a_store(tmp_path):
    with pytest.raises(StoreError, match=r"is not a store: it has no zarr\.json"):
        open_store(tmp_path)


def test_other_zarr_is_not_a_store(tmp_path):
    (tmp_path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "attributes": {"a": 1}}))
    with pytest.raises(StoreError, match="is Zarr, but not a neurofm store"):
        open_store(tmp_path)


def test_another_format_is_refused(path):
    text = (path / "zarr.json").read_text().replace('"format": 1', '"format": 7')
    (path / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match="has format 7; this version reads 1"):
        open_store(path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_metadata_is_refused(path, text):
    (path / "recordings/d_sub-anna/zarr.json").write_text(text)
    with pytest.raises(StoreError, match=r"d_sub-anna: .*zarr\.json (cannot be read|holds no)"):
        open_store(path).sensors("d_sub-anna")


def test_metadata_that_lacks_a_part_is_refused(path):
    file = path / "recordings/d_sub-anna/zarr.json"
    table = json.loads(file.read_text())
    del table["attributes"]["events"]
    file.write_text(json.dumps(table))
    with pytest.raises(StoreError, match=r"d_sub-anna: .* lacks events"):
        open_store(path).events("d_sub-anna")


def test_a_damaged_index_is_refused(path):
    (path / "index.parquet").write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(StoreError, match=r"index\.parquet cannot be read.*\n.*delete it"):
        open_store(path)


def test_an_unknown_recording_gets_the_nearest_name(path):
    with pytest.raises(StoreError, match=r"no recording 'd_sub-ana'.*\n.*mean 'd_sub-anna'"):
        open_store(path).read("d_sub-ana", 0, 1)


@pytest.mark.parametrize(("start", "stop"), [(-0.5, 1.0), (11.5, 12.5), (30.0, 31.0)])
def test_reading_outside_says_how_long_the_recording_is(path, start, stop):
    with pytest.raises(StoreError, match="d_sub-bert: asked for .* recording is 12 s long"):
        open_store(path).read("d_sub-bert", start, stop)


def test_reading_backwards_is_refused(path):
    with pytest.raises(StoreError, match="d_sub-bert: nothing to read from 2 to 1 s"):
        open_store(path).read("d_sub-bert", 2, 1)


@pytest.mark.parametrize("out", [np.empty((3, 5), "f4"), np.empty((4, 5), "f8"), np.empty(4, "f4")])
def test_a_buffer_that_does_not_fit_is_refused(path, out):
    with pytest.raises(StoreError, match="cannot read 4 channels of float32 into"):
        open_store(path).read_into("d_sub-anna", 0, out)


def test_any_flipped_bit_is_found(path):
    """Bits all over the file: chunks, their checksums, the index, its checksum."""
    shard = shard_of(path, "anna")
    good = shard.read_bytes()
    truth = open_store(path).recording("d_sub-anna").signal
    rng = np.random.default_rng(1)
    for position in rng.choice(len(good), 150, replace=False):
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(rng.integers(8))
        shard.write_bytes(damaged)
        store = open_store(path)
        try:
            signal = store.recording("d_sub-anna").signal
        except StoreError as error:
            assert "d_sub-anna" in str(error)
            assert str(shard) in str(error)
            assert "preprocess the recording again" in str(error)
        else:
            np.testing.assert_array_equal(signal, truth)
            pytest.fail(f"a flipped bit in byte {position} went unseen")
        assert len(store.verify()) == 1
    shard.write_bytes(good)
    assert open_store(path).verify() == []


def test_a_damaged_chunk_does_not_spoil_the_one_read_before(path):
    store = open_store(path)
    truth = store.read("d_sub-anna", 0, 0.5)
    store.read("d_sub-anna", 0, 0.5)
    shard = shard_of(path, "anna")
    damaged = bytearray(shard.read_bytes())
    opened = store._shards._shard(store._array("d_sub-anna"), 0)
    offset, length = opened.extent(range(1, 2))
    damaged[offset + length - 20 : offset + length - 4] = bytes(16)
    shard.write_bytes(damaged)
    for _ in range(2):
        with pytest.raises(StoreError, match="chunk 1 in shard .* is damaged: its checksum"):
            store.read("d_sub-anna", 0.5, 1)
    np.testing.assert_array_equal(store.read("d_sub-anna", 0, 0.5), truth)


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_a_cut_off_shard_is_found(path, keep):
    shard = shard_of(path, "anna")
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"d_sub-anna: the index of shard .* damaged or cut off"):
        open_store(path).read("d_sub-anna", 0, 1)
    open_store(path).read("d_sub-bert", 0, 1)


def test_a_lost_shard_is_not_taken_for_silence(path):
    shard_of(path, "anna").unlink()
    with pytest.raises(StoreError, match="d_sub-anna: shard .* cannot be read: No such file"):
        open_store(path).read("d_sub-anna", 0, 1)


def test_an_index_that_disagrees_with_the_array_is_found(path):
    file = path / "recordings/d_sub-anna/signal/zarr.json"
    table = json.loads(file.read_text())
    table["shape"] = [4, 1199]
    file.write_text(json.dumps(table))
    with pytest.raises(StoreError, match="1199 samples on disk, 1200 in the index"):
        open_store(path).read("d_sub-anna", 0, 1)
    assert len(open_store(path).verify()) == 1


def test_sensors_of_one_montage_are_one_object(path):
    store = open_store(path)
    assert store.sensors("d_sub-anna") is store.sensors("d_sub-bert")


def test_what_is_returned_may_be_changed(path):
    store = open_store(path)
    store.divisor("d_sub-anna")[:] = 0
    store.quality("d_sub-anna").clear()
    assert (store.divisor("d_sub-anna") > 0).all()
    assert store.quality("d_sub-anna")


def test_open_files_are_bounded(path):
    store = open_store(path)
    store._shards = ShardReader(open_shards=2)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        for name in store.index["recording_id"]:
            store.read(name, 0, 1)
            assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208
    del store


def checksum(store):
    return [float(store.read(n, 2.2, 7.7).astype("f8").sum()) for n in store.index["recording_id"]]


def send(store, queue):
    queue.put(checksum(store))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_used_store_goes_to_another_process(path, method):
    store = open_store(path)
    expected = checksum(store)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=send, args=(store, queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=600) for _ in children] == [expected, expected]
    for child in children:
        child.join(600)
    assert checksum(store) == expected


def test_a_store_is_pickled_as_its_path(path):
    data = pickle.dumps(open_store(path))
    assert len(data) < 500
    assert checksum(pickle.loads(data)) == checksum(open_store(path))


def test_threads_share_a_store(path):
    store = open_store(path)
    truth = {name: store.recording(name).signal for name in store.index["recording_id"]}
    store._shards = ShardReader(open_shards=1)  # so that they close each other's files
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(150):
            name = rng.choice(list(truth))
            start = int(rng.integers(0, 1000))
            out = np.empty((4, 200), np.float32)
            store.read_into(name, start, out)
            if not np.array_equal(out, truth[name][:, start : start + 200]):
                wrong.append((name, start))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_store_says_what_it_is(path):
    assert repr(open_store(path)).endswith("store': 3 recordings, 0.0 h)")

"""Behind a URL: the same store, read by ranges, from any process, through any weather."""

import multiprocessing
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import fsspec
import numpy as np
import pytest

from neurofm.data.loader import Loader
from neurofm.data.plan import WindowPlan
from neurofm.errors import StoreError
from neurofm.store import remote
from neurofm.store.merge import merge
from neurofm.store.reader import open_store
from neurofm.store.remote import RemotePath, location
from neurofm.store.remove import remove
from neurofm.store.writer import commit, create_store, recover, write_recording

_spec = spec_from_file_location("store_servers", Path(__file__).with_name("servers.py"))
servers = module_from_spec(_spec)
_spec.loader.exec_module(servers)


@pytest.fixture(scope="module")
def s3():
    with servers.s3_server() as (address, asked):
        yield RemotePath("s3://bucket", endpoint_url=address, key="k", secret="s"), asked


@pytest.fixture
def bucket(s3):
    """An empty bucket, and what the server is asked."""
    place, asked = s3
    fs = place._filesystem()
    if fs.exists("bucket"):
        fs.rm("bucket", recursive=True)
    fs.invalidate_cache()
    fs.mkdir("bucket")
    asked.clear()
    return place, asked


@pytest.fixture
def web(tmp_path):
    with servers.http_server(tmp_path) as server:
        yield server


def long_recording(maker):
    recording = maker.recording("long")
    signal = np.random.default_rng(0).normal(scale=1e-5, size=(4, 60_000)).astype(np.float32)
    return recording.evolve(signal=signal)


def put(path, recording):
    return write_recording(path, recording, quality={}, provenance={})


def samples(store):
    return {name: store.recording(name).signal for name in store.index["recording_id"]}


def assert_equal(one, other):
    assert list(one) == list(other)
    assert all(np.array_equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------
# What a place is


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stores/a", Path("stores/a")),
        ("file:///stores/a", Path("/stores/a")),
        ("s3://bucket/a/", RemotePath("s3://bucket/a")),
    ],
)
def test_a_url_is_told_from_a_folder(text, expected):
    assert location(text) == expected


def test_a_tilde_is_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert location("~/stores/a") == Path("/home/anna/stores/a")


def test_a_url_that_became_a_path_is_refused():
    with pytest.raises(StoreError, match="'s3:/bucket/a' is a URL that lost a slash"):
        open_store(Path("s3://bucket/a"))


def test_an_unknown_protocol_is_refused():
    with pytest.raises(StoreError, match=r"gopher://a.* cannot be opened: .*\n.*s3://, gs://"):
        open_store("gopher://a")


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(StoreError, match=r"cannot be opened: .*\n.*pip install 'neurofm\[cloud\]'"):
        open_store("s3://bucket/a")


def test_a_local_store_does_not_import_fsspec_file_systems(tmp_path, maker):
    maker.store(tmp_path / "a", "anna")
    code = (
        "import sys; from neurofm.store.reader import open_store\n"
        f"open_store({str(tmp_path / 'a')!r}).recording('d_sub-anna')\n"
        "sys.exit('aiohttp' in sys.modules or 's3fs' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_secrets_in_options_are_not_shown():
    assert "hush" not in repr(RemotePath("s3://bucket/a", secret="hush")) + str(
        RemotePath("s3://bucket/a", secret="hush")
    )


# ---------------------------------------------------------------------------------------
# S3


def test_a_store_on_s3_is_the_store_on_disk(bucket, tmp_path, maker):
    here = open_store(maker.store(tmp_path / "a", "anna", "bert"))
    there = open_store(maker.store(bucket[0] / "a", "anna", "bert"))
    assert_equal(samples(here), samples(there))
    assert there.index.equals(here.index)
    assert there.verify() == []
    names = {p.relative_to(here.path).as_posix() for p in here.path.rglob("*") if p.is_file()}
    assert set(there.path.files()) == names
    assert all((there.path / n).read_bytes() == (here.path / n).read_bytes() for n in names)


def test_plain_zarr_reads_a_store_on_s3(bucket, maker):
    import zarr

    maker.store(bucket[0] / "a", "anna")
    options = {"key": "k", "secret": "s", "endpoint_url": bucket[0]._options["endpoint_url"]}
    array = zarr.open("s3://bucket/a", mode="r", storage_options=options)[
        "recordings/d_sub-anna/signal"
    ]
    scale = np.asarray(array.attrs["scale"], np.float32)[:, None]
    expected = open_store(bucket[0] / "a").recording("d_sub-anna").signal
    assert np.array_equal(array[:] * scale, expected)


def test_a_loader_reads_only_the_ranges_it_needs(bucket, maker):
    place, asked = bucket[0] / "a", bucket[1]
    create_store(place, maker.contract)
    commit(place, [put(place, long_recording(maker))])
    (shard,) = (n for n in (place.files()) if "/c/0/" in n)
    whole = place.files()[shard]
    asked.clear()
    store = open_store(place)
    plan = WindowPlan(store.index, n_times=100, patches=1, token_budget=40, seed=0)
    loader = Loader(store, plan, n_times=100, sfreq=100.0, last_step=2, workers=2)
    assert not loader.forks  # a client and its connections do not survive a fork
    windows = [row for batch in loader for row in batch.signal.numpy()]
    reads = asked.of("/signal/c/0/0")
    assert all(wanted is not None for _, _, wanted, _ in reads)
    # a range a window, and one for the index of the shard; threads may ask for that at once, and
    # a client asks again where a busy server did not answer
    assert len({wanted for _, _, wanted, _ in reads}) == len(windows) + 1
    index_bytes = store._array("d_sub-long").grid.chunks_per_shard * 16 + 4
    sent = sum(n for *_, n in reads)
    assert sent < 2 * index_bytes + len(windows) * whole / 600 * 2.2
    assert sent < whole / 3
    assert len(windows) > 10


def test_opening_a_store_costs_the_same_however_many_recordings_it_has(bucket, maker):
    costs = []
    for name, subjects in (("one", ["a"]), ("ten", [f"s{i}" for i in range(10)])):
        maker.store(bucket[0] / name, *subjects)
        bucket[1].clear()
        open_store(bucket[0] / name)
        costs.append(len(bucket[1].requests))
    assert costs[0] == costs[1] <= 6


def test_threads_share_a_store_on_s3(bucket, maker):
    store = open_store(maker.store(bucket[0] / "a", "anna", "bert", "carl"))
    expected = samples(store)
    fresh = open_store(store.path)
    names = list(expected) * 8
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda name: fresh.recording(name).signal, names))
    assert all(np.array_equal(a, expected[name]) for a, name in zip(found, names, strict=True))


def send(store, queue):
    queue.put(float(sum(np.abs(s).sum() for s in samples(store).values())))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_used_store_on_s3_goes_to_another_process(bucket, maker, method):
    store = open_store(maker.store(bucket[0] / "a", "anna", "bert"))
    expected = float(sum(np.abs(s).sum() for s in samples(store).values()))
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=send, args=(store, queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=600) for _ in children] == [expected, expected]
    for child in children:
        child.join(600)
    send(store, queue)
    assert queue.get(timeout=600) == expected


def test_a_place_is_pickled_as_its_url_and_options():
    place = pickle.loads(pickle.dumps(RemotePath("s3://bucket/a", endpoint_url="http://x")))
    assert place == RemotePath("s3://bucket/a", endpoint_url="http://x")
    assert place != RemotePath("s3://bucket/a", endpoint_url="http://y")


def test_what_another_process_wrote_is_listed(bucket):
    place = bucket[0] / "place"
    (place / "one").write_bytes(b"1")
    assert set(place.files()) == {"one"}
    other = RemotePath(str(place), default_block_size=2**23, **place._options)
    (other / "two").write_bytes(b"22")
    assert place.files() == {"one": 1, "two": 2}


def test_a_recording_whose_upload_died_is_invisible_and_can_be_written_again(
    bucket, maker, monkeypatch
):
    place = maker.store(bucket[0] / "a", "anna")
    calls, upload = [], RemotePath.put

    def die(self, file):
        calls.append(str(self))
        if self.name == "zarr.json" and self.parent.name == "d_sub-long":
            raise KeyboardInterrupt
        upload(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "put", die)
        with pytest.raises(KeyboardInterrupt):
            put(place, long_recording(maker))
    assert len(calls) > 2  # the group's own metadata went last
    assert recover(place) == []
    assert list(open_store(place).index["recording_id"]) == ["d_sub-anna"]
    assert open_store(place).verify() != []
    commit(place, [put(place, long_recording(maker))])
    assert open_store(place).verify() == []
    assert len(open_store(place)) == 2


def test_what_was_uploaded_and_not_committed_is_adopted(bucket, maker):
    place = maker.store(bucket[0] / "a", "anna")
    maker.put(place, "bert")
    assert len(open_store(place)) == 1
    assert recover(place) == ["d_sub-bert"]
    assert len(open_store(place)) == 2


def test_a_recording_on_s3_is_written_once(bucket, maker):
    place = maker.store(bucket[0] / "a", "anna")
    with pytest.raises(StoreError, match="recording 'd_sub-anna' is in s3://bucket/a already"):
        maker.put(place, "anna")


def test_stores_go_up_and_come_down_by_merging(bucket, tmp_path, maker):
    here = maker.store(tmp_path / "a", "anna", "bert")
    merge([here], bucket[0] / "up")
    merge([bucket[0] / "up"], tmp_path / "down")
    files = {p.relative_to(here): p.read_bytes() for p in here.rglob("*") if p.is_file()}
    down = tmp_path / "down"
    assert files == {p.relative_to(down): p.read_bytes() for p in down.rglob("*") if p.is_file()}
    assert merge([here], bucket[0] / "up").same == ("d_sub-anna", "d_sub-bert")


def test_a_recording_is_removed_on_s3(bucket, maker):
    place = maker.store(bucket[0] / "a", "anna", "bert")
    remove(place, ["d_sub-anna"])
    assert list(open_store(place).index["recording_id"]) == ["d_sub-bert"]
    assert not (place / "recordings/d_sub-anna").files()
    assert open_store(place).verify() == []


def test_something_else_behind_the_url_is_not_touched(bucket, maker):
    (bucket[0] / "mine/data.csv").write_bytes(b"1")
    with pytest.raises(StoreError, match="s3://bucket/mine exists and is not a neurofm store"):
        create_store(bucket[0] / "mine", maker.contract)
    assert set((bucket[0] / "mine").files()) == {"data.csv"}


def test_a_missing_store_or_bucket_is_said(bucket):
    with pytest.raises(StoreError, match="there is no store at s3://bucket/none"):
        open_store(bucket[0] / "none")
    with pytest.raises(StoreError, match="there is no store at s3://tekcub/none"):
        open_store(RemotePath("s3://tekcub/none", **bucket[0]._options))


def test_damage_on_s3_is_found(bucket, maker):
    place = maker.store(bucket[0] / "a", "anna")
    shard = place / "recordings/d_sub-anna/signal/c/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="d_sub-anna: chunk .* is damaged"):
        open_store(place).recording("d_sub-anna")
    shard.write_bytes(bytes(data[:40]))
    with pytest.raises(StoreError, match="index of shard s3://.* damaged or cut off"):
        open_store(place).recording("d_sub-anna")


# ---------------------------------------------------------------------------------------
# HTTP, to read only


def test_a_store_behind_http_is_the_store_on_disk(web, tmp_path, maker):
    here = open_store(maker.store(tmp_path / "a", "anna", "bert"))
    there = open_store(f"{web.url}/a")
    assert_equal(samples(here), samples(there))
    assert there.verify() == []


def test_over_http_a_window_is_one_range(web, tmp_path, maker):
    create_store(tmp_path / "a", maker.contract)
    commit(tmp_path / "a", [put(tmp_path / "a", long_recording(maker))])
    store = open_store(f"{web.url}/a")
    store.read("d_sub-long", 0, 1)
    web.asked.clear()
    for start in (100.3, 200.7, 555.5):
        here = open_store(tmp_path / "a").read("d_sub-long", start, start + 1)
        assert np.array_equal(store.read("d_sub-long", start, start + 1), here)
    assert len(web.asked.requests) == 3
    assert web.asked.n_bytes < 3 * 2000


def test_a_server_that_is_busy_is_asked_again(web, tmp_path, maker, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES_S", (0.01, 0.02, 0.04))
    maker.store(tmp_path / "a", "anna")
    store = open_store(f"{web.url}/a")
    web.failures = 3
    assert np.isfinite(store.recording("d_sub-anna").signal).all()
    web.failures = 1000
    with pytest.raises(StoreError, match="the store http.* cannot be reached: .*503"):
        open_store(f"{web.url}/a")
    with pytest.raises(StoreError, match="d_sub-anna: .*503"):
        store.events("d_sub-anna")


def test_a_server_without_ranges_is_refused(web, tmp_path, maker):
    maker.store(tmp_path / "a", "anna")
    web.knows_ranges = False
    with pytest.raises(StoreError, match="the server does not answer range requests"):
        open_store(f"{web.url}/a").recording("d_sub-anna")


def test_a_server_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES_S", (0.01,))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StoreError, match=r"the store http://.* cannot be reached: .*\n.*network"):
        open_store(f"http://127.0.0.1:{port}/a")


def test_writing_over_http_is_refused(web, tmp_path, maker):
    maker.store(tmp_path / "a", "anna")
    with pytest.raises(StoreError, match="d_sub-bert cannot be written to http"):
        maker.put(f"{web.url}/a", "bert")
    with pytest.raises(StoreError, match="cannot be removed from http"):
        remove(f"{web.url}/a", ["d_sub-anna"])


# ---------------------------------------------------------------------------------------
# In memory


def test_a_store_in_memory_is_a_store(tmp_path, maker):
    here = open_store(maker.store(tmp_path / "a", "anna", "bert"))
    there = open_store(maker.store("memory://remote-test/a", "anna", "bert"))
    assert_equal(samples(here), samples(there))
    assert there.verify() == []
    fsspec.filesystem("memory").rm("/remote-test", recursive=True)

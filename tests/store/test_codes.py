"""Codes beside the signal: plain Zarr, complete or not there, and whose they are."""

import numpy as np
import pytest
import zarr
from stores import recording_of, write_store

from neurofm.contract import SignalContract
from neurofm.data.codes import ReadersWithCodes
from neurofm.data.collate import collate
from neurofm.data.plan import WindowRef
from neurofm.errors import StoreError, StoreUnwritable
from neurofm.store.codes import CodesOf, StoredCodes, drop_codes, identities, write_codes
from neurofm.store.merge import merge
from neurofm.store.reader import open_store
from neurofm.store.remote import location
from neurofm.store.remove import remove

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
MINE = CodesOf(identity="0123456789ab", about={"name": "toy"}, n_times=128)
OTHER = CodesOf(identity="ba9876543210", about={"name": "toy"}, n_times=128)
STARTS = [0, 128, 256, 400]


def make_store(path):
    """Two recordings of 600 samples."""
    signals = 1e-5 * np.random.default_rng(0).standard_normal((2, 3, 600))
    two = (
        recording_of(signal, ["Fz", "Cz", "Pz"], subject=subject)
        for subject, signal in zip("12", signals, strict=True)
    )
    return write_store(path, CONTRACT, *two)


@pytest.fixture
def path(tmp_path):
    return make_store(tmp_path / "store")


def some_codes(seed=0, most=32767):
    draw = np.random.default_rng(seed)
    return draw.integers(0, most, (len(STARTS), 3, 4, 2, 2), endpoint=True)


def test_codes_come_back_and_zarr_reads_them(path):
    codes = some_codes()
    write_codes(path, "toy_sub-1", MINE, STARTS, codes)
    stored = StoredCodes(open_store(path), MINE)
    for start, expected in zip(STARTS, codes, strict=True):
        assert np.array_equal(stored.read_codes("toy_sub-1", start), expected)
    array = zarr.open_group(path, mode="r")["recordings/toy_sub-1/codes-0123456789ab"]
    assert array.shape == (3 * 4 * 2 * 2, len(STARTS))
    shape = array.attrs["token_shape"]
    assert np.array_equal(array[:, 2].reshape(shape), codes[2])
    assert array.attrs["tokenizer"] == {"name": "toy"}


def test_many_windows_take_several_shards(path, monkeypatch):
    monkeypatch.setattr("neurofm.store.layout.SHARD_BYTES", 3 * 48 * 2)
    starts = list(range(0, 1000, 7))
    codes = np.random.default_rng(0).integers(0, 99, (len(starts), 3, 4, 2, 2))
    write_codes(path, "toy_sub-1", MINE, starts, codes)
    folder = MINE.path(path, "toy_sub-1")
    assert len(list((folder / "c" / "0").iterdir())) == -(-len(starts) // 3)
    stored = StoredCodes(open_store(path), MINE)
    assert np.array_equal(stored.read_codes("toy_sub-1", starts[-1]), codes[-1])
    assert np.array_equal(zarr.open_array(folder, mode="r")[:, 5], codes[5].ravel())


def test_codes_of_another_tokenizer_are_not_taken_for_these(path):
    stored = StoredCodes(open_store(path), MINE)
    with pytest.raises(StoreError, match=r"2 recording\(s\).* no codes of the tokenizer 0123.*\n"):
        stored.require(["toy_sub-1", "toy_sub-2"])
    write_codes(path, "toy_sub-1", OTHER, STARTS, some_codes())
    assert identities(path, "toy_sub-1") == {OTHER.identity}
    with pytest.raises(StoreError, match="there are codes of ba98.*\n.*under another contract"):
        stored.read_codes("toy_sub-1", 0)
    write_codes(path, "toy_sub-1", MINE, STARTS, some_codes(1))
    stored.require(["toy_sub-1"])
    assert identities(path, "toy_sub-1") == {OTHER.identity, MINE.identity}


def test_an_array_that_says_otherwise_than_its_name_is_refused(path):
    write_codes(path, "toy_sub-1", OTHER, STARTS, some_codes())
    OTHER.path(path, "toy_sub-1").rename(MINE.path(path, "toy_sub-1"))
    with pytest.raises(StoreError, match="says of its codes tokenizer ba98.*, expected 0123"):
        StoredCodes(open_store(path), MINE).read_codes("toy_sub-1", 0)
    longer = CodesOf(identity=OTHER.identity, about={}, n_times=256)
    MINE.path(path, "toy_sub-1").rename(OTHER.path(path, "toy_sub-1"))
    with pytest.raises(StoreError, match="samples a window 128, expected 256"):
        StoredCodes(open_store(path), longer).read_codes("toy_sub-1", 0)


def test_a_window_without_codes_is_refused(path):
    write_codes(path, "toy_sub-1", MINE, STARTS, some_codes())
    stored = StoredCodes(open_store(path), MINE)
    with pytest.raises(StoreError, match=r"no codes of the window from sample 64 on.*cut: grid"):
        stored.read_codes("toy_sub-1", 64)


def test_a_writer_that_dies_leaves_nothing(path):
    def dying():
        yield from some_codes()[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_codes(path, "toy_sub-1", MINE, STARTS, dying())
    assert not StoredCodes(open_store(path), MINE).has("toy_sub-1")
    assert not list(path.glob(".tmp-*"))
    assert open_store(path).verify() == []


@pytest.mark.parametrize("wrong", [-1, 32768])
def test_a_code_that_does_not_fit_is_refused(path, wrong):
    codes = some_codes()
    codes[2, 0, 0, 0, 0] = wrong
    with pytest.raises(StoreError, match=f"{wrong}.*, expected .* from 0 to 32767"):
        write_codes(path, "toy_sub-1", MINE, STARTS, codes)
    assert not StoredCodes(open_store(path), MINE).has("toy_sub-1")


def test_codes_of_what_is_not_there_are_refused(path):
    with pytest.raises(StoreError, match="no recording 'toy_sub-9' in .*codes-0123"):
        write_codes(path, "toy_sub-9", MINE, STARTS, some_codes())


def test_a_full_disk_is_told_apart(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neurofm.store.codes.write_shard", full)
    with pytest.raises(StoreUnwritable, match="codes-.* of toy_sub-1 cannot be written.*No space"):
        write_codes(path, "toy_sub-1", MINE, STARTS, some_codes())


def test_damage_is_noticed(path):
    write_codes(path, "toy_sub-1", MINE, STARTS, some_codes())
    shard = MINE.path(path, "toy_sub-1") / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"toy_sub-1: chunk 0 .* is damaged"):
        StoredCodes(open_store(path), MINE).read_codes("toy_sub-1", 0)
    (MINE.path(path, "toy_sub-1") / "zarr.json").write_text('{"attributes": {}}')
    with pytest.raises(StoreError, match="is not the int16 array neurofm writes"):
        StoredCodes(open_store(path), MINE).read_codes("toy_sub-1", 0)


def test_codes_go_with_their_recording_or_alone(path):
    for name in ("toy_sub-1", "toy_sub-2"):
        write_codes(path, name, MINE, STARTS, some_codes())
    assert drop_codes(path, "toy_sub-1", MINE.identity)
    assert not drop_codes(path, "toy_sub-1", MINE.identity)
    assert not StoredCodes(open_store(path), MINE).has("toy_sub-1")
    remove(path, ["toy_sub-2"])
    assert open_store(path).verify() == []
    assert not list(path.rglob("codes-*"))


def test_windows_come_with_their_codes(path):
    store = open_store(path)
    for seed, name in enumerate(("toy_sub-1", "toy_sub-2")):
        write_codes(path, name, MINE, STARTS, some_codes(seed))
    reader = ReadersWithCodes({"a": store}, {"a": StoredCodes(store, MINE)})
    refs = [WindowRef("toy_sub-2", 400), WindowRef("toy_sub-1", 128)]
    batch = collate(reader, refs, 128, sfreq=64.0)
    assert np.array_equal(batch.codes[0], some_codes(1)[3])
    assert np.array_equal(batch.codes[1], some_codes(0)[1])
    assert batch.to("cpu").codes is not None
    assert collate(store, refs, 128, sfreq=64.0).codes is None
    assert collate(reader, [], 128, sfreq=64.0, n_channels=3).codes is None


def test_sites_that_a_window_does_not_have_are_zero(path):
    write_codes(path, "toy_sub-1", MINE, STARTS, some_codes())
    write_codes(path, "toy_sub-2", MINE, STARTS, some_codes(1)[:, :2])
    store = open_store(path)
    reader = ReadersWithCodes({"a": store}, {"a": StoredCodes(store, MINE)})
    refs = [WindowRef("toy_sub-2", 0), WindowRef("toy_sub-1", 0)]
    codes = collate(reader, refs, 128, sfreq=64.0).codes
    assert np.array_equal(codes[0, :2], some_codes(1)[0, :2])
    assert not codes[0, 2:].any()


def test_verification_reads_codes_too(path):
    write_codes(path, "toy_sub-1", MINE, STARTS, some_codes())
    assert open_store(path).verify() == []
    write_codes(path, "toy_sub-2", MINE, [*STARTS[:3], 500], some_codes())
    OTHER.path(path, "toy_sub-2").symlink_to(MINE.path(path, "toy_sub-2"))
    shard = MINE.path(path, "toy_sub-1") / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    problems = "\n".join(open_store(path).verify())
    assert "toy_sub-1: chunk 0 in shard" in problems
    assert "codes-0123456789ab has codes of windows beyond its 600 samples" in problems
    assert "codes-ba9876543210 says that its codes are of 0123456789ab" in problems


@pytest.mark.parametrize("link", [True, False])
def test_codes_are_merged_with_their_recording(path, tmp_path, link):
    write_codes(path, "toy_sub-1", MINE, STARTS, some_codes())
    merge([path], tmp_path / "both", link=link)
    store = open_store(tmp_path / "both")
    assert store.verify() == []
    stored = StoredCodes(store, MINE)
    assert np.array_equal(stored.read_codes("toy_sub-1", 400), some_codes()[3])
    assert not stored.has("toy_sub-2")


def test_codes_behind_a_url_are_the_same():
    place = location("memory://codes-store")
    make_store(place)
    write_codes(place, "toy_sub-1", MINE, STARTS, some_codes())
    store = open_store(place)
    stored = StoredCodes(store, MINE)
    assert np.array_equal(stored.read_codes("toy_sub-1", 128), some_codes()[1])
    assert identities(store.path, "toy_sub-1") == {MINE.identity}
    assert store.verify() == []
    with pytest.raises(StoreError, match=r"1 recording\(s\), such as toy_sub-2"):
        stored.require(["toy_sub-1", "toy_sub-2"])
    assert drop_codes(store.path, "toy_sub-1", MINE.identity)
    assert not StoredCodes(store, MINE).has("toy_sub-1")
    place.remove(place.files())

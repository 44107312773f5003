"""Windows that begin anywhere, and reads after one that failed."""

import struct

import numpy as np
import pytest
from crc32c import crc32c
from numcodecs import Blosc

from neurofm.errors import StoreError
from neurofm.store.reader import open_store

NAME = "d_sub-1"
LENGTH = 100  # of a chunk: the maker's contract has windows of one second at 100 Hz


@pytest.fixture
def store(maker, tmp_path):
    return open_store(maker.store(tmp_path / "store", "1"))


def counts_of(store, start=0, n=1200):
    out = np.empty((4, n), np.int16)
    store.read_counts_into(NAME, start, out)
    return out


@pytest.mark.parametrize("start", [0, 1, 99, 100, 250, 1100])
def test_a_window_as_long_as_a_chunk_begins_where_it_is_asked_to(store, start):
    whole = counts_of(store)
    np.testing.assert_array_equal(counts_of(store, start, LENGTH), whole[:, start : start + LENGTH])
    wide = np.full((4, 2 * LENGTH), 7, np.int16)  # rows of a batch that is padded do not touch
    store.read_counts_into(NAME, start, wide[:, :LENGTH])
    np.testing.assert_array_equal(wide[:, :LENGTH], whole[:, start : start + LENGTH])
    assert (wide[:, LENGTH:] == 7).all()


def test_seconds_mean_the_nearest_sample(store):
    whole = store.recording(NAME).signal
    # in binary 0.29 times 100 is a little less than 29, and 0.57 times 100 less than 57
    np.testing.assert_array_equal(store.read(NAME, 0.29, 0.57), whole[:, 29:57])


def test_a_chunk_that_could_not_be_decoded_leaves_nothing_behind(store, monkeypatch):
    whole = counts_of(store)
    fresh = open_store(store.path)
    counts_of(fresh, 10, 20)  # its first chunk is kept for what comes next

    def torn(data, out):
        out[:] = -1
        raise RuntimeError("error during blosc decompression")

    with monkeypatch.context() as broken:
        broken.setattr("neurofm.store.array.blosc.decompress", torn)
        with pytest.raises(StoreError, match="chunk 3 in shard .* is damaged: error during blosc"):
            counts_of(fresh, 310, 20)
    np.testing.assert_array_equal(counts_of(fresh, 10, 20), whole[:, 10:30])


def rewritten(path, slot, data, slots):
    """Put other bytes, with a checksum of their own, where a chunk was said to be."""
    body = bytearray(path.read_bytes()[: -16 * slots - 4])
    index = np.frombuffer(path.read_bytes()[-16 * slots - 4 : -4], "<u8").reshape(-1, 2).copy()
    index[slot] = len(body), len(data) + 4
    body += data + struct.pack("<I", crc32c(data))
    raw = index.tobytes()
    path.write_bytes(bytes(body) + raw + struct.pack("<I", crc32c(raw)))


def test_a_chunk_of_another_size_is_refused_and_not_read_in_part(store):
    grid = store._array(NAME).grid
    shard = store.path / f"recordings/{NAME}/signal/c/0/0"
    small = Blosc(cname="lz4", shuffle=Blosc.BITSHUFFLE).encode(np.ones((4, 50), "<i2"))
    rewritten(shard, 2, small, grid.chunks_per_shard)
    with pytest.raises(StoreError, match="chunk 2 in shard .* is damaged: its frame has the wrong"):
        counts_of(open_store(store.path), 200, LENGTH)


def test_one_bit_in_one_chunk_is_noticed_at_every_read_and_no_other_chunk_suffers(store):
    whole = counts_of(store)
    shard = store.path / f"recordings/{NAME}/signal/c/0/0"
    offset = int(store._array(NAME).open_shard(0).entries[2 * 5])
    data = bytearray(shard.read_bytes())
    data[offset + 40] ^= 1
    shard.write_bytes(data)
    fresh = open_store(store.path)
    for _ in range(2):
        with pytest.raises(StoreError, match="chunk 5 in shard .* its checksum does not match"):
            counts_of(fresh, 480, 60)
        np.testing.assert_array_equal(counts_of(fresh, 600, 60), whole[:, 600:660])

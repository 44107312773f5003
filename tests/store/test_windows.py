"""Stretches of recordings: the same samples however they are laid out and scaled."""

import struct

import numpy as np
import pytest
import zarr
from crc32c import crc32c

from neurofm.contract import SignalContract
from neurofm.errors import StoreError
from neurofm.readers import CountReader
from neurofm.sensors import Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.factors import Factors
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording

NAME, CLIP = "d_sub-eva", 4.0


def make_store(path, *, loud=0, chunk_s=None, window_s=1.0, n_channels=4):
    """One recording of 1207 samples; the first `loud` channels have an artefact each."""
    rng = np.random.default_rng(loud)
    signal = rng.normal(scale=1e-5, size=(n_channels, 1207)).astype(np.float32)
    for row in range(loud):
        signal[row, 500] = 1e-2 * (row + 1)
    contract = SignalContract(sfreq=100.0, band_hz=(0.5, 40.0), window_s=window_s, clip=CLIP)
    create_store(path, contract, chunk_s=chunk_s)
    recording = Recording(
        signal=signal,
        sfreq=100.0,
        sensors=Sensors(
            ch_names=tuple(f"E{i}" for i in range(n_channels)),
            kind=np.zeros(n_channels, np.int8),
            position=np.zeros((n_channels, 3), np.float32),
            orientation=np.zeros((n_channels, 3), np.float32),
            known=np.zeros(n_channels, np.int8),
            oriented=np.zeros(n_channels, bool),
            region=(None,) * n_channels,
        ),
        entities=Entities(dataset="d", subject="eva"),
    )
    commit(path, [write_recording(path, recording, quality={}, provenance={})])
    return open_store(path)


@pytest.mark.parametrize("chunk_s", [0.05, 0.3, 1.0, 20.0])
@pytest.mark.parametrize("loud", [0, 1, 3])
def test_a_stretch_is_the_recording_cut_there(tmp_path, chunk_s, loud):
    store = make_store(tmp_path / "store", loud=loud, chunk_s=chunk_s)
    array = zarr.open(str(store.path), mode="r")[f"recordings/{NAME}/signal"][:]
    scale = store.standard_scale(NAME)
    assert len(set(scale.tolist())) == 1 + loud
    whole = np.clip(array.astype(np.float32) * scale[:, None], -CLIP, CLIP)
    assert loud == 0 or np.abs(whole).max() == CLIP
    cuts = np.random.default_rng(0).integers(1, 600, (20, 2)).tolist()
    for start, n in [(0, 100), (100, 100), (37, 1), (3, 1204), (0, 1207), *cuts]:
        counts, values = np.empty((4, n), np.int16), np.empty((4, n), np.float32)
        store.read_counts_into(NAME, start, counts)
        store.read_standard_into(NAME, start, values)
        np.testing.assert_array_equal(counts, array[:, start : start + n])
        np.testing.assert_array_equal(values, whole[:, start : start + n])


def test_a_long_stretch_is_scaled_a_part_at_a_time(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", loud=1)
    whole = store.recording(NAME).signal
    monkeypatch.setattr("neurofm.store.windows.MOST_COUNTS", 150)
    monkeypatch.setattr("neurofm.store.windows.MOST_READ", 1)
    np.testing.assert_array_equal(open_store(store.path).recording(NAME).signal, whole)


def test_counts_are_read_into_int16_only(tmp_path):
    store = make_store(tmp_path / "store")
    assert isinstance(store, CountReader)
    with pytest.raises(StoreError, match="cannot read 4 channels of int16 into float32"):
        store.read_counts_into(NAME, 0, np.empty((4, 10), np.float32))


@pytest.mark.parametrize(
    ("window_s", "chunk_s"), [(0.3, 1.2), (0.5, 1.0), (2.0, 2.0), (10.0, 10.0)]
)
def test_a_chunk_is_a_window_or_the_windows_that_make_a_second(tmp_path, window_s, chunk_s):
    store = make_store(tmp_path / "store", window_s=window_s)
    array = zarr.open(str(store.path), mode="r")[f"recordings/{NAME}/signal"]
    assert array.chunks == (4, round(chunk_s * 100))


def test_chunks_that_another_program_scattered_are_found(tmp_path):
    store = make_store(tmp_path / "store", chunk_s=0.5)
    expected = store.recording(NAME).signal
    array = zarr.open(str(store.path), mode="r+")[f"recordings/{NAME}/signal"]
    counts = array[:]
    counts[:, 200:300] = 0  # zarr-python leaves out chunks of zeros
    array[:] = counts
    shard = store.path / f"recordings/{NAME}/signal/c/0/0"
    swapped = swap_first_chunks(shard.read_bytes(), array.shards[1] // array.chunks[1])
    shard.write_bytes(swapped)
    expected[:, 200:300] = 0
    np.testing.assert_array_equal(open_store(store.path).recording(NAME).signal, expected)


def swap_first_chunks(data, slots):
    """Return the shard with the bytes of its first two chunks exchanged, and its index so."""
    n = slots * 16
    index = np.frombuffer(data[-n - 4 : -4], "<u8").reshape(-1, 2).copy()
    (_, a), (_, b) = index[:2].tolist()
    start = int(index[0, 0])
    body = bytearray(data[: -n - 4])
    body[start : start + a + b] = body[start + a : start + a + b] + body[start : start + a]
    index[0, 0], index[1, 0] = start + b, start
    raw = index.tobytes()
    return bytes(body) + raw + struct.pack("<I", crc32c(raw))


@pytest.mark.parametrize("n_values", [1, 2, 5, 8])
def test_factors_multiply_and_clip_as_numpy_does(n_values):
    rng = np.random.default_rng(n_values)
    pool = rng.uniform(1e-3, 1, n_values).astype(np.float32)
    factors = Factors(pool[np.arange(8) % n_values])
    for size in (10, 300, 30_000):
        counts = rng.integers(-size, size, (8, 50)).astype(np.int16)
        counts[3, 3] = -32768
        out = np.full((8, 50), np.nan, np.float32)
        for clip in (None, 15.0, 0.1):
            factors.scale(counts, out, clip)
            expected = counts.astype(np.float32) * factors.values[:, None]
            expected = expected if clip is None else np.clip(expected, -clip, clip)
            np.testing.assert_array_equal(out, expected)


def test_the_first_count_that_is_beyond_the_clip_is_held(n_times=50):
    factors = Factors(np.array([1e-3, 0.1, 1e-3], np.float32))
    for row, largest in ((0, 1000), (1, 10), (2, 1000)):
        for sign in (-1, 1):
            counts = np.zeros((3, n_times), np.int16)
            counts[row, 7], counts[row, 8] = sign * largest, sign * (largest + 1)
            out = np.empty((3, n_times), np.float32)
            factors.scale(counts, out, 1.0)
            assert out[row, 7:9].tolist() == [sign, sign]

"""From file to store by blocks: the same as in memory, in memory that does not grow."""

import errno
import os
import tracemalloc

import mne
import numpy as np
import pytest

from neurofm.contract import SignalContract, robust_sd
from neurofm.errors import SignalError, SourceError, StoreError
from neurofm.preprocessing import spill
from neurofm.preprocessing.direct import direct_reader
from neurofm.preprocessing.from_mne import RawReader, recording_from_raw
from neurofm.preprocessing.harmonise import harmonise, harmonise_file
from neurofm.preprocessing.spatial import selection
from neurofm.preprocessing.spill import SpilledSignal
from neurofm.signals import Entities
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording

ME = Entities(dataset="made", subject="1")


@pytest.fixture
def contract():
    return SignalContract(
        sfreq=128, band_hz=(0.5, 45.0), window_s=2.0, reference={"eeg": "average"}
    )


def write_brainvision(path, counts, dtype="<i2", orientation="MULTIPLEXED", sfreq=250.0):
    """Write counts (C, T) of 0.1 uV under names of the 10-20 system; return the header's path."""
    names = ["Fp1", "Fz", "C3", "Cz", "C4", "Pz", "O1", "O2"][: len(counts)]
    kind = {"<i2": "INT_16", "<f4": "IEEE_FLOAT_32", "<i4": "INT_32"}[dtype]
    flat = counts.T if orientation == "MULTIPLEXED" else counts
    path.with_suffix(".eeg").write_bytes(np.ascontiguousarray(flat).astype(dtype).tobytes())
    channels = "\n".join(f"Ch{i}={name},,0.1,µV" for i, name in enumerate(names, 1))
    path.with_suffix(".vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.name}.eeg\nDataFormat=BINARY\nDataOrientation={orientation}\n"
        f"NumberOfChannels={len(counts)}\nSamplingInterval={1e6 / sfreq:g}\n\n"
        f"[Binary Infos]\nBinaryFormat={kind}\n\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    return path.with_suffix(".vhdr")


@pytest.fixture
def counts():
    signal = 200 * np.random.default_rng(0).standard_normal((8, 20_000))
    return np.rint(signal + np.arange(8)[:, None] * 1000)


def read(path, preload=False):
    return mne.io.read_raw(path, preload=preload, verbose="error")


# ---------------------------------------------------------------------------------------
# Interleaved files


@pytest.mark.parametrize("dtype", ["<i2", "<f4"])
def test_interleaved_samples_are_read_as_mne_reads_them(tmp_path, counts, dtype):
    raw = read(write_brainvision(tmp_path / "a", counts, dtype))
    direct = direct_reader(raw, [6, 1, 2], 2.0)
    got = direct.read(1234, 17_001)
    assert got.dtype == np.float32
    np.testing.assert_allclose(
        got * direct.scale[:, None],
        2.0 * raw.get_data(picks=[6, 1, 2], start=1234, stop=17_001),
        rtol=1e-12,
    )


@pytest.mark.parametrize(("dtype", "orientation"), [("<i4", "MULTIPLEXED"), ("<i2", "VECTORIZED")])
def test_what_float32_cannot_hold_or_is_not_interleaved_is_left_to_mne(
    tmp_path, counts, dtype, orientation
):
    raw = read(write_brainvision(tmp_path / "a", counts, dtype, orientation))
    assert direct_reader(raw, [0, 1]) is None


def test_a_recording_changed_in_memory_is_left_to_mne(tmp_path, counts):
    path = write_brainvision(tmp_path / "a", counts)
    assert direct_reader(read(path), [0]) is not None
    assert direct_reader(read(path, preload=True), [0]) is None
    assert direct_reader(read(path).crop(tmin=1.0), [0]) is None
    assert direct_reader(read(path).crop(tmax=1.0), [0]) is None


def test_a_file_cut_short_while_it_is_read_is_refused(tmp_path, counts):
    path = write_brainvision(tmp_path / "a", counts)
    direct = direct_reader(read(path), [0, 1])
    os.truncate(path.with_suffix(".eeg"), 100_000)
    with pytest.raises(SourceError, match=r"a\.eeg: its samples from 5000 on cannot be read"):
        direct.read(5000, 15_000)


@pytest.mark.parametrize(
    "name",
    [
        "formats/brainvision/test.vhdr",
        "formats/eeglab/eeglab_data.set",
        "bids/tiny_bids/sub-01/ses-eeg/eeg/sub-01_ses-eeg_task-rest_eeg.vhdr",
    ],
)
def test_real_interleaved_files_are_read_directly(test_data, name):
    raw = read(test_data / name)
    direct = direct_reader(raw, [0, 2])
    np.testing.assert_allclose(
        direct.read(0, raw.n_times) * direct.scale[:, None], raw.get_data(picks=[0, 2]), rtol=1e-12
    )


# ---------------------------------------------------------------------------------------
# The same as in memory


@pytest.mark.parametrize("kind", ["brainvision", "fif", "edf"])
def test_by_blocks_or_in_memory_is_the_same(on_disk, tmp_path, counts, contract, write_edf, kind):
    counts[3, :] = 7.0  # not connected
    if kind == "brainvision":
        path = write_brainvision(tmp_path / "a", counts)
    elif kind == "edf":
        path = write_edf(tmp_path / "a.edf", signal=counts * 1e-7, sfreq=250, duration_s=80)
    else:
        path = tmp_path / "a_raw.fif"
        raw = read(write_brainvision(tmp_path / "a", counts))
        raw.set_annotations(mne.Annotations([20.0], [0.0], ["BAD boundary"]))
        raw.save(path, verbose="error")
    whole = harmonise(recording_from_raw(read(path), ME), contract)
    by_blocks = harmonise_file(RawReader(read(path), ME), contract, tmp_path)
    assert by_blocks.sensors.ch_names == whole.sensors.ch_names
    assert "Cz" not in whole.sensors.ch_names
    assert (by_blocks.sfreq, by_blocks.events) == (whole.sfreq, whole.events)
    steps = [[step["step"] for step in r.history] for r in (by_blocks, whole)]
    assert steps[0] == steps[1]
    np.testing.assert_allclose(
        np.asarray(by_blocks.signal), whole.signal, atol=1e-5 * whole.signal.std()
    )


def test_what_is_stored_is_what_is_harmonised(tmp_path, counts, contract):
    path = write_brainvision(tmp_path / "a", counts)
    recording = harmonise_file(RawReader(read(path), ME), contract, tmp_path)
    create_store(tmp_path / "store", contract)
    row = write_recording(tmp_path / "store", recording, quality={}, provenance={})
    commit(tmp_path / "store", [row])
    stored = open_store(tmp_path / "store").recording(ME.recording_id).signal
    whole = np.asarray(recording.signal)
    assert np.abs(stored - whole).max() < 0.51 / 256 * whole.std()


def test_a_recording_too_short_is_refused_before_it_is_read(make_raw, contract, tmp_path):
    reader = RawReader(make_raw(duration_s=1.0), ME)
    reader.read = None
    with pytest.raises(SignalError, match="1 s long, shorter than one window of 2 s"):
        harmonise_file(reader, contract, tmp_path)


def test_a_recording_without_any_signal_is_refused(make_raw, contract, tmp_path):
    raw = make_raw(signal=np.zeros((8, 5120)))
    with pytest.raises(SignalError, match="no usable channel.*all samples are zero"):
        harmonise_file(RawReader(raw, ME), contract, tmp_path)


def test_memory_does_not_grow_with_length(make_raw, contract, tmp_path, on_disk):
    peaks = []
    for minutes in (20, 60):
        reader = RawReader(make_raw(duration_s=minutes * 60.0, sfreq=250.0), ME)
        tracemalloc.start()
        recording = harmonise_file(reader, contract, tmp_path)
        for _ in recording.blocks(8192):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    whole = 8 * 60 * 60 * 250 * 8
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < whole / 2


# ---------------------------------------------------------------------------------------
# The spilled signal


@pytest.fixture
def on_disk(monkeypatch):
    """However small a signal is, it goes to disk."""
    monkeypatch.setattr(spill, "_IN_MEMORY", 0)


@pytest.mark.parametrize("in_memory", [0, 1_000_000])
def test_a_spilled_signal_slices_as_an_array(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(spill, "_IN_MEMORY", in_memory)
    array = np.random.default_rng(0).standard_normal((5, 3001)).astype(np.float32)
    spilled = SpilledSignal(array.shape, tmp_path)
    for start in range(0, 3001, 700):
        spilled.write(start, array[:, start : start + 700])
    for index in (
        np.s_[:, 5:90], np.s_[2], np.s_[[0, 4], 2990:5000], np.s_[:, ::7], np.s_[1, ::3],
        np.s_[:, 100:900:9], np.s_[:, 50:10], np.s_[1:3], np.s_[:, -10:],
    ):  # fmt: skip
        np.testing.assert_array_equal(spilled[index], array[index])
    np.testing.assert_array_equal(np.asarray(spilled), array)


@pytest.mark.parametrize("in_memory", [0, 1_000_000])
def test_what_was_measured_is_measured_again_after_writing(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(spill, "_IN_MEMORY", in_memory)
    noise = np.random.default_rng(0).standard_normal((2, 1000))
    spilled = SpilledSignal((2, 1000), tmp_path)
    spilled.write(0, noise)
    before = robust_sd(spilled)
    np.testing.assert_array_equal(before, robust_sd(noise.astype(np.float32)))
    spilled.write(0, 3 * noise)
    np.testing.assert_allclose(robust_sd(spilled), 3 * before, rtol=1e-6)


def test_a_strided_look_is_renewed_by_writing(tmp_path, on_disk):
    spilled = SpilledSignal((1, 100), tmp_path)
    spilled.write(0, np.zeros((1, 100)))
    assert not spilled[:, ::10].any()
    spilled.write(0, np.ones((1, 100)))
    assert spilled[:, ::10].all()


def test_nothing_is_left_behind_and_nothing_has_a_name(tmp_path, on_disk):
    spilled = SpilledSignal((2, 100), tmp_path)
    spilled.write(0, np.ones((2, 100)))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported_with_what_was_needed(tmp_path, monkeypatch, on_disk):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    spilled = SpilledSignal((10, 1_000_000), tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match="no room for 40 MB of filtered samples: No space left"):
        spilled.write(0, np.ones((10, 5)))


def test_a_folder_that_cannot_be_written_to_is_reported(tmp_path, on_disk):
    with pytest.raises(StoreError, match="no room for"):
        SpilledSignal((2, 5), tmp_path / "missing")


def test_samples_never_written_are_not_made_up(tmp_path, on_disk):
    spilled = SpilledSignal((2, 100), tmp_path)
    spilled.write(0, np.ones((2, 50)))
    with pytest.raises(StoreError, match="a part of the filtered samples is missing"):
        spilled[:, :]


def test_a_peak_beyond_the_counts_makes_them_larger(make_recording, contract, tmp_path):
    signal = 20e-6 * np.random.default_rng(0).standard_normal((8, 12_800))
    signal[2, 5000:5003] = 20e-6 * 500
    recording = make_recording(signal, sfreq=128.0)
    keep = selection(recording.sensors, np.arange(8), {"step": "all"})
    create_store(tmp_path / "store", contract)
    row = write_recording(tmp_path / "store", keep.lazily(recording), quality={}, provenance={})
    commit(tmp_path / "store", [row])
    store = open_store(tmp_path / "store")
    stored = store.recording(recording.recording_id).signal
    np.testing.assert_allclose(stored[2, 5001], 20e-6 * 500, rtol=1e-4)
    np.testing.assert_allclose(
        np.delete(stored, 2, 0), np.delete(signal, 2, 0), atol=0.51 * 20e-6 / 250
    )
    assert store.quality(recording.recording_id)["saturated"] == [0] * 8

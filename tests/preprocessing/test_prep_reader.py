import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.errors import SourceError
from neurofm.preprocessing.from_mne import RawReader, recording_from_raw
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.scan import Scan
from neurofm.signals import Entities

ME = Entities(dataset="d", subject="1")
HARD = "broken/nan_inf_flat_clipped_raw.fif"


def scanned(signal, cuts=()):
    scan = Scan(len(signal))
    edges = [0, *sorted(cuts), signal.shape[1]]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        scan.add(signal[:, start:stop])
    return scan


def odd_signal():
    """Rows of noise, zeros, one value, NaN, one infinity, mostly flat, and clipped noise."""
    signal = np.random.default_rng(0).standard_normal((7, 400))
    signal[1] = 0
    signal[2] = 3.0
    signal[3, 100:103] = np.nan
    signal[4, 399] = -np.inf
    signal[5] = 1.0
    signal[5, 200:204] = [2, 3, 4, 5]
    np.clip(signal[6], -0.5, 1.5, out=signal[6])
    return signal


def test_a_scan_says_which_rows_carry_no_signal_and_why():
    assert scanned(odd_signal()).unusable() == {
        1: "all samples are zero",
        2: "constant at 3",
        3: "3 of 400 samples are NaN or infinite",
        4: "1 of 400 samples are NaN or infinite",
        5: "flat for 98.7% of the time",
    }


def test_a_scan_names_usable_rows_at_their_limits():
    share = np.mean((odd_signal()[6] == -0.5) | (odd_signal()[6] == 1.5))
    assert scanned(odd_signal()).clipping_notes("abcdefg") == [
        f"g is at its limits for {share:.0%} of the time"
    ]


@settings(max_examples=50)
@given(st.sets(st.integers(1, 399), max_size=8))
def test_where_blocks_are_cut_changes_no_count(cuts):
    whole, cut = scanned(odd_signal()), scanned(odd_signal(), cuts)
    assert cut.unusable() == whole.unusable()
    assert cut.clipping_notes("abcdefg") == whole.clipping_notes("abcdefg")


@pytest.mark.parametrize("n_times", [1, 700, 10_000])
def test_blocks_add_up_to_the_recording(test_data, n_times):
    raw, _ = open_raw(test_data / "broken" / "odd_channel_names_raw.fif")
    raw.crop(0, 5)
    reader = RawReader(raw, ME)
    starts, blocks = zip(*reader.blocks(n_times), strict=True)
    assert starts == tuple(range(0, raw.n_times, n_times))
    np.testing.assert_array_equal(
        np.concatenate(blocks, axis=1).astype(np.float32), reader.recording().signal
    )


def test_a_reader_and_the_recording_in_memory_agree(test_data):
    raw, facts = open_raw(test_data / HARD)
    reader = RawReader(raw, ME, facts=facts, unit_scale=2.0)
    recording = recording_from_raw(raw, ME, facts=facts, unit_scale=2.0)
    scan = Scan(len(reader.sensors))
    for _, block in reader.blocks(500):
        scan.add(block)
    keep, step = reader.verdict(scan)
    assert len(keep) == len(reader.sensors) - 4
    assert recording.history == (step,)
    assert recording.sensors == reader.sensors.select(keep)
    assert recording.events == reader.events
    np.testing.assert_array_equal(
        recording.signal, reader.read(0, reader.n_times)[keep].astype(np.float32)
    )


def test_a_reader_reads_no_samples_before_it_is_asked(tmp_path, make_raw):
    make_raw().save(tmp_path / "x_raw.fif", verbose="error")
    raw = mne.io.read_raw(tmp_path / "x_raw.fif", verbose="error")
    (tmp_path / "x_raw.fif").unlink()
    reader = RawReader(raw, ME)
    assert (len(reader.sensors), reader.n_times) == (8, 2560)
    with pytest.raises(SourceError, match=r"x_raw\.fif: MNE cannot read its samples: FileNotFound"):
        reader.read(0, 10)


def test_a_file_that_gives_fewer_samples_than_promised_is_refused(make_raw, monkeypatch):
    raw = make_raw()
    whole = raw.get_data
    monkeypatch.setattr(raw, "get_data", lambda **kw: whole(**kw)[:, :-7])
    with pytest.raises(SourceError, match="93 samples where 100 should be, from 0.390625 s on"):
        RawReader(raw, ME).read(100, 200)

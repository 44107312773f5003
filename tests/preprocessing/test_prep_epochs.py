"""Windows that were cut before: MNE's and EEGLAB's epochs, from files and from Python."""

import mne
import numpy as np
import pytest
from scipy.io import savemat

from neurofm.config import parse_config
from neurofm.errors import SourceError
from neurofm.preprocessing.memory import preprocess_raws
from neurofm.preprocessing.run import CONFIG, run
from neurofm.signals import Entities
from neurofm.store.reader import open_store

ME = Entities(dataset="d", subject="1")


@pytest.fixture
def make_epochs(make_raw):
    def make(tmin=-0.5, tmax=1.5, onsets=(256, 1024, 1792, 2560, 3328), **more):
        raw = make_raw(duration_s=16.0)
        events = np.array([[at, 0, 1 + k % 2] for k, at in enumerate(onsets)])
        names = {"left": 1, "right": 2}
        return mne.Epochs(raw, events, names, tmin, tmax - 1 / 256, preload=True,
                          **({"baseline": None, "verbose": "error"} | more))  # fmt: skip

    return make


def config(tmp_path, window_s=2.0, **source):
    values = {
        "dataset": "d",
        "root": str(tmp_path),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 128, "band_hz": [1, 40], "window_s": window_s},
        "sources": [{"subject": "1"} | source],
        "workers": 0,
    }
    return parse_config(CONFIG, values, where="test")


def check(store, n_windows=5):
    recording = open_store(store).recording("d_sub-1")
    found = [(e.onset_s, e.description) for e in recording.events if "EDGE" not in e.description]
    expected = [(2.0 * k + 0.5, ("left", "right")[k % 2]) for k in range(n_windows)]
    assert found == expected
    assert recording.good_spans() == tuple((2.0 * k, 2.0 * k + 2.0) for k in range(n_windows))
    return recording


def test_epochs_from_python_and_from_files_are_the_same_recording(tmp_path, make_epochs):
    epochs = make_epochs()
    before = epochs.get_data(copy=True)
    one = check(preprocess_raws([(epochs, ME)], config(tmp_path / "python")).store)
    np.testing.assert_array_equal(epochs.get_data(copy=False), before)
    (tmp_path / "file").mkdir()
    epochs.save(tmp_path / "file" / "a-epo.fif", fmt="double", verbose="error")
    result = run(config(tmp_path / "file", reader={"name": "epochs"}))
    other = check(result.store)
    np.testing.assert_array_equal(one.signal, other.signal)
    assert "5 windows of 2 s, cut before" in result.report["notes"][0]


def write_eeglab(path, epochs):
    data = epochs.get_data(copy=False).transpose(1, 2, 0) * 1e6
    n_channels, n_times, n_windows = data.shape
    types = ["left" if code == 1 else "right" for code in epochs.events[:, 2]]
    zero = int(np.argmin(np.abs(epochs.times)))
    said = [
        {"type": kind, "latency": k * n_times + zero + 1.0, "epoch": k + 1, "urevent": k + 1}
        for k, kind in enumerate(types)
    ]
    epoch = [
        {"event": k + 1, "eventtype": kind, "eventlatency": 0.0} for k, kind in enumerate(types)
    ]
    table = {
        "trials": n_windows, "nbchan": n_channels, "srate": epochs.info["sfreq"],
        "pnts": n_times, "xmin": epochs.tmin, "xmax": epochs.tmax, "data": data,
        "chanlocs": [{"labels": name} for name in epochs.ch_names], "event": said,
        "epoch": epoch, "icawinv": [], "icaweights": [], "icasphere": [], "ref": "common",
    }  # fmt: skip
    savemat(path, {"EEG": table}, appendmat=False)


def test_eeglab_epochs_are_read(tmp_path, make_epochs):
    epochs = make_epochs()
    write_eeglab(tmp_path / "a.set", epochs)
    recording = check(run(config(tmp_path, reader={"name": "epochs"})).store)
    same = check(preprocess_raws([(epochs, ME)], config(tmp_path / "python")).store)
    np.testing.assert_allclose(recording.signal, same.signal, atol=1e-9)


def test_what_was_done_to_windows_before_is_told(tmp_path, make_epochs):
    rejected = make_epochs(onsets=(256, 512, 1024, 1792), baseline=(None, 0))
    rejected.drop([2], reason="blink", verbose="error")
    rejected.save(tmp_path / "a-epo.fif", verbose="error")
    notes = run(config(tmp_path, reader={"name": "epochs"})).report["notes"][0]
    for told in ("1 windows had been rejected", "baselines had been subtracted",
                 "1 windows overlap the one before"):  # fmt: skip
        assert told in notes


def test_windows_shorter_than_the_contracts_are_refused(tmp_path, make_epochs):
    with pytest.raises(SourceError, match="no stretch of it is as long as one window of 4 s"):
        preprocess_raws([(make_epochs(), ME)], config(tmp_path, window_s=4.0))


def test_a_file_of_windows_is_skipped_where_nobody_asked_for_windows(tmp_path, make_epochs):
    make_epochs().save(tmp_path / "a-epo.fif", verbose="error")
    with pytest.raises(SourceError, match="not a continuous recording"):
        run(config(tmp_path, include=["*.fif"]))


def test_no_window_is_refused(tmp_path, make_epochs):
    empty = make_epochs().drop(range(5), verbose="error")
    with pytest.raises(SourceError, match="d_sub-1: it holds no epoch"):
        preprocess_raws([(empty, ME)], config(tmp_path))


@pytest.mark.parametrize("wrong", ["evoked", "path", "alone", "names"])
def test_what_is_no_recording_is_refused_by_its_type(tmp_path, make_raw, make_epochs, wrong):
    given, told = {
        "evoked": ([(make_epochs().average(), ME)], "not EvokedArray of d_sub-1"),
        "path": ([("a_raw.fif", ME)], "not str of d_sub-1"),
        "alone": ([make_raw()], "not RawArray"),
        "names": ([(make_raw(), {"subject": "1"})], "not tuple"),
    }[wrong]
    with pytest.raises(SourceError, match=rf"{told}\n.*Entities\(dataset="):
        preprocess_raws(given, config(tmp_path))

"""Arrays whose layout the config describes, whatever the file they are in."""

import itertools
import pickle

import h5py
import numpy as np
import pytest
import scipy.io

from neurofm.config import parse_config
from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.arrays import ArrayReader
from neurofm.preprocessing.events import EventsConfig, collect_events
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.run import CONFIG, run
from neurofm.preprocessing.sources import SourceConfig, discover
from neurofm.signals import Entities

NAMES = ("Fz", "Cz", "Pz")
FIELDS = "/{subject}/{run}"


def reader(**more):
    values = {"name": "array", "sfreq": 100, "ch_names": list(NAMES), "unit": "uV", **more}
    return parse_config(ArrayReader, values, where="test")


@pytest.fixture
def signal():
    return np.random.default_rng(0).normal(0, 20, (3, 1000))


def save(path, array, key="data", **more):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **{key: array, **more})
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {key: array, **more})
    else:
        with h5py.File(path, "w") as file:
            for name, value in {key: array, **more}.items():
                file[name] = value
    return path


@pytest.mark.parametrize("ending", ["npy", "npz", "h5", "mat"])
@pytest.mark.parametrize("axes", [("channel", "time"), ("time", "channel")])
def test_any_file_and_order_gives_the_same_volts(tmp_path, signal, ending, axes):
    array = signal if axes[0] == "channel" else signal.T
    raw, _ = open_raw(save(tmp_path / f"x.{ending}", array), reader(axes=list(axes)))
    assert (tuple(raw.ch_names), raw.info["sfreq"], raw.n_times) == (NAMES, 100, 1000)
    np.testing.assert_allclose(raw.get_data(), signal * 1e-6)
    np.testing.assert_allclose(raw.get_data(picks=[1], start=7, stop=9), signal[1:2, 7:9] * 1e-6)


@pytest.mark.parametrize("axes", list(itertools.permutations(["window", "channel", "time"])))
@pytest.mark.parametrize("ending", ["npy", "h5"])
def test_windows_follow_each_other_with_an_edge_between(tmp_path, signal, axes, ending):
    windows = signal.reshape(3, 10, 100).transpose(1, 0, 2)  # window, channel, time
    order = [("window", "channel", "time").index(a) for a in axes]
    path = save(tmp_path / f"x.{ending}", windows.transpose(order))
    raw, _ = open_raw(path, reader(axes=list(axes)))
    np.testing.assert_allclose(raw.get_data(), signal * 1e-6)
    for start, stop in ((0, 1), (99, 101), (150, 420), (999, 1000)):
        block = raw.get_data(start=start, stop=stop)
        np.testing.assert_allclose(block, signal[:, start:stop] * 1e-6)
    events, _ = collect_events(raw, EventsConfig())
    assert [e.onset_s for e in events if e.description == "EDGE boundary"] == list(range(1, 10))


def test_windows_that_go_on_have_no_edge(tmp_path, signal):
    windows = signal.reshape(3, 10, 100).transpose(1, 0, 2)
    axes = ["window", "channel", "time"]
    raw, _ = open_raw(save(tmp_path / "x.npy", windows), reader(axes=axes, contiguous=True))
    assert len(raw.annotations) == 0


@pytest.mark.parametrize("labels", [np.arange(10) % 2, np.array([b"left", b"right"] * 5)])
def test_labels_become_events_that_cover_their_window(tmp_path, signal, labels):
    windows = signal.reshape(3, 10, 100).transpose(1, 0, 2)
    path = save(tmp_path / "x.h5", windows, y=labels)
    options = {"axes": ["window", "channel", "time"], "key": "data", "labels_key": "y"}
    raw, _ = open_raw(path, reader(**options))
    names = ("0", "1") if labels.dtype.kind == "i" else ("left", "right")
    events, _ = collect_events(raw, EventsConfig(classes={names[1]: "second"}))
    told = [e for e in events if e.description in names]
    assert [e.description for e in told] == list(names) * 5
    assert [(e.onset_s, e.duration_s) for e in told] == [(float(i), 1.0) for i in range(10)]
    assert [e.label for e in told[:2]] == ["", "second"]
    with pytest.raises(SourceError, match="10 windows, but 3 labels in 'y'"):
        open_raw(save(tmp_path / "z.h5", windows, y=labels[:3]), reader(**options))


def test_names_may_lie_in_the_file(tmp_path, signal):
    path = save(tmp_path / "x.h5", signal, names=np.array([b"C3", b"C4", b"Oz"]))
    raw, _ = open_raw(path, reader(ch_names=[], key="data", names_key="names"))
    assert raw.ch_names == ["C3", "C4", "Oz"]


def test_one_file_may_hold_many_recordings(tmp_path, signal):
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for subject, run in (("01", "a"), ("01", "b"), ("02", "a")):
            file[f"{subject}/{run}/eeg"] = signal
            file[f"{subject}/{run}/other"] = signal
    source = SourceConfig(reader=reader(key=FIELDS + "/eeg"))
    found = discover(tmp_path, "d", [source])
    assert [(f.relative, f.entities.recording_id) for f in found] == [
        ("all.h5::01/a/eeg", "d_sub-01_run-a"),
        ("all.h5::01/b/eeg", "d_sub-01_run-b"),
        ("all.h5::02/a/eeg", "d_sub-02_run-a"),
    ]
    raw, _ = open_raw(found[1].path, found[1].source.reader)
    np.testing.assert_allclose(raw.get_data(), signal * 1e-6)
    (none,) = discover(tmp_path, "d", [SourceConfig(reader=reader(key=FIELDS + "/raw"))])
    assert f"no array matches '{FIELDS}/raw'; found 01/a/eeg, 01/a/" in str(none.problem)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda s: s[0], {}, r"has shape \(1000,\); `axes` says channel, time"),
        (lambda s: s.T, {}, r"has 1000 channels \(shape \(1000, 3\), .* 3 channel names"),
        (lambda s: s[:, :0], {}, r"has shape \(3, 0\)"),
        (lambda s: s.astype(complex), {}, "holds complex128, not real numbers"),
        (lambda s: s.astype(str), {}, "not real numbers"),
        (lambda s: s, {"ch_names": ["a", "b", "a"]}, "occur more than once: 'a'"),
    ],
)
def test_a_layout_that_is_not_the_arrays_is_refused(tmp_path, signal, make, options, message):
    with pytest.raises(SourceError, match=message):
        open_raw(save(tmp_path / "x.npy", make(signal)), reader(**options))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e60])
def test_a_channel_with_a_number_that_is_none_is_dropped(tmp_path, signal, value):
    signal[1, 77] = value
    raw, facts = open_raw(save(tmp_path / "x.npy", signal), reader())
    with np.errstate(all="ignore"):
        recording = recording_from_raw(raw, Entities(dataset="d", subject="1"), facts=facts)
    assert recording.sensors.ch_names == ("Fz", "Pz")
    assert np.isfinite(recording.signal).all()


def test_a_key_that_is_not_there_names_the_nearest(tmp_path, signal):
    path = save(tmp_path / "x.h5", signal, more=signal)
    with pytest.raises(SourceError, match=r"no array 'dta'; found data, more\n.*'data'"):
        open_raw(path, reader(key="dta"))
    with pytest.raises(SourceError, match="2 arrays, and no `key` to choose one"):
        open_raw(path, reader())


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.save(tmp_path / "x.npy", np.array([Trap()], object), allow_pickle=True)
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("x.npy", "y.npy"):
        with pytest.raises(SourceError, match=f"{name}: NumPy or h5py cannot read it: ValueError"):
            open_raw(tmp_path / name, reader())


@pytest.mark.parametrize("ending", ["npy", "npz", "h5", "mat"])
def test_a_file_that_was_cut_is_refused(tmp_path, signal, ending):
    path = save(tmp_path / f"x.{ending}", signal)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(SourceError, match=r"cannot read it|neither a NumPy file nor HDF5"):
        raw, _ = open_raw(path, reader())
        raw.get_data()


def test_axes_are_checked_where_they_are_written():
    with pytest.raises(ConfigError, match="axes must be channel and time, or window"):
        reader(axes=["window", "time"])


def test_real_windows_are_in_microvolts(test_data):
    names = [f"{i}" for i in range(23)]
    for path in sorted((test_data / "chbmit_windows").rglob("*.npy")):
        raw, _ = open_raw(path, reader(sfreq=256, ch_names=names))
        assert raw.n_times == 2561 and 1e-6 < np.median(raw.get_data().std(axis=1)) < 5e-4


def test_recordings_of_one_file_reach_the_store_and_are_known_again(tmp_path, signal):
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for subject in ("01", "02"):
            file[f"{subject}/a/eeg"] = rng.normal(0, 20, (3, 2000))
    values = {
        "dataset": "d",
        "root": str(tmp_path),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 64, "band_hz": [0.5, 30], "window_s": 2.0, "line_hz": "none"},
        "sources": [{"reader": reader(key=FIELDS + "/eeg").to_dict(), "include": ["*.h5"]}],
        "workers": 0,
    }
    config = parse_config(CONFIG, values, where="test")
    assert run(config).report["status"].tolist() == ["kept", "kept"]
    assert run(config).report["reason"].tolist() == ["in the store already"] * 2

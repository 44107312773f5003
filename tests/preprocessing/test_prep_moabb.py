"""Datasets of MOABB by name, and MNE objects."""

import struct
import sys

import mne
import numpy as np
import pytest

from neurofm.config import parse_config
from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.memory import found_in_memory, preprocess_raws, write_fif
from neurofm.preprocessing.run import CONFIG, run
from neurofm.preprocessing.sources import SourceConfig
from neurofm.signals import Entities
from neurofm.store.reader import open_store


@pytest.fixture
def local_set(monkeypatch):
    """A dataset class of one's own, found by its name as any of MOABB's is."""
    moabb_datasets = pytest.importorskip("moabb.datasets")
    from moabb.datasets.base import BaseDataset

    class LocalSet(BaseDataset):
        loads = 0

        def __init__(self, annotated=False):
            self.annotated = annotated
            super().__init__(
                subjects=[1, 2], sessions_per_subject=2, events={"left": 1, "right": 2},
                code="Local-Set", interval=[0, 2], paradigm="imagery",
            )  # fmt: skip

        def _get_single_subject_data(self, subject):
            type(self).loads += 1
            return {s: {"0": self._raw(subject * 10 + int(s[0]))} for s in ("0train", "1test")}

        def _raw(self, seed):
            signal = np.random.default_rng(seed).normal(0, 20e-6, (4, 2560))
            signal[3] = 0
            for at, code in ((512, 1), (1024, 2), (1536, 1)):
                signal[3, at] = code
            info = mne.create_info(["C3", "Cz", "C4", "stim"], 128.0, ["eeg"] * 3 + ["stim"])
            raw = mne.io.RawArray(signal, info, verbose="error")
            if self.annotated:
                names = ["left", "right", "left"]
                raw.set_annotations(mne.Annotations([4.0, 8.0, 12.0], 2.0, names))
            return raw

        def data_path(self, subject, *_args, **_kwargs):
            return []

    monkeypatch.setattr(moabb_datasets, "LocalSet", LocalSet, raising=False)
    return LocalSet


@pytest.fixture
def make_config(tmp_path):
    def make(source, **more):
        values = {
            "dataset": "local",
            "root": str(tmp_path),
            "store": str(tmp_path / "store"),
            "contract": {"sfreq": 64, "band_hz": [0.5, 30], "window_s": 2.0, "line_hz": "none"},
            "sources": [source],
            "workers": 0,
            **more,
        }
        return parse_config(CONFIG, values, where="test")

    return make


def moabb_source(tmp_path, name="LocalSet", **more):
    return {"reader": {"name": "moabb", "dataset": name, "cache": str(tmp_path / "moabb"), **more}}


@pytest.mark.parametrize("annotated", [False, True])
def test_every_run_of_a_dataset_reaches_the_store(tmp_path, local_set, make_config, annotated):
    source = moabb_source(tmp_path, options={"annotated": annotated}) | {"task": "imagery"}
    config = make_config(source | {"events": {"classes": {"left": "left hand"}}})
    store = open_store(run(config).store)
    assert sorted(store.index["recording_id"]) == [
        f"local_sub-{s}_ses-{k}_task-imagery_run-0" for s in (1, 2) for k in ("0train", "1test")
    ]
    recording = store.recording("local_sub-1_ses-0train_task-imagery_run-0")
    assert recording.sensors.ch_names == ("C3", "Cz", "C4")
    told = [(round(e.onset_s, 2), e.description, e.label) for e in recording.events]
    assert told == [(4.0, "left", "left hand"), (8.0, "right", ""), (12.0, "left", "left hand")]


def test_no_subject_is_loaded_twice(tmp_path, local_set, make_config):
    config = make_config(moabb_source(tmp_path, subjects=[2]))
    assert run(config).report["status"].tolist() == ["kept", "kept"]
    assert run(config).report["status"].tolist() == ["skipped", "skipped"]
    assert local_set.loads == 1


def test_moabbs_own_fake_dataset_is_found_by_name(tmp_path, make_config):
    pytest.importorskip("moabb")
    options = {
        "n_subjects": 1,
        "n_sessions": 1,
        "n_runs": 1,
        "duration": 30,
        "n_events": 6,
        "seed": 1,
    }
    source = moabb_source(tmp_path, "FakeDataset", options=options)
    # its samples are plain numbers, not volts
    result = run(make_config(source | {"units": "trust"}))
    assert result.report["n_events"].tolist() == [6]


def test_an_unknown_dataset_names_the_nearest(tmp_path, local_set, make_config):
    with pytest.raises(ConfigError, match=r"(?s)unknown MOABB dataset 'LocalSt'.*'LocalSet'"):
        run(make_config(moabb_source(tmp_path, "LocalSt")))
    # only classes that MOABB itself names: never a path to code
    with pytest.raises(ConfigError, match="unknown MOABB dataset 'os.system'"):
        run(make_config(moabb_source(tmp_path, "os.system")))


def test_wrong_options_and_subjects_are_refused(tmp_path, local_set, make_config):
    with pytest.raises(ConfigError, match="does not take its options: .*'colour'"):
        run(make_config(moabb_source(tmp_path, options={"colour": 1})))
    with pytest.raises(SourceError, match="LocalSet has no subject 7; it has 1 to 2"):
        run(make_config(moabb_source(tmp_path, subjects=[7])))


def test_a_subject_that_cannot_be_loaded_is_told(tmp_path, local_set, make_config, monkeypatch):
    def fail(self, subject):
        raise OSError("no network")

    monkeypatch.setattr(local_set, "_get_single_subject_data", fail)
    with pytest.raises(
        SourceError, match=r"cannot load subject 1 of LocalSet: OSError: no network"
    ):
        run(make_config(moabb_source(tmp_path)))


def test_without_moabb_the_extra_is_named(tmp_path, make_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "moabb", None)
    monkeypatch.setitem(sys.modules, "moabb.datasets", None)
    with pytest.raises(ConfigError, match=r"needs MOABB.*\n.*neurofm\[moabb\]"):
        run(make_config(moabb_source(tmp_path)))


def test_mne_objects_reach_the_store_and_are_known_again(make_raw, make_config):
    raws = [(make_raw(seed=i), Entities(dataset="mine", subject=f"s_{i}.x")) for i in range(2)]
    raws[0][0].set_annotations(mne.Annotations([2.0], [1.0], ["blink"]))
    config = make_config({"events": {"rename": {"blink": "eyes"}}})
    result = preprocess_raws(raws, config)
    assert result.report["status"].tolist() == ["kept", "kept"]
    recording = open_store(result.store).recording("mine_sub-s-0.x")
    assert [(e.onset_s, e.description) for e in recording.events] == [(2.0, "eyes")]
    assert recording.entities.subject == "s_0.x"
    assert preprocess_raws(raws, config).report["status"].tolist() == ["skipped", "skipped"]
    changed = [(make_raw(seed=9), raws[0][1]), raws[1]]
    told = preprocess_raws(changed, config).report.set_index("recording_id")
    assert "has changed" in told.loc["mine_sub-s-0.x", "reason"]


def test_two_objects_of_one_name_are_refused(tmp_path, make_raw):
    raws = [(make_raw(), Entities(dataset="d", subject="1"))] * 2
    with pytest.raises(SourceError, match="two of the recordings are called 'd_sub-1'"):
        found_in_memory(raws, tmp_path, SourceConfig())
    with pytest.raises(SourceError, match="no recording was given"):
        found_in_memory([], tmp_path, SourceConfig())


def told_of_writing(data):
    """Return what the tags of a FIF file say of the machine and the time it was written at."""
    found, at = set(), 0
    while at >= 0:
        _, kind, size, following = struct.unpack(">iiii", data[at : at + 16])
        if kind == 31:
            found.add(data[at + 20 : at + 36])
        at = following if following else at + 16 + size
    return found


@pytest.mark.parametrize("dated", [False, True])
def test_the_same_object_gives_the_same_bytes(tmp_path, make_raw, dated, monkeypatch):
    raw = make_raw(first_samp=300)
    if dated:
        raw.set_meas_date(1_000_000_000)
    write_fif(raw, tmp_path / "a_raw.fif")
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_fif(raw, tmp_path / "b_raw.fif")
    a, b = ((tmp_path / f"{n}_raw.fif").read_bytes() for n in "ab")
    assert a == b
    assert told_of_writing(a) == {bytes(16)}
    again = mne.io.read_raw_fif(tmp_path / "a_raw.fif", verbose="error")
    np.testing.assert_array_equal(again.get_data(), raw.get_data())

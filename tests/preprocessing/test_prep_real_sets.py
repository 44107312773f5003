"""The shipped configs on the real sets: events, channels and units come out right."""

import numpy as np
import pytest
from scipy.signal import welch

from neurofm.config import CONFIGS, load_config
from neurofm.contract import robust_sd
from neurofm.preprocessing.naming import matches
from neurofm.preprocessing.run import CONFIG, plan, run
from neurofm.preprocessing.sources import discover
from neurofm.store.reader import open_store

NAMES = sorted(path.stem for path in (CONFIGS / "preprocess").glob("*.yaml"))
REAL = ("eegmat", "eegmmidb", "ssvep_exo")


def load(name, test_data, tmp_path, **changes):
    overrides = [f"root={test_data / name}", f"store={tmp_path / name}", "workers=0"]
    overrides += [f"{key}={value}" for key, value in changes.items()]
    return load_config(CONFIG, name, overrides, stage="preprocess")


def store_of(config):
    result = run(config)
    assert not (result.report["status"] == "refused").any()
    return open_store(result.store)


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_config_can_be_read_and_prints_itself(name):
    config = load_config(CONFIG, name, stage="preprocess")
    assert config.sources


def test_the_three_real_sets_share_a_contract():
    contracts = [load_config(CONFIG, name, stage="preprocess").contract for name in REAL]
    assert contracts[0] == contracts[1] == contracts[2]


@pytest.mark.parametrize(("name", "n"), [("eegmat", 48), ("eegmmidb", 22), ("ssvep_exo", 9)])
def test_every_recording_of_the_set_is_found_once(test_data, tmp_path, name, n):
    config = load(name, test_data, tmp_path)
    found = discover(test_data / name, config.dataset, config.sources)
    recordings = [f for f in found if f.entities is not None]
    assert all(f.problem is None for f in found)
    assert len(recordings) == n
    files = [p for p in (test_data / name).rglob("*")
             if matches(p.name, ("*.edf", "*.gdf", "*_raw.fif"))]  # fmt: skip
    assert len(files) == n
    assert plan(config).count(" -> ") == n + 1


def test_eegmat_has_its_tasks_and_no_electrocardiogram(test_data, tmp_path):
    store = store_of(
        load("eegmat", test_data, tmp_path,
             **{"sources.0.include": "[Subject00_*.edf]", "sources.0.exclude": "['*_2.edf']",
                "sources.1.include": "[Subject00_2.edf]"})
    )  # fmt: skip
    index = store.index.set_index("recording_id")
    assert dict(zip(index["run"], index["task"], strict=True)) == {"1": "rest", "2": "arithmetic"}
    for name in index.index:
        sensors = store.sensors(name)
        assert len(sensors) == 19 and sensors.located.all()
        assert not {"A2-A1", "ECG", "ECG ECG", "EEG A2-A1"} & set(sensors.ch_names)


def test_eegmmidb_keeps_its_events_and_says_what_the_run_was(test_data, tmp_path):
    changes = {f"sources.{i}.exclude": "['S002/**', 'S003/**', 'S005/**']"
               for i in range(6)}  # fmt: skip
    store = store_of(load("eegmmidb", test_data, tmp_path, **changes))
    index = store.index.set_index("run")
    assert index["task"].to_dict() == {
        "01": "eyesopen", "02": "eyesclosed", "04": "imaginedleftright", "05": "fistsfeet",
        "06": "imaginedfistsfeet", "09": "fistsfeet", "13": "fistsfeet",
    }  # fmt: skip
    for run_name in ("05", "09", "13"):
        events = store.events(index.loc[run_name, "recording_id"])
        names = [e.description for e in events]
        assert names.count("T1") + names.count("T2") == 15 and names.count("T0") == 15
        onsets = [e.onset_s for e in events]
        assert np.allclose(np.diff(onsets), [e.duration_s for e in events[:-1]], atol=0.02)
    assert store.sensors(index.loc["05", "recording_id"]).ch_names[:3] == ("FC5", "FC3", "FC1")


@pytest.fixture(scope="module")
def flicker_store(test_data, tmp_path_factory):
    """Subjects 01, 03 and 09: both formats, and both sessions of subject 01."""
    changes = {
        f"sources.{i}.exclude": "['subject02/**', 'subject04/**', 'subject05/**', 'subject06/**', "
        "'subject08/**']"
        for i in range(2)
    }
    return store_of(load("ssvep_exo", test_data, tmp_path_factory.mktemp("flicker"), **changes))


def test_ssvep_has_eight_trials_of_each_class_a_session(flicker_store):
    assert list(flicker_store.index["subject"]) == ["01", "01", "03", "09"]
    assert flicker_store.index["session"].nunique() == 4
    for name in flicker_store.index["recording_id"]:
        names = [e.description for e in flicker_store.events(name)]
        counts = {c: names.count(c) for c in ("rest", "13 Hz", "17 Hz", "21 Hz")}
        assert set(counts.values()) == {8}, name
        assert not {"33024", "33025", "33026", "33027"} & set(names)


def test_ssvep_labels_are_at_the_onsets_of_stimulation(flicker_store):
    for name in flicker_store.index["recording_id"]:
        events = flicker_store.events(name)
        starts = [e.onset_s for e in events if e.description == "32779"]
        labelled = [
            e.onset_s for e in events if e.description in ("rest", "13 Hz", "17 Hz", "21 Hz")
        ]
        assert len(labelled) == 32
        assert not starts or starts == labelled


def test_ssvep_amplitudes_are_alike_in_both_formats(flicker_store):
    amplitudes = [
        np.median(robust_sd(flicker_store.recording(name).signal))
        for name in flicker_store.index["recording_id"]
    ]
    assert all(1e-6 < a < 5e-5 for a in amplitudes)


def test_ssvep_spectra_peak_at_the_labelled_flicker(flicker_store):
    flickers = (13, 17, 21)
    for name in flicker_store.index["recording_id"]:
        recording = flicker_store.recording(name)
        ratios = np.zeros((3, 3))
        for row, flicker in enumerate(flickers):
            spectra = []
            for event in recording.events:
                if event.description == f"{flicker} Hz":
                    start = round((event.onset_s + 1) * 128)
                    trial = recording.signal[:, start : start + 512]
                    freqs, power = welch(trial, 128, nperseg=512, window="boxcar")
                    spectra.append(power.mean(axis=0))
            mean = np.mean(spectra, axis=0)
            for column, at in enumerate(flickers):
                near = (np.abs(freqs - at) > 0.3) & (np.abs(freqs - at) < 1.6)
                ratios[row, column] = mean[np.argmin(np.abs(freqs - at))] / mean[near].mean()
        assert (ratios.argmax(axis=0) == [0, 1, 2]).all(), (name, ratios)
        others = ratios[~np.eye(3, dtype=bool)]
        assert np.diag(ratios).mean() > 1.5 * others.mean(), (name, ratios)

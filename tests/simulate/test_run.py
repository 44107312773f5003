import json
from pathlib import Path

import mne
import numpy as np
import pytest
from scipy.signal import welch

from neurofm.config import load_config
from neurofm.electrodes import normalise_name
from neurofm.errors import ConfigError
from neurofm.preprocessing.units import check_amplitude
from neurofm.sensors import Knowledge, SensorKind, sensors_from_info
from neurofm.simulate.config import SimulateConfig
from neurofm.simulate.devices import DEVICES
from neurofm.simulate.run import plan, run

READERS = {
    ".vhdr": mne.io.read_raw_brainvision,
    ".edf": mne.io.read_raw_edf,
    ".fif": mne.io.read_raw_fif,
}
KINDS = {"eeg_a": "eeg", "eeg_b": "eeg", "meg": "mag", "seeg": "seeg"}


def small(folder, **changes):
    values = {
        "subjects": {"eeg_a": 2, "eeg_b": 1, "meg": 1, "seeg": 1},
        "runs": 1,
        "trials_per_class": 8,
        "resting_s": 15.0,
        "effect": 0.9,
        "bad_channel_rate": 1.0,
    }
    return SimulateConfig(folder=str(folder), **(values | changes))


def tiny(folder, **changes):
    return small(
        folder,
        **{
            "subjects": {"eeg_a": 0, "eeg_b": 1, "meg": 1, "seeg": 0},
            "trials_per_class": 1,
            "resting_s": 0.0,
        }
        | changes,
    )


def opened(root, row):
    path = Path(root) / row["path"]
    raw = READERS[path.suffix](path, preload=True, verbose="ERROR")
    return raw, raw.copy().pick(KINDS[row["device"]], verbose="ERROR")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "cohort"
    result = run(small(folder))
    return result, json.loads((folder / "truth.json").read_text())


def motor(cohort):
    return [row for row in cohort[1]["recordings"] if row["task"] == "motor"]


def test_every_recording_of_the_truth_is_a_file_in_a_bids_like_tree(cohort):
    result, truth = cohort
    found = {
        p.relative_to(result.folder).as_posix()
        for p in result.folder.rglob("sub-*")
        if p.suffix in READERS
    }
    assert found == {row["path"] for row in truth["recordings"]}
    assert "sub-01/ses-01/eeg/sub-01_ses-01_task-motor_run-01_eeg.vhdr" in found
    assert "sub-03/ses-01/eeg/sub-03_ses-01_task-rest_run-01_eeg.edf" in found
    people = (result.folder / "participants.tsv").read_text().splitlines()
    assert people[0] == "participant_id\tdevice"
    assert people[1:] == [f"sub-{p['subject']}\t{p['device']}" for p in truth["subjects"]]
    description = json.loads((result.folder / "dataset_description.json").read_text())
    assert {"Name", "BIDSVersion"} <= set(description)


def test_files_open_with_the_names_rates_and_plausible_units_of_their_device(cohort):
    for row in cohort[1]["recordings"]:
        device = DEVICES[row["device"]]
        raw, brain = opened(cohort[0].folder, row)
        assert raw.info["sfreq"] == row["sfreq"] == device.sfreq
        assert raw.n_times == round(row["duration_s"] * row["sfreq"])
        assert len(brain.ch_names) == row["n_channels"]
        if device.ch_names:
            assert brain.ch_names == [f"{device.prefix}{n}{device.suffix}" for n in device.ch_names]
        brain.filter(0.5, 45, verbose="ERROR")
        check_amplitude(brain.get_data(), sensors_from_info(brain.info), row["path"])


def test_old_names_are_normalised_to_template_positions(cohort):
    (row,) = (r for r in motor(cohort) if r["device"] == "eeg_b")
    raw, _ = opened(cohort[0].folder, row)
    assert "EEG T3-Ref" in raw.ch_names
    assert normalise_name("EEG T3-Ref") == "T7"
    assert (sensors_from_info(raw.info).known == Knowledge.TEMPLATE).all()


def test_contacts_and_coils_come_with_measured_positions(cohort):
    for device, kind in (("meg", SensorKind.MAG), ("seeg", SensorKind.SEEG)):
        (row,) = (r for r in motor(cohort) if r["device"] == device)
        sensors = sensors_from_info(opened(cohort[0].folder, row)[0].info)
        assert set(sensors.kind) == {kind}
        assert (sensors.known == Knowledge.MEASURED).all()


def test_the_written_head_position_is_the_true_one(cohort):
    (person,) = (p for p in cohort[1]["subjects"] if p["device"] == "meg")
    (row,) = (r for r in motor(cohort) if r["device"] == "meg")
    raw, _ = opened(cohort[0].folder, row)
    move = raw.info["dev_head_t"]["trans"]
    np.testing.assert_allclose(move, person["dev_head_t"], atol=1e-6)
    assert np.abs(move[:3, :3] - np.eye(3)).max() > 0.01
    np.testing.assert_allclose(move[:3, :3] @ move[:3, :3].T, np.eye(3), atol=1e-6)


def test_events_are_in_the_files_where_the_truth_has_them(cohort):
    for row in motor(cohort):
        raw, _ = opened(cohort[0].folder, row)
        true = [(event["onset_s"], event["label"]) for event in row["events"]]
        assert len(true) == 24
        if row["device"] == "meg":
            found = mne.find_events(raw, "STI 014", shortest_event=1, verbose="ERROR")
            codes = {code: label for label, code in cohort[1]["codes"].items()}
            events = [((n - raw.first_samp) / row["sfreq"], codes[c]) for n, _, c in found]
        else:
            names = {f"Stimulus/S  {c}": label for label, c in cohort[1]["codes"].items()}
            events = [
                (a["onset"], names.get(a["description"], a["description"]))
                for a in raw.annotations
                if not a["description"].startswith("New Segment")
            ]
            assert {a["duration"] for a in raw.annotations if a["duration"] > 1} == {4.0}
        assert [label for _, label in events] == [label for _, label in true]
        onsets = [onset for onset, _ in events]
        np.testing.assert_allclose(onsets, [onset for onset, _ in true], atol=0.005)


def test_the_mains_of_the_laboratory_are_in_the_spectrum(cohort):
    for row in cohort[1]["recordings"]:
        _, brain = opened(cohort[0].folder, row)
        frequency, power = welch(brain.get_data(), row["sfreq"], nperseg=int(2 * row["sfreq"]))
        level = {hz: np.median(power[:, frequency == hz]) for hz in (47.0, 50.0, 60.0, 63.0)}
        here, elsewhere = (50.0, 60.0) if row["line_hz"] == 50 else (60.0, 50.0)
        assert level[here] > 10 * max(level[47.0], level[63.0], level[elsewhere])


def test_bad_channels_are_those_of_the_truth(cohort):
    seen = set()
    for row in cohort[1]["recordings"]:
        _, brain = opened(cohort[0].folder, row)
        deviation = np.diff(brain.get_data(), axis=1).std(axis=1)
        usual = np.median(deviation)
        found = {}
        for name, value in zip(brain.ch_names, deviation, strict=True):
            if value < 0.01 * usual:
                found[name] = "flat"
            elif value > 8 * usual:
                found[name] = "noisy"
        assert found == row["bad_channels"]
        seen |= set(found.values())
    assert seen == {"flat", "noisy"}


def test_mu_power_drops_over_the_hemisphere_opposite_to_the_hand(cohort):
    contrasts = []
    for row in motor(cohort):
        if row["device"] != "eeg_a":
            continue
        person = next(p for p in cohort[1]["subjects"] if p["subject"] == row["subject"])
        _, brain = opened(cohort[0].folder, row)
        brain.drop_channels(row["bad_channels"]).set_eeg_reference(verbose="ERROR")
        brain.filter(person["mu_hz"] - 2, person["mu_hz"] + 2, verbose="ERROR")
        sides = ["FC5", "C3", "CP5"], ["FC6", "C4", "CP6"]
        left, right = (brain.get_data([n for n in s if n in brain.ch_names]) for s in sides)
        lateral = {"left": [], "right": [], "rest": []}
        for event in row["events"]:
            start = round((event["onset_s"] + 0.8) * row["sfreq"])
            stop = round((event["onset_s"] + event["duration_s"]) * row["sfreq"])
            balance = np.log(left[:, start:stop].var() / right[:, start:stop].var())
            lateral[event["label"]].append(balance)
        contrasts.append(np.mean(lateral["left"]) - np.mean(lateral["right"]))
    assert min(contrasts) > 0.3


def test_the_same_seed_gives_the_same_signals_and_another_seed_others(tmp_path):
    made = [run(tiny(tmp_path / "a")), run(tiny(tmp_path / "b")), run(tiny(tmp_path / "c", seed=1))]
    for row in made[0].recordings.to_dict("records"):
        first, second, other = (opened(m.folder, row)[0].get_data() for m in made)
        np.testing.assert_array_equal(first, second)
        assert not np.allclose(first[:, :500], other[:, :500], atol=0)
    truths = [(m.folder / "truth.json").read_text() for m in made]
    assert truths[0] == truths[1] != truths[2]


def test_one_subject_more_leaves_the_others_as_they_were(tmp_path):
    few = run(tiny(tmp_path / "few"))
    more = run(tiny(tmp_path / "more", subjects={"eeg_a": 0, "eeg_b": 2, "meg": 1, "seeg": 0}))
    for device in ("eeg_b", "meg"):
        rows = [m.recordings[m.recordings.device == device].iloc[0].to_dict() for m in (few, more)]
        first, second = (
            opened(m.folder, row)[0].get_data() for m, row in zip((few, more), rows, strict=True)
        )
        np.testing.assert_array_equal(first, second)


def test_the_same_cohort_is_not_written_twice(cohort):
    result, _ = cohort
    before = {p: p.stat().st_mtime_ns for p in result.folder.rglob("*")}
    again = run(small(result.folder))
    assert not again.written
    assert "already there, nothing written" in again.summary()
    assert before == {p: p.stat().st_mtime_ns for p in result.folder.rglob("*")}
    assert again.recordings.equals(result.recordings)


def test_another_cohort_or_other_files_are_not_overwritten(cohort, tmp_path):
    with pytest.raises(ConfigError, match="holds another simulated cohort") as caught:
        run(small(cohort[0].folder, seed=5))
    assert "choose another folder, or delete it" in str(caught.value)
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ConfigError, match="holds no simulated cohort"):
        run(tiny(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_filled_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "cohort").mkdir()
    assert run(tiny(tmp_path / "cohort")).written
    assert [p.name for p in tmp_path.iterdir()] == ["cohort"]


def test_an_interrupted_simulation_leaves_no_folder(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("neurofm.simulate.run.write_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(tmp_path / "cohort"))
    assert list(tmp_path.iterdir()) == []


def test_plan_and_summary_say_what_is_written(cohort):
    result, truth = cohort
    minutes = sum(row["duration_s"] for row in truth["recordings"]) / 60
    assert f"wrote 10 recordings of 5 subjects, {minutes:.0f} minutes" in result.summary()
    assert "seeg" in result.summary()
    text = plan(small(result.folder))
    assert "5 subjects (2 eeg_a, 1 eeg_b, 1 meg, 1 seeg): 10 recordings" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects": dict.fromkeys(DEVICES, 0)}, "no device has any"),
        ({"gap_s": (2.0, 1.0)}, "shortest <= longest"),
        ({"resting_s": 1.0}, "at least 10 s"),
    ],
)
def test_a_cohort_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SimulateConfig(**changes)


def test_one_more_override_leaves_the_other_devices_as_they_are():
    config = load_config(SimulateConfig, None, ["subjects.meg=5"])
    assert config.subjects.to_dict() == {"eeg_a": 8, "eeg_b": 4, "meg": 5, "seeg": 2}
    assert set(config.subjects.to_dict()) == set(DEVICES)

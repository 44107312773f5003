import shutil

import numpy as np
import pandas as pd
import pytest

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import ContractError, SourceError, StoreError
from neurofm.preprocessing.run import CONFIG, plan, run
from neurofm.store.reader import open_store


@pytest.fixture
def make_config(tmp_path):
    """A config over ``tmp_path/raw``, in this process unless said otherwise."""

    def make(workers=0, source=None, **changes):
        values = {
            "dataset": "made",
            "root": str(tmp_path / "raw"),
            "store": str(tmp_path / "store"),
            "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2.0},
            "sources": [source or {}],
            "workers": workers,
        }
        return parse_config(CONFIG, values | changes, where="test")

    return make


@pytest.fixture
def recordings(tmp_path, write_edf):
    """Three EDF files of three subjects."""
    events = [(1.5, 0.0, "left"), (4.0, 0.5, "right")]
    return [
        write_edf(tmp_path / "raw" / f"sub-{n}" / f"sub-{n}_task-x_eeg.edf", seed=n, events=events)
        for n in (1, 2, 3)
    ]


def contents(store):
    """Everything in a store that must be the same however it was made."""
    store = open_store(store)
    return {
        name: (
            store.recording(name).signal.tobytes(),
            store.events(name),
            store.sensors(name).to_dict(),
            {k: v for k, v in store.index.set_index("recording_id").loc[name].items()
             if k != "spans"},
        )
        for name in store.index["recording_id"]
    }  # fmt: skip


def test_edf_files_become_a_store(recordings, make_config):
    result = run(make_config())
    store = open_store(result.store)
    assert list(store.index["recording_id"]) == [f"made_sub-{n}_task-x" for n in (1, 2, 3)]
    assert list(store.index["source"]) == [f"sub-{n}/sub-{n}_task-x_eeg.edf" for n in (1, 2, 3)]
    assert [e.description for e in store.events("made_sub-1_task-x")] == ["left", "right"]
    assert (result.report["status"] == "kept").all()
    row = result.report.iloc[0]
    assert (row.n_channels, row.sfreq_in, row.sfreq_out, row.duration_s) == (8, 256, 128, 10)
    assert "3 files: 3 kept, 0 skipped, 0 refused" in result.summary()


def test_samples_in_the_store_are_those_of_harmonise(recordings, make_config):
    from neurofm.preprocessing.from_mne import recording_from_raw
    from neurofm.preprocessing.harmonise import harmonise
    from neurofm.preprocessing.read import open_raw

    config = make_config()
    stored = open_store(run(config).store).recording("made_sub-2_task-x")
    raw, _ = open_raw(recordings[1])
    expected = harmonise(recording_from_raw(raw, stored.entities), config.contract)
    # 1 % of the deviation: the store holds 16-bit integers
    np.testing.assert_allclose(stored.signal, expected.signal, atol=1.3e-7)
    assert stored.history == expected.history


def test_worker_processes_make_the_same_store(recordings, make_config, tmp_path):
    here = contents(run(make_config()).store)
    there = contents(run(make_config(workers=2, store=str(tmp_path / "other"))).store)
    assert there == here


def test_the_batch_goes_on_when_files_are_broken(recordings, make_config, test_data, tmp_path):
    bad = ("truncated_mid_record.edf", "zero_byte.edf", "bdf_named_edf.edf", "truncated_raw.fif",
           "set_without_fdt.set", "missing_eeg_file.vhdr", "git_lfs_pointer.edf")  # fmt: skip
    for name in bad:
        shutil.copy(test_data / "broken" / name, tmp_path / "raw" / f"sub-{name}")
    result = run(make_config())
    verdicts = result.report.set_index("path")
    assert len(verdicts) == len(recordings) + len(bad)
    for name in bad:
        row = verdicts.loc[f"sub-{name}"]
        assert (row.status, row.error) == ("refused", "SourceError")
        assert name in row.reason
    assert (verdicts["status"] == "kept").sum() == 3
    assert "refused sub-zero_byte.edf" in result.summary()
    saved = pd.read_csv(result.store / "report.csv").set_index("path")
    assert saved["status"].to_dict() == verdicts["status"].to_dict()


def test_an_error_nobody_thought_of_becomes_a_row(recordings, make_config, monkeypatch):
    from neurofm.preprocessing import make

    def fail(path, *rest):
        if "sub-2" in path.name:
            raise ZeroDivisionError("once in a blue moon")
        return real(path, *rest)

    real = make.open_raw
    monkeypatch.setattr(make, "open_raw", fail)
    report = run(make_config()).report.set_index("path")
    row = report.loc["sub-2/sub-2_task-x_eeg.edf"]
    assert (row.status, row.error) == ("refused", "ZeroDivisionError")
    assert "unexpected ZeroDivisionError: once in a blue moon" in row.reason
    assert (report["status"] == "kept").sum() == 2


def test_nothing_kept_at_all_is_an_error_that_says_why(make_config, tmp_path, test_data):
    (tmp_path / "raw").mkdir()
    shutil.copy(test_data / "broken" / "zero_byte.edf", tmp_path / "raw" / "sub-1_eeg.edf")
    told = r"none of 1 files could be kept\n.*is empty.*\n    hint: download it again\n.*report"
    with pytest.raises(SourceError, match=told):
        run(make_config())
    assert (tmp_path / "store" / "report.csv").is_file()


def test_running_again_does_nothing_and_says_so(recordings, make_config, monkeypatch):
    config = make_config()
    first = run(config)
    report = (first.store / "report.csv").read_bytes()
    before = {p: p.stat().st_mtime_ns for p in first.store.rglob("*") if p.is_file()}
    monkeypatch.setattr("neurofm.preprocessing.run.preprocess_one", None)
    again = run(config)
    assert (again.report["status"] == "skipped").all()
    assert (again.report["reason"] == "in the store already").all()
    assert (again.report["n_channels"] == 8).all()
    assert (first.store / "report.csv").read_bytes() == report
    changed = {p.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert changed <= {"report.csv", "report.html"}


def test_a_new_file_is_added_and_a_refused_one_tried_again(
    recordings, make_config, write_edf, tmp_path
):
    late = tmp_path / "raw" / "sub-4_eeg.edf"
    late.write_bytes(b"")
    run(make_config())
    write_edf(late, seed=4)
    result = run(make_config())
    assert result.report["status"].value_counts().to_dict() == {"skipped": 3, "kept": 1}
    assert len(open_store(result.store).index) == 4
    saved = pd.read_csv(result.store / "report.csv")
    assert (saved["status"] == "kept").all() and len(saved) == 4


def test_rows_of_files_that_are_gone_stay_in_the_report(recordings, make_config):
    run(make_config())
    recordings[0].unlink()
    result = run(make_config())
    assert len(result.report) == 2
    assert len(pd.read_csv(result.store / "report.csv")) == 3


def test_a_touched_file_is_the_same_and_a_changed_one_is_refused(
    recordings, make_config, write_edf
):
    store = run(make_config()).store
    recordings[0].touch()
    write_edf(recordings[1], seed=99)
    report = run(make_config()).report.set_index("path")
    assert report.loc["sub-1/sub-1_task-x_eeg.edf", "status"] == "skipped"
    row = report.loc["sub-2/sub-2_task-x_eeg.edf"]
    assert row.status == "refused"
    assert "the file has changed since made_sub-2_task-x was made of it" in row.reason
    assert f"`neurofm remove {store} made_sub-2_task-x`" in row.hint


def test_what_the_hint_says_works(recordings, make_config, write_edf):
    store = run(make_config()).store
    before = contents(store)
    write_edf(recordings[1], seed=99)
    shutil.rmtree(store / "recordings" / "made_sub-2_task-x")
    result = run(make_config())
    assert result.report["status"].value_counts().to_dict() == {"skipped": 2, "kept": 1}
    after = contents(store)
    assert {name for name in after if after[name] != before[name]} == {"made_sub-2_task-x"}


def test_changed_settings_are_refused_by_name(recordings, make_config):
    run(make_config())
    with pytest.raises(SourceError, match="made with other settings: unit_scale, channels"):
        run(make_config(source={"unit_scale": 2.0, "channels": {"Cz": "drop"}}))


def test_another_file_of_the_same_id_is_refused(recordings, make_config, tmp_path):
    run(make_config())
    recordings[0].rename(tmp_path / "raw" / "sub-1_task-x_eeg.edf")
    report = run(make_config()).report.set_index("path")
    row = report.loc["sub-1_task-x_eeg.edf"]
    assert "is in the store already, made of 'sub-1/sub-1_task-x_eeg.edf'" in row.reason


def test_a_store_of_another_contract_is_refused(recordings, make_config):
    run(make_config())
    other = SignalContract(sfreq=100, band_hz=(0.5, 40), window_s=2.0)
    with pytest.raises(ContractError, match=r"sfreq: 128\.0 against 100\.0|sfreq: 100"):
        run(make_config(contract=other.to_dict()))


def test_a_folder_that_is_no_store_is_left_alone(recordings, make_config, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is not a neurofm store"):
        run(make_config())
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["thesis.txt"]


def test_two_data_sets_share_a_store_and_its_report(recordings, make_config, write_edf, tmp_path):
    run(make_config())
    for n in (1, 2, 3):
        write_edf(tmp_path / "more" / f"sub-{n}_eeg.edf", seed=10 + n)
    result = run(make_config(dataset="other", root=str(tmp_path / "more")))
    assert len(open_store(result.store).index) == 6
    assert len(pd.read_csv(result.store / "report.csv")) == 6


def test_the_plan_lists_every_file_and_touches_nothing(recordings, make_config, tmp_path):
    (tmp_path / "raw" / "unnamed.edf").touch()
    text = plan(make_config())
    assert "sub-1/sub-1_task-x_eeg.edf -> made_sub-1_task-x" in text
    assert "unnamed.edf: unnamed.edf: no subject in the path" in text
    assert not (tmp_path / "store").exists()


def test_implausible_units_are_refused_with_the_file(make_config, write_edf, make_signal, tmp_path):
    write_edf(tmp_path / "raw" / "sub-1_eeg.edf", signal=make_signal() * 1e-3)
    write_edf(tmp_path / "raw" / "sub-2_eeg.edf", signal=make_signal())
    report = run(make_config()).report.set_index("path")
    assert report.loc["sub-1_eeg.edf", "error"] == "SignalError"
    assert "1000 times too small" in report.loc["sub-1_eeg.edf", "reason"]
    assert "unit_scale: 1000" in report.loc["sub-1_eeg.edf", "hint"]


def test_interrupting_keeps_what_is_finished(recordings, make_config, monkeypatch):
    from neurofm.preprocessing import make

    real = make.open_raw

    def interrupt(path, *rest):
        if "sub-3" in path.name:
            raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(make, "open_raw", interrupt)
    config = make_config()
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert len(open_store(config.store).index) == 2
    assert len(pd.read_csv(config.store + "/report.csv")) == 2
    monkeypatch.setattr(make, "open_raw", real)
    assert run(config).report["status"].value_counts().to_dict() == {"skipped": 2, "kept": 1}


def test_a_recording_in_place_whose_worker_died_silently_is_kept(
    recordings, make_config, monkeypatch
):
    from neurofm.preprocessing import run as stage

    real = stage.preprocess_one

    def twice(task):
        if "sub-2" in task.relative:
            real(task)  # as by a worker that was killed before it could answer
        return real(task)

    monkeypatch.setattr(stage, "preprocess_one", twice)
    result = run(make_config())
    assert (result.report["status"] == "kept").all()
    assert (result.report["n_channels"] == 8).all()
    assert len(open_store(result.store).index) == 3


def test_companions_that_are_skipped_do_not_hide_that_nothing_was_kept(tmp_path, make_config):
    (tmp_path / "raw").mkdir()
    for name in ("sub-1_eeg.edf", "sub-2_eeg.fdt"):
        (tmp_path / "raw" / name).touch()
    with pytest.raises(SourceError, match=r"none of 2 files could be kept\n.*the file is empty"):
        run(make_config(source={"include": ["*.edf", "*.fdt"]}))

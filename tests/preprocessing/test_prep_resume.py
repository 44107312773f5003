"""The same bytes are one recording, whatever they are called and whoever works on them."""

import errno
import itertools
import os
import shutil

import pyarrow as pa
import pytest

from neurofm.config import parse_config
from neurofm.errors import StoreError, StoreUnwritable
from neurofm.preprocessing import make
from neurofm.preprocessing import run as run_module
from neurofm.preprocessing import task as task_module
from neurofm.preprocessing.report import read_report
from neurofm.preprocessing.run import CONFIG, plan, run
from neurofm.store.index import read_table
from neurofm.store.reader import open_store

CONTRACT = {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2.0}


@pytest.fixture
def make_config(tmp_path):
    def make(**changes):
        values = {
            "dataset": "made",
            "root": str(tmp_path / "raw"),
            "store": str(tmp_path / "store"),
            "contract": CONTRACT,
            "sources": [{}],
            "workers": 0,
        }
        return parse_config(CONFIG, values | changes, where="test")

    return make


@pytest.fixture
def raw(tmp_path, write_edf):
    for n in (1, 2, 3):
        write_edf(tmp_path / "raw" / f"sub-{n}_eeg.edf", seed=n)
    return tmp_path / "raw"


def rows_of(result):
    return result.report.set_index("path")


def every_byte(store):
    return {
        p.relative_to(store).as_posix(): p.read_bytes()
        for p in sorted(store.rglob("*"))
        if p.is_file()
    }


def test_of_two_runs_at_once_the_slower_says_what_the_other_kept(raw, make_config, monkeypatch):
    sort_out, others = run_module.sort_out, []

    def another_run_meanwhile(*args):
        found = sort_out(*args)
        if not others:
            others.append(None)
            run(make_config())
        return found

    monkeypatch.setattr(run_module, "sort_out", another_run_meanwhile)
    result = run(make_config())
    assert set(result.report["status"]) == {"skipped"}
    assert set(result.report["reason"]) == {"in the store already"}
    assert set(read_report(result.store)["status"]) == {"kept"}


def test_a_damaged_recording_keeps_no_other_from_being_made(raw, make_config, write_edf):
    store = run(make_config()).store
    (store / "recordings" / "made_sub-2" / "zarr.json").unlink()
    write_edf(raw / "sub-4_eeg.edf", seed=4)
    rows = rows_of(run(make_config()))
    assert rows["status"].tolist() == ["skipped", "refused", "skipped", "kept"]
    assert "made_sub-2: " in rows.loc["sub-2_eeg.edf", "reason"]
    assert "neurofm remove" in rows.loc["sub-2_eeg.edf", "hint"]
    assert "Damaged, and not shown: made_sub-2." in (store / "report.html").read_text()


def test_an_index_that_was_lost_is_made_anew(raw, make_config):
    store = run(make_config()).store
    before = every_byte(store)
    (store / "index.parquet").write_bytes(b"junk")
    with pytest.raises(StoreError, match="cannot be read.*\n.*delete it if it is there: the next"):
        run(make_config())
    (store / "index.parquet").unlink()
    run(make_config())
    assert every_byte(store) == before


# ---------------------------------------------------------------------------------------
# The same bytes


def test_a_copy_is_skipped_and_names_the_first(raw, make_config):
    shutil.copy(raw / "sub-1_eeg.edf", raw / "sub-4_eeg.edf")
    result = run(make_config())
    row = rows_of(result).loc["sub-4_eeg.edf"]
    assert row.status == "skipped"
    assert row.reason == "the same bytes as sub-1_eeg.edf, which is made_sub-1"
    assert list(open_store(result.store).index["recording_id"]) == [
        f"made_sub-{n}" for n in (1, 2, 3)
    ]
    assert "skipped sub-4_eeg.edf: the same bytes" in result.summary()


def test_files_of_one_size_are_no_copies(raw, make_config):
    sizes = {p.stat().st_size for p in raw.iterdir()}
    assert len(sizes) == 1
    assert (run(make_config()).report["status"] == "kept").all()


def test_files_that_differ_only_where_nobody_sampled_are_no_copies(
    tmp_path, write_edf, make_config
):
    path = write_edf(tmp_path / "raw" / "sub-1_eeg.edf", duration_s=60)
    data = bytearray(path.read_bytes())
    data[100_000] ^= 1
    (tmp_path / "raw" / "sub-2_eeg.edf").write_bytes(data)
    assert (run(make_config()).report["status"] == "kept").all()


@pytest.mark.parametrize("gone", [True, False])
def test_a_renamed_file_is_not_worked_on_again(raw, make_config, gone):
    run(make_config())
    (shutil.move if gone else shutil.copy)(raw / "sub-1_eeg.edf", raw / "sub-9_eeg.edf")
    result = run(make_config())
    row = rows_of(result).loc["sub-9_eeg.edf"]
    assert (row.status, row.recording_id) == ("skipped", "made_sub-1")
    assert row.reason == "the same bytes as sub-1_eeg.edf, which is made_sub-1"
    assert len(open_store(result.store).index) == 3


def test_a_copy_says_the_same_in_the_first_run_and_in_the_next(raw, make_config):
    shutil.copy(raw / "sub-1_eeg.edf", raw / "sub-4_eeg.edf")
    first = rows_of(run(make_config())).loc["sub-4_eeg.edf"]
    assert rows_of(run(make_config())).loc["sub-4_eeg.edf"].equals(first)


def test_what_others_commit_while_a_worker_looks_for_copies_costs_no_file(
    raw, make_config, monkeypatch
):
    later = (raw / "sub-3_eeg.edf").rename(raw / "sub-3_eeg.later")
    run(make_config())
    later.rename(raw / "sub-3_eeg.edf")
    times = itertools.count(1)

    def growing(store):
        return pa.concat_tables([read_table(store)] * next(times))

    monkeypatch.setattr(task_module, "read_table", growing)
    assert rows_of(run(make_config())).loc["sub-3_eeg.edf"].status == "kept"


def test_a_copy_is_worked_on_if_nothing_came_of_the_first(raw, make_config):
    shutil.copy(raw / "sub-1_eeg.edf", raw / "sub-4_eeg.edf")
    wrong = {"include": ["sub-1*"], "unit_scale": 1e-3}
    result = run(make_config(sources=[wrong, {"exclude": ["sub-1*"]}]))
    rows = rows_of(result)
    assert rows.loc["sub-1_eeg.edf", "status"] == "refused"
    assert rows.loc["sub-4_eeg.edf", "status"] == "kept"
    assert len(rows) == 4


# ---------------------------------------------------------------------------------------
# Whoever works


def test_dask_and_local_workers_make_the_same_bytes(raw, make_config, tmp_path):
    shutil.copy(raw / "sub-1_eeg.edf", raw / "sub-4_eeg.edf")
    (raw / "sub-5_eeg.edf").write_bytes(b"")
    stores = {
        "here": {"workers": 0},
        "processes": {"workers": 2},
        "dask": {"cluster": {"name": "local", "workers": 2}},
    }
    made = {
        name: every_byte(run(make_config(store=str(tmp_path / name), **how)).store)
        for name, how in stores.items()
    }
    assert sum(name.startswith("recordings/made_sub-") for name in made["here"]) >= 3 * 3
    assert made["processes"] == made["here"]
    assert made["dask"] == made["here"]


def test_paths_may_be_relative(raw, make_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(make_config(root="raw", store="store", workers=1))
    assert (result.report["status"] == "kept").all()
    assert len(open_store(tmp_path / "store").index) == 3


def test_a_file_that_hangs_is_refused_with_the_limit(raw, make_config):
    (raw / "sub-4.vhdr").write_text("DataFile=sub-4.eeg\n")
    os.mkfifo(raw / "sub-4.eeg")  # nobody writes into it
    result = run(make_config(workers=2, timeout_s=2))
    row = rows_of(result).loc["sub-4.vhdr"]
    assert (row.status, row.error) == ("refused", "TimedOut")
    assert "sub-4.vhdr: it took longer than 2 s" in row.reason
    assert (result.report["status"] == "kept").sum() == 3


def test_the_plan_shows_what_slurm_is_told(raw, make_config):
    text = plan(make_config(cluster={"name": "slurm", "jobs": 7, "queue": "cpu"}))
    assert "7 jobs of SLURM" in text and "#SBATCH -p cpu" in text


# ---------------------------------------------------------------------------------------
# Targets that cannot be written


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_stops_the_run_which_goes_on_later(raw, make_config, monkeypatch, number):
    real = make.write_recording

    def fail(store, recording, **rest):
        if recording.recording_id != "made_sub-1":
            raise OSError(number, os.strerror(number))
        return real(store, recording, **rest)

    monkeypatch.setattr(make, "write_recording", fail)
    with pytest.raises(StoreUnwritable, match=f"cannot be written.*{os.strerror(number)}"):
        run(make_config())
    store = open_store(make_config().store)
    assert list(store.index["recording_id"]) == ["made_sub-1"] and store.verify() == []
    monkeypatch.setattr(make, "write_recording", real)
    statuses = run(make_config()).report["status"].value_counts().to_dict()
    assert statuses == {"kept": 2, "skipped": 1}


def test_a_target_that_cannot_be_made_is_named(raw, make_config):
    with pytest.raises(StoreUnwritable, match=r"/proc/store cannot be written.*\n.*another path"):
        run(make_config(store="/proc/store"))

"""What lies in folders and is no file that anybody meant: one row each, and the run goes on."""

import os
import shutil

import h5py
import numpy as np
import pytest

from neurofm.config import parse_config
from neurofm.preprocessing import make
from neurofm.preprocessing.report import read_report
from neurofm.preprocessing.run import CONFIG, run


@pytest.fixture
def report_of(tmp_path, write_edf):
    """Run over a folder that holds one sound recording, and return the rows by path."""
    write_edf(tmp_path / "raw" / "sub-1_eeg.edf")

    def make(**changes):
        values = {
            "dataset": "made",
            "root": str(tmp_path / "raw"),
            "store": str(tmp_path / "store"),
            "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2.0},
            "sources": [{}],
            "workers": 0,
            "every_file": True,
        }
        run(parse_config(CONFIG, values | changes, where="test"))
        rows = read_report(tmp_path / "store").set_index("path")
        assert rows.loc["sub-1_eeg.edf"].status == "kept"
        return rows

    return make


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def test_names_that_are_not_utf8_are_refused_and_shown(raw, report_of):
    for name in (b"sub-\xff_eeg.edf", b"notes-\xe4.txt"):
        (raw / os.fsdecode(name)).write_bytes(b"1")
    rows = report_of()
    row = rows.loc[r"sub-\xff_eeg.edf"]
    assert row.status == "refused"
    assert row.reason == r"sub-\xff_eeg.edf: its name is not UTF-8, and no table can hold it"
    assert rows.loc[r"notes-\xe4.txt"].status == "other"


def test_pipes_and_broken_links_are_not_opened(raw, report_of):
    os.mkfifo(raw / "sub-2_eeg.edf")
    os.mkfifo(raw / "sub-3_eeg.edf")
    os.mkfifo(raw / "pipe")
    (raw / "link").symlink_to(raw / "gone")
    (raw / "sub-4_eeg.edf").symlink_to(raw / "gone.edf")
    rows = report_of()
    assert "a device, pipe or socket, not a file" in rows.loc["sub-2_eeg.edf"].reason
    assert "the file is a broken link" in rows.loc["sub-4_eeg.edf"].reason
    assert rows.loc["pipe"].reason == "no file: not opened"
    assert rows.loc["link"].reason == "no recording: a broken link"


@pytest.mark.parametrize("ending", [".h5", ".npz", ".mat"])
def test_a_damaged_file_of_several_arrays_is_refused_alone(raw, report_of, ending):
    array = {"name": "array", "key": "{subject}/eeg", "sfreq": 128, "unit": "uV"}
    source = {"reader": array, "include": ["*.h5", "*.npz", "*.mat"], "allow_unlocated": True}
    with h5py.File(raw / "fine.h5", "w") as store:
        store["7/eeg"] = 20 * np.random.default_rng(0).standard_normal((2, 1280))
    if ending == ".h5":
        shutil.copy(raw / "fine.h5", raw / "cut.h5")
        os.truncate(raw / "cut.h5", 900)
    else:
        (raw / f"cut{ending}").write_bytes(b"PK\x03\x04 and nothing more")
    rows = report_of(sources=[{}, source])
    assert rows.loc["fine.h5::7/eeg"].status == "kept"
    row = rows.loc[f"cut{ending}"]
    assert (row.status, row.error) == ("refused", "SourceError")
    assert "what it holds cannot be read" in row.reason


def test_a_file_that_the_system_does_not_give_is_refused(raw, report_of, write_edf, monkeypatch):
    write_edf(raw / "sub-2_eeg.edf", seed=2)

    def forbidden(path, *rest):
        if "sub-2" in path.name:
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    real = make.open_raw
    monkeypatch.setattr(make, "open_raw", forbidden)
    row = report_of().loc["sub-2_eeg.edf"]
    assert (row.status, row.error) == ("refused", "SourceError")
    assert "cannot be read: [Errno 13] Permission denied" in row.reason
    assert "may it be read" in row.hint

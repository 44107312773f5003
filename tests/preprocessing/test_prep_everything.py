"""One command over a folder of many sets and formats: every file is accounted for."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from neurofm.config import load_config
from neurofm.preprocessing.run import CONFIG, run
from neurofm.store.reader import open_store

REFUSED = {
    "annex_symlink_text.edf": "a git-annex link, not the recording itself",
    "bdf_named_edf.edf": r"named \.edf but its content is BDF, not EDF",
    "git_lfs_pointer.edf": "a git-lfs pointer, not the recording itself",
    "header_only.edf": "no complete data record: 0 bytes of data after the header",
    "missing_eeg_file.vhdr": r"companion file 'not_there\.eeg' is missing",
    "set_without_fdt.set": r"a companion file is missing: .*\.fdt",
    "truncated_mid_record.edf": "cut short: the header promises 61 records, 4 are there",
    "truncated_raw.fif": "cut short: the FIF file ends inside its data",
    "zero_byte.edf": r"the file is empty \(0 bytes\)",
}
# what is told of those that are repaired: in the notes, or of the channels that were dropped
REPAIRED = {
    "curry_sfreq_0/test_sfreq_0.dap": "header is 0 Hz; 500 Hz follow from the 2000 microseconds",
    "muse_gap_and_garbage.csv": "1 lines that hold no numbers and 100 rows that repeat .*3.13 s",
    "nan_inf_flat_clipped_raw.fif": "Fc4.: 800 of 3201 samples are NaN or infinite",
    "nrecords_minus1.edf": "the header does not say how many records there are; found 8",
    "physmin_eq_physmax.edf": "Fcz.: physical minimum and maximum are both 0",
    "odd_channel_names_raw.fif": "1 channels without a position: 000/A1",
}
# outside broken/, and refused with good reason
AS_BAD = {
    "formats/edf_edge/test_uneven_samp.edf": "look like uV declared as V",
    "formats/edf_edge/duplicate_channel_labels.edf": "channel names occur more than once: F1",
    "bids/tiny_bids/sub-01/ses-eeg/eeg/sub-01_ses-eeg_task-rest_eeg.vhdr": (
        "holds INT_16, but its samples are 32-bit floats"
    ),
}
KEPT = {
    "broken": 6, "chbmit_windows": 8, "ecog": 1, "eegmat": 48, "eegmmidb": 22, "hfo": 1,
    "meg_bti": 1, "meg_ctf": 1, "meg_kit": 1, "meg_neuromag": 2, "meg_opm": 1, "muse_n170": 3,
    "seeg": 1, "ssvep_exo": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def everything(test_data, tmp_path_factory):
    store = tmp_path_factory.mktemp("everything") / "store"
    overrides = [f"root={test_data}", f"store={store}"]
    config = load_config(CONFIG, "everything", overrides, stage="preprocess")
    return config, run(config)


@pytest.fixture(scope="module")
def report(everything):
    return everything[1].report.set_index("path")


def test_every_file_of_the_tree_has_one_row(report, test_data):
    there = {
        (Path(here) / name).relative_to(test_data).as_posix()
        for here, _, files in os.walk(test_data)
        for name in files
    }
    folders = {path for path in report.index if (test_data / path).is_dir()}
    assert folders == {"meg/ctf/testdata_ctf_short_discontinuous.ds"}
    assert report.index.is_unique
    assert set(report.index) - folders == there


def test_every_row_says_what_became_of_the_file(report):
    assert set(report["status"]) == {"kept", "refused", "companion", "other"}
    told = report[report["status"] != "kept"]
    assert (told["reason"].str.len() > 10).all()
    assert (report.loc[report["status"] == "companion", "reason"]
            .str.match("read with|describes")).all()  # fmt: skip
    assert (
        not report["error"].isin(["AttributeError", "KeyError", "TypeError", "NeurofmError"]).any()
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_file_is_refused_with_its_reason(report, name):
    row = report.loc[f"broken/{name}"]
    assert (row["status"], row["error"]) == ("refused", "SourceError")
    assert re.search(REFUSED[name], row["reason"])


@pytest.mark.parametrize("name", REPAIRED)
def test_what_is_repaired_says_so(report, name):
    row = report.loc[f"broken/{name}"]
    assert row["status"] == "kept"
    assert re.search(REPAIRED[name], f"{row['notes']} {row['dropped']}")


def test_nothing_in_the_broken_folder_is_forgotten(report, test_data):
    named = {f"broken/{name}" for name in {**REFUSED, **REPAIRED}}
    rest = {path for path in report.index if path.startswith("broken/")} - named
    assert set(report.loc[sorted(rest), "status"]) == {"companion"}
    assert rest == {
        "broken/events_out_of_range-eve.fif",
        "broken/curry_sfreq_0/test_sfreq_0.dat",
        "broken/curry_sfreq_0/test_sfreq_0.rs3",
    }


def test_all_of_what_is_whole_is_kept(everything, report):
    kept = report[report["status"] == "kept"]["dataset"].value_counts().to_dict()
    assert {name: kept.get(name, 0) for name in KEPT} == KEPT
    refused = report[(report["status"] == "refused") & ~report.index.str.startswith("broken/")]
    assert set(refused.index) == set(AS_BAD)
    for path, why in AS_BAD.items():
        assert re.search(why, refused.loc[path, "reason"])
    index = open_store(everything[1].store).index
    assert len(index) == (report["status"] == "kept").sum()


def test_labels_say_what_the_same_event_means_in_each_run(everything):
    store = open_store(everything[1].store)
    meant = {
        task: {
            (e.description, e.label)
            for e in store.events(f"eegmmidb_sub-S001_task-{task}_run-{run}")
            if e.label
        }
        for task, run in (("imaginedleftright", "04"), ("fistsfeet", "05"))
    }
    assert meant == {
        "imaginedleftright": {
            ("T0", "rest"), ("T1", "imagined left fist"), ("T2", "imagined right fist")
        },
        "fistsfeet": {("T0", "rest"), ("T1", "both fists"), ("T2", "both feet")},
    }  # fmt: skip


def test_again_finds_everything_in_place(everything, report):
    config, first = everything
    again = run(config)
    words = again.report["status"].value_counts().to_dict()
    assert words["skipped"] == (report["status"] == "kept").sum()
    assert "kept" not in words
    pd.testing.assert_series_equal(
        again.report["path"].sort_values(ignore_index=True),
        first.report["path"].sort_values(ignore_index=True),
    )

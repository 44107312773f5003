import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.naming import entities_of, matches, pattern_regex


def named(path, pattern=None, **fixed):
    return entities_of(path, dataset="d", pattern=pattern, fixed=fixed)


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("*.edf", "a.edf", True),
        ("*.edf", "sub/a.edf", False),
        ("**/*.edf", "a.edf", True),
        ("**/*.edf", "x/y/a.edf", True),
        ("x/**", "x/y/a.edf", True),
        ("a?.edf", "a1.edf", True),
        ("a?.edf", "a/.edf", False),
        ("*.edf", "aXedf", False),
        ("record-[*].gdf", "record-[2012.07.06-19.02.16].gdf", True),
        ("record-[12].gdf", "record-1.gdf", False),
    ],
)
def test_globs_stay_in_folders_and_take_brackets_literally(glob, path, expected):
    assert matches(path, (glob,)) is expected


def test_a_channel_glob_crosses_slashes():
    assert matches("EEG 000/A1", ("EEG*",), path=False)


@given(st.text(alphabet="abcXYZ019[](){}*?.+$^|\\- ", min_size=1))
def test_a_name_without_wildcards_matches_itself_and_nothing_longer(name):
    bare = name.replace("*", "").replace("?", "")
    assert matches(bare, (bare,))
    assert not matches(bare + "x", (bare,))


def test_bids_entities_come_from_the_file_not_its_folders():
    found = named("sub-01/ses-a/eeg/sub-01_ses-b_task-rest_run-2_eeg.vhdr")
    assert (found.subject, found.session, found.task, found.run) == ("01", "b", "rest", "2")


def test_bids_entities_in_folders_alone_are_enough():
    assert named("sub-07/ses-1/recording.fif").recording_id == "d_sub-07_ses-1"


@pytest.mark.parametrize(
    ("pattern", "path", "recording_id"),
    [
        ("Subject{subject}_{run}.edf", "Subject00_1.edf", "d_sub-00_run-1"),
        ("{subject}/{subject}R{run}.edf", "S001/S001R05.edf", "d_sub-S001_run-05"),
        (
            "subject{subject}/record-[{session}].gdf",
            "subject01/record-[2012.07.06-19.02.16].gdf",
            "d_sub-01_ses-2012.07.06-19.02.16",
        ),
        ("{**}/{subject}-{*}.edf", "any/where/S1-rest.edf", "d_sub-S1"),
    ],
)
def test_a_pattern_finds_entities(pattern, path, recording_id):
    assert named(path, pattern).recording_id == recording_id


def test_a_field_that_comes_twice_must_say_the_same():
    with pytest.raises(SourceError, match=r"S001/S002R05\.edf: does not match the source's pat"):
        named("S001/S002R05.edf", "{subject}/{subject}R{run}.edf")


def test_entities_of_the_config_win_over_the_path():
    assert named("sub-1_task-x_eeg.edf", task="rest").task == "rest"


def test_a_path_without_subject_is_refused_with_what_to_do():
    with pytest.raises(SourceError, match=r"measurement\.edf: no subject in the path\n.*pattern"):
        named("measurement.edf")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{person}.edf", r"unknown field \{person\}\n.*\{subject\}"),
        ("{subject.edf", "a brace without its partner"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern, message):
    with pytest.raises(ConfigError, match=message):
        pattern_regex(pattern)

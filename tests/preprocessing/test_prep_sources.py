import pytest

from neurofm.config import parse_config
from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.sources import SourceConfig, discover


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found_in(root, **source):
    return discover(root, "d", [SourceConfig(**source)])


def test_companions_and_later_parts_are_no_recordings_of_their_own(tmp_path):
    touch(
        tmp_path,
        "sub-1_eeg.vhdr", "sub-1_eeg.vmrk", "sub-1_eeg.eeg",
        "sub-2_eeg.set", "sub-2_eeg.fdt",
        "sub-3_raw.fif", "sub-3_raw-1.fif", "sub-3-eve.fif",
        "sub-4_split-01_meg.fif", "sub-4_split-02_meg.fif",
        "README.md", ".sub-5_eeg.edf",
    )  # fmt: skip
    assert [f.relative for f in found_in(tmp_path)] == [
        "sub-1_eeg.vhdr", "sub-2_eeg.set", "sub-3_raw.fif", "sub-4_split-01_meg.fif"
    ]  # fmt: skip


def test_a_companion_that_include_asks_for_gets_a_row_that_says_why_not(tmp_path):
    touch(tmp_path, "sub-1_raw.fif", "sub-1_raw-1.fif", "sub-1-eve.fif")
    why = {f.relative: f.skipped for f in found_in(tmp_path, include=("*.fif",))}
    assert why == {
        "sub-1_raw.fif": "",
        "sub-1_raw-1.fif": "a later part of sub-1_raw.fif",
        "sub-1-eve.fif": "not a continuous recording",
    }


def test_a_folder_of_a_format_that_is_one_is_one_recording(tmp_path):
    touch(tmp_path, "sub-1_meg.ds/sub-1_meg.res4", "sub-1_meg.ds/hz.ds/hz.res4")
    assert [f.relative for f in found_in(tmp_path)] == ["sub-1_meg.ds"]


def test_brackets_in_file_names_are_no_trap(tmp_path):
    touch(tmp_path, "subject01/record-[2012.07.06].gdf")
    (found,) = found_in(
        tmp_path,
        include=("subject*/record-[*].gdf",),
        pattern="subject{subject}/record-[{session}].gdf",
    )
    assert found.entities.session == "2012.07.06"


def test_exclude_wins_over_include(tmp_path):
    touch(tmp_path, "sub-1_eeg.edf", "old/sub-1_eeg.edf")
    found = found_in(tmp_path, include=("**/*.edf",), exclude=("old/**",))
    assert [f.relative for f in found] == ["sub-1_eeg.edf"]


def test_duplicates_are_refused_naming_both_and_the_rest_stays(tmp_path):
    touch(tmp_path, "a/sub-1_eeg.edf", "b/sub-1_eeg.edf", "sub-2_eeg.edf")
    problems = {f.relative: f.problem for f in found_in(tmp_path)}
    assert problems["sub-2_eeg.edf"] is None
    for name in ("a/sub-1_eeg.edf", "b/sub-1_eeg.edf"):
        assert "'d_sub-1': a/sub-1_eeg.edf, b/sub-1_eeg.edf" in str(problems[name])


def test_the_same_file_in_two_sources_is_a_duplicate_too(tmp_path):
    touch(tmp_path, "sub-1_eeg.edf")
    found = discover(tmp_path, "d", [SourceConfig(), SourceConfig(include=("*.edf",))])
    assert all("2 files have the recording id 'd_sub-1'" in str(f.problem) for f in found)


def test_names_that_become_one_when_made_safe_are_duplicates(tmp_path):
    touch(tmp_path, "a b.edf", "a_b.edf")
    found = found_in(tmp_path, pattern="{subject}.edf")
    assert all(f.problem is not None for f in found)


def test_a_file_that_no_pattern_fits_is_refused_alone(tmp_path):
    touch(tmp_path, "S1.edf", "notes of S2.edf")
    problems = {f.relative: f.problem for f in found_in(tmp_path, pattern="S{subject}.edf")}
    assert problems["S1.edf"] is None
    assert "does not match" in str(problems["notes of S2.edf"])


def test_a_root_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere' is not a folder\n.*root=/path"):
        found_in(tmp_path / "nowhere")


def test_nothing_found_at_all_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"no file under .* matches \*\.gdf without x\*"):
        found_in(tmp_path, include=("*.gdf",), exclude=("x*",))


@pytest.mark.parametrize(
    ("glob", "told"),
    [
        ("*.gdf", r"there are 1 \.fif, 1 \.txt; .*case counts"),
        ("inner", r"'inner' is a folder: write inner/\*\*"),
        ("a*.fif", r"'a\*\.fif' looks in the folder itself: write \*\*/a\*\.fif"),
        ("inner/[ab]_raw.fif", "brackets and braces in a glob stand for themselves"),
        ("inner/{a,b}_raw.fif", "brackets and braces in a glob stand for themselves"),
        ("/data/*.fif", "globs are relative to the source's `root`"),
    ],
)
def test_a_glob_without_a_match_says_what_is_there_and_what_was_meant(tmp_path, glob, told):
    (tmp_path / "inner").mkdir()
    for name in ("inner/a_raw.fif", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=told):
        discover(tmp_path, "d", [SourceConfig(include=(glob,))])


def test_a_source_without_files_beside_one_with_files_gets_a_row(tmp_path):
    touch(tmp_path, "sub-1_eeg.edf")
    found = discover(tmp_path, "d", [SourceConfig(), SourceConfig(include=("*.gdf",))])
    assert [f.skipped.startswith("no file under") for f in found] == [False, True]


def test_a_wrong_pattern_is_refused_with_the_config():
    with pytest.raises(ConfigError, match=r"x\.yaml: pattern: .*unknown field \{subj\}"):
        parse_config(SourceConfig, {"pattern": "{subj}.edf"}, where="x.yaml")


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "data/sub-1_eeg.edf")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    assert len(found_in(tmp_path)) == 1

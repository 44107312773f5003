import mne
import numpy as np
import pytest

from neurofm.errors import SourceError
from neurofm.preprocessing.brainvision import verify_brainvision
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.verify import companions

HFO = "ieeg/hfo_bids/sub-01/ses-interictalsleep/ieeg/sub-01_ses-interictalsleep_run-01_ieeg.vhdr"
TINY = "bids/tiny_bids/sub-01/ses-eeg/eeg/sub-01_ses-eeg_task-rest_eeg.vhdr"


def written(folder, said, samples, data="x.eeg"):
    header = f"Brain Vision Data Exchange Header File Version 1.0\nDataFile={data}\n"
    (folder / "x.vhdr").write_text(header + f"[Binary Infos]\nBinaryFormat={said}\n")
    (folder / "x.eeg").write_bytes(samples.tobytes())
    return folder / "x.vhdr"


def saved(folder, make_signal):
    """A recording of two channels as BrainVision."""
    info = mne.create_info(["Cz", "Pz"], 256, "eeg")
    raw = mne.io.RawArray(make_signal(2, 2, 256, 0), info, verbose="error")
    mne.export.export_raw(folder / "x.vhdr", raw, verbose="error")
    return folder / "x.vhdr"


def microvolts(scale=30.0, offset=0.0):
    return offset + scale * np.random.default_rng(0).standard_normal(70_000)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_floats_called_integers_are_refused_and_floats_called_floats_pass(tmp_path, scale):
    samples = (microvolts() * max(scale, 1.0)).astype("<f4")
    with pytest.raises(SourceError, match=r"x\.eeg holds INT_16, but its samples are 32-bit fl"):
        verify_brainvision(written(tmp_path, "INT_16", samples))
    verify_brainvision(written(tmp_path, "IEEE_FLOAT_32", (microvolts() * scale).astype("<f4")))


@pytest.mark.parametrize(
    ("scale", "offset"), [(300, 0), (2, 0), (9000, 0), (100, 9000), (50, -9000)]
)
def test_integers_called_floats_are_refused_and_integers_called_integers_pass(
    tmp_path, scale, offset
):
    samples = np.clip(microvolts(scale, offset), -32_768, 32_767).astype("<i2")
    with pytest.raises(SourceError, match="holds IEEE_FLOAT_32, but its samples are no such numb"):
        verify_brainvision(written(tmp_path, "IEEE_FLOAT_32", samples))
    verify_brainvision(written(tmp_path, "INT_16", samples, data="$b.eeg"))


def test_too_little_to_tell_passes(tmp_path):
    verify_brainvision(written(tmp_path, "INT_16", np.ones(50, "<f4")))
    verify_brainvision(written(tmp_path, "INT_16", np.zeros(5000, "<f4")))
    path = written(tmp_path, "INT_16", np.ones(5000, "<f4"))
    (tmp_path / "x.eeg").unlink()
    verify_brainvision(path)  # what is missing is told elsewhere


def test_a_real_file_whose_header_is_wrong_is_refused(test_data):
    # it opens as two seconds of noise between -3.3 and 3.3 mV; its sidecar says one second
    with pytest.raises(SourceError, match=r"task-rest_eeg\.vhdr: .* 32-bit floats: IEEE_FLOAT_32"):
        open_raw(test_data / TINY)


@pytest.mark.parametrize("name", ["formats/brainvision/test.vhdr", HFO])
def test_real_files_whose_headers_are_right_pass(test_data, name):
    verify_brainvision(test_data / name)


@pytest.fixture
def recorded(tmp_path, make_raw):
    raw = make_raw()
    raw.set_annotations(mne.Annotations([2.0, 9.5], 0.0, ["Stimulus/S  1", "Stimulus/S  2"]))
    mne.export.export_raw(tmp_path / "x.vhdr", raw, verbose="error")
    return tmp_path / "x.vhdr"


def cut(path, n_bytes):
    data = path.with_suffix(".eeg")
    data.write_bytes(data.read_bytes()[:-n_bytes])


def test_a_file_cut_within_a_frame_is_refused(recorded):
    open_raw(recorded)
    cut(recorded, 5)
    with pytest.raises(SourceError, match=r"cut short: 2559 samples and \d+ bytes of one more are"):
        open_raw(recorded)


def test_a_file_that_ends_before_its_last_marker_is_refused(recorded):
    cut(recorded, recorded.with_suffix(".eeg").stat().st_size // 4)
    with pytest.raises(
        SourceError, match=r"cut short: x\.vmrk has a marker at sample 2433, 1920 sam"
    ):
        open_raw(recorded)


def test_a_file_shorter_than_its_number_of_points_is_refused(recorded):
    text = recorded.read_text(encoding="utf-8")
    recorded.write_text(text.replace("[Common Infos]", "[Common Infos]\nDataPoints=2600"))
    with pytest.raises(
        SourceError, match="cut short: the header promises sample 2600, 2560 samples"
    ):
        open_raw(recorded)


def test_a_header_without_markers_is_whole(tmp_path, make_signal):
    path = saved(tmp_path, make_signal)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("MarkerFile")))
    verify_brainvision(path)
    assert companions(path) == [tmp_path / "x.eeg"]


def test_an_empty_entry_does_not_take_the_next_line_for_a_file(tmp_path, make_signal):
    path = saved(tmp_path, make_signal)
    path.write_text(path.read_text().replace("MarkerFile=x.vmrk", "MarkerFile="))
    assert companions(path) == [tmp_path / "x.eeg"]


@pytest.mark.parametrize("name", ["Müller.eeg", "./x 1.eeg"])
def test_names_of_files_are_read_as_they_are_written(tmp_path, make_signal, name):
    path = saved(tmp_path, make_signal)
    (tmp_path / "x.eeg").rename(tmp_path / name)
    path.write_text(path.read_text().replace("DataFile=x.eeg", f"DataFile={name}"))
    assert companions(path)[0].is_file()
    open_raw(path)


@pytest.mark.parametrize("name", [".", "..", "C:\\rec\\x.eeg", "/etc/passwd", "a/x.eeg", "x" * 300])
def test_what_is_no_file_beside_the_header_is_refused(tmp_path, make_signal, name):
    path = saved(tmp_path, make_signal)
    path.write_text(path.read_text().replace("DataFile=x.eeg", f"DataFile={name}"))
    told = r"x\.vhdr: DataFile in the header is '.*', which is no file beside it\n.*its name alone"
    for reading in (verify_brainvision, companions, open_raw):
        with pytest.raises(SourceError, match=told):
            reading(path)

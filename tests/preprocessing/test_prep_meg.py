import mne
import numpy as np
import pytest

from neurofm.config import parse_config
from neurofm.errors import SensorError, SignalError, SourceError
from neurofm.preprocessing.from_mne import RawReader, recording_from_raw
from neurofm.preprocessing.harmonise import notes_of
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.meg import compensated, ctf_grade
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.run import CONFIG, run
from neurofm.preprocessing.sss import SssConfig
from neurofm.sensors import Knowledge, SensorKind
from neurofm.signals import Entities
from neurofm.store.reader import open_store

ME = Entities(dataset="d", subject="1")
CTF = "meg/ctf/testdata_ctf_short_discontinuous.ds"
EMPTY_ROOM = {"frame": "meg", "origin": (0.0, 0.013, -0.006), "find_bads": False}


@pytest.fixture
def ctf(test_data):
    return mne.io.read_raw(test_data / CTF, verbose="error")


@pytest.fixture
def vectorview(test_data):
    path = test_data / "meg" / "neuromag" / "141027_cropped_90Hz_raw.fif"
    return mne.io.read_raw(path, verbose="error")


def test_ctf_recordings_are_brought_to_one_grade_and_it_is_recorded(ctf):
    assert ctf_grade(ctf.info) == 0
    recording = recording_from_raw(ctf, ME)
    assert recording.history[0]["ctf_grade"] == [0, 3]
    expected = ctf.copy().load_data().apply_gradient_compensation(3, verbose="error")
    axial = recording.sensors.of_kind(SensorKind.GRAD_AXIAL)
    names = [recording.sensors.ch_names[i] for i in axial]
    np.testing.assert_allclose(
        recording.signal[axial], expected.get_data(picks=names), rtol=1e-4, atol=1e-18
    )
    assert ctf.compensation_grade == 0  # not changed


def test_compensation_is_applied_a_stretch_at_a_time(ctf):
    reader = RawReader(ctf, ME)
    assert not reader._raw.preload
    whole = reader.read(0, reader.n_times)
    np.testing.assert_allclose(reader.read(1000, 1300), whole[:, 1000:1300], rtol=1e-9)


def test_compensation_there_and_back_gives_the_recorded_samples(ctf):
    third, _ = compensated(ctf.copy().load_data(), 3, "x")
    back, step = compensated(third, 0, "x")
    assert step == {"ctf_grade": [3, 0]}
    picks = mne.pick_types(ctf.info, meg=True)
    recorded = ctf.get_data(picks=picks)
    error = back.get_data(picks=picks) - recorded
    assert np.abs(error).max() < 1e-5 * recorded.std()


def test_a_grade_as_recorded_stays(ctf):
    recording = recording_from_raw(ctf, ME, ctf_grade="as_recorded")
    assert recording.history[0]["ctf_grade"] == [0, 0]
    axial = recording.sensors.of_kind(SensorKind.GRAD_AXIAL)
    names = [recording.sensors.ch_names[i] for i in axial]
    np.testing.assert_array_equal(
        recording.signal[axial], ctf.get_data(picks=names).astype(np.float32)
    )


def test_references_that_are_gone_cannot_compensate(ctf):
    alone = ctf.copy().pick("mag", verbose="error")
    with pytest.raises(SensorError, match=r"grade 0 cannot be made 3.*no grade\)\n.*as_recorded"):
        recording_from_raw(alone, ME)
    assert len(recording_from_raw(alone, ME, ctf_grade=0).sensors) == 273


def test_other_devices_have_no_grade(vectorview):
    assert compensated(vectorview, 3, "x") == (vectorview, {})


def test_mixed_grades_are_refused(ctf):
    info = ctf.info.copy()
    axial = mne.pick_types(info, meg=True, ref_meg=False)
    info["chs"][axial[0]]["coil_type"] = 5001 + (3 << 16)
    with pytest.raises(SensorError, match=r"different compensation grades: \[0, 3\]"):
        ctf_grade(info)


def test_tesla_is_never_taken_for_tesla_per_metre(vectorview):
    raw = vectorview.copy()
    raw.info["chs"][0]["unit"] = 112
    with pytest.raises(
        SensorError, match="channel 'MEG0113' is in T, but grad_planar sensors are in T/m"
    ):
        RawReader(raw, ME)


def test_signal_space_separation_is_recorded_and_lowers_the_rank(vectorview):
    raw, notes = SssConfig(**EMPTY_ROOM).apply(vectorview, "x.fif")
    recording = recording_from_raw(raw, ME)
    assert notes == []
    rank = recording.history[0]["sss"]["components"]
    assert 60 <= rank <= 80
    signal = recording.signal.astype(float)
    values = np.linalg.svd(signal / np.linalg.norm(signal, axis=1)[:, None], compute_uv=False)
    assert values[rank - 1] > 1e-6 > values[rank]
    assert not vectorview.info["proc_history"]


def test_temporal_separation_says_over_how_long(vectorview):
    raw, _ = SssConfig(st_duration_s=5.0, **EMPTY_ROOM).apply(vectorview, "x.fif")
    assert recording_from_raw(raw, ME).history[0]["sss"]["st_duration_s"] == 5.0


def test_bad_channels_are_rebuilt_by_separation_and_named(vectorview):
    raw = vectorview.copy()
    raw.info["bads"] = ["MEG0113"]
    done, notes = SssConfig(**EMPTY_ROOM).apply(raw, "x.fif")
    assert notes == ["SSS without, and rebuilding, MEG0113"]
    assert "MEG0113" in recording_from_raw(done, ME).sensors.ch_names


def test_noisy_and_flat_coils_are_found_before_they_are_spread(vectorview):
    raw = vectorview.copy().load_data()
    raw._data[raw.ch_names.index("MEG0213")] = 0
    raw._data[raw.ch_names.index("MEG1111")] *= 1e3
    _, notes = SssConfig(**{**EMPTY_ROOM, "find_bads": True}).apply(raw, "x.fif")
    assert notes == ["SSS without, and rebuilding, MEG0213, MEG1111"]


def test_separation_without_a_head_position_says_what_to_do(vectorview):
    with pytest.raises(
        SignalError, match=r"x\.fif: signal space separation failed.*\n.*frame: meg"
    ):
        SssConfig(find_bads=False).apply(vectorview, "x.fif")


def test_a_calibration_that_is_not_there_is_refused(vectorview):
    with pytest.raises(SourceError, match=r"x\.fif: nowhere\.dat, named by its `sss`, is not th"):
        SssConfig(calibration="nowhere.dat").apply(vectorview, "x.fif")


def shielded(vectorview, path):
    raw = vectorview.copy()
    with raw.info._unlock():
        raw.info["maxshield"] = True
    raw.save(path, verbose="error")
    return path


def test_shielded_recordings_are_refused_unless_they_are_separated(vectorview, tmp_path):
    path = shielded(vectorview, tmp_path / "x_raw.fif")
    with pytest.raises(SourceError, match=r"x_raw\.fif: .*\(MaxShield\).*\n.*`sss: \{\}`"):
        open_raw(path)
    raw, facts = open_raw(path, sss=SssConfig(**EMPTY_ROOM))
    assert facts.notes == []
    assert recording_from_raw(raw, ME).history[0]["sss"]["components"] > 50


def test_a_source_asks_for_separation_and_it_reaches_the_store(vectorview, tmp_path):
    (tmp_path / "raw").mkdir()
    shielded(vectorview, tmp_path / "raw" / "x_raw.fif")
    values = {
        "dataset": "d",
        "root": str(tmp_path / "raw"),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 64, "band_hz": [1, 30], "window_s": 1},
        "sources": [{"subject": "1", "sss": {**EMPTY_ROOM, "origin": [0, 0.013, -0.006]}}],
        "workers": 0,
    }
    run(parse_config(CONFIG, values, where="test"))
    recording = open_store(tmp_path / "store").recording("d_sub-1")
    assert recording.sensors.kinds == ("mag", "grad_planar")
    assert "components" in recording.history[0]["sss"]


def test_a_recording_that_was_separated_before_says_so(test_data):
    raw = mne.io.read_raw(
        test_data / "meg" / "neuromag" / "sample_audvis_trunc_raw_sss.fif", verbose="error"
    )
    assert recording_from_raw(raw, ME).history[0]["sss"]["components"] > 50


def test_what_files_beside_a_recording_say_of_sensors_is_kept(make_raw):
    raw = make_raw(names=("LA1", "LA2", "Cz"), types=["seeg", "seeg", "eeg"])
    for ch in raw.info["chs"][:2]:
        ch["loc"][:3] = [0.01, 0.02, 0.03]
    facts = Facts(regions={"LA1": "Left-Amygdala"}, frame="mni", reference="Pz")
    recording = recording_from_raw(raw, ME, facts=facts)
    assert recording.sensors.region == ("Left-Amygdala", None, None)
    assert recording.sensors.reference == ("Pz", "Pz", "Pz")
    assert list(recording.sensors.known) == [Knowledge.MNI, Knowledge.MNI, Knowledge.TEMPLATE]
    assert notes_of(recording) == ["positions are in MNI space"]


def test_positions_in_another_frame_are_not_called_the_heads(make_raw):
    raw = make_raw(names=("LA1", "LA2"), types="seeg")
    for ch, frame in zip(raw.info["chs"], (2003, 5), strict=True):
        ch["loc"][:3] = [0.01, 0.02, 0.03]
        ch["coord_frame"] = frame
    recording = recording_from_raw(raw, ME)
    assert list(recording.sensors.known) == [Knowledge.MNI, Knowledge.SCAN]
    assert "no transform to the head is known" in notes_of(recording)[1]

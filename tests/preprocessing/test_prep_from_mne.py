import mne
import numpy as np
import pytest

from neurofm.electrodes import template_positions
from neurofm.errors import SensorError, SignalError, SourceError
from neurofm.preprocessing.channels import looks_not_brain
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.harmonise import dropped_channels, notes_of
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import open_raw
from neurofm.sensors import Knowledge
from neurofm.signals import Entities

ME = Entities(dataset="d", subject="1")


@pytest.mark.parametrize(
    "name",
    ["ECG ECG", "EKG1", "EEG EKG-Ref", "EOG", "VEOG", "HEOGL", "EOG1", "EMG 2", "DC01", "STI 014",
     "Status", "RESP", "Photic", "POL EKG2", "TRIG", "EOG-L", "LOC", "EEG ROC-REF", "LOC-ROC",
     "E1-M2", "E2:M1", "VNS", "IBI", "-", "--1", ".", ""],
)  # fmt: skip
def test_whole_words_tell_what_is_no_brain_sensor(name):
    assert looks_not_brain(name)


@pytest.mark.parametrize(
    "name",
    ["Fp1", "EEG Cz-Ref", "A1", "M2", "DC'1", "LEMG'3", "STIR1", "PECG", "L'1", "Resperate",
     "LOC1", "ROC-1", "LOC'2", "E1", "E12", "7", "L-1"],
)  # fmt: skip
def test_parts_of_words_tell_nothing(name):
    assert not looks_not_brain(name)


def test_samples_channels_and_names_keep_their_order(make_raw):
    raw = make_raw(names=("EEG O2-Ref", "T3", "ECG", "Fp1."))
    recording = recording_from_raw(raw, ME)
    assert recording.sensors.ch_names == ("O2", "T7", "Fp1")
    np.testing.assert_array_equal(recording.signal, raw.get_data()[[0, 1, 3]].astype(np.float32))


def test_the_raw_is_not_changed(make_raw):
    raw = make_raw()
    names, types = list(raw.ch_names), raw.get_channel_types()
    recording_from_raw(raw, ME, channels={"C*": "seeg"}, allow_unlocated=True, unit_scale=1e3)
    assert (raw.ch_names, raw.get_channel_types()) == (names, types)


def test_the_config_repairs_types_before_the_built_in_rule(make_raw):
    raw = make_raw(names=("Fp1", "EOG", "LFP1", "Cz", "A2-A1"))
    channels = {"EOG": "eeg", "LFP*": "dbs", "A2-A1": "drop"}
    recording = recording_from_raw(raw, ME, channels=channels)
    assert recording.sensors.ch_names == ("Fp1", "EOG", "LFP1", "Cz")
    assert recording.sensors.kinds == ("eeg", "dbs")
    assert dropped_channels(recording) == {"A2-A1": "dropped by the config"}


def test_a_channel_of_the_config_that_is_not_there_is_refused(make_raw):
    with pytest.raises(SensorError, match="names 'A2-A1', which is not in the file; found Fp1"):
        recording_from_raw(make_raw(), ME, channels={"A2-A1": "drop"})


def test_bad_channels_are_dropped_with_the_reason(make_raw):
    raw = make_raw()
    raw.info["bads"] = ["Cz"]
    recording = recording_from_raw(raw, ME)
    assert "Cz" not in recording.sensors.ch_names
    assert dropped_channels(recording) == {"Cz": "marked bad in the file"}


def test_channels_without_a_signal_are_dropped_by_name_and_reason(test_data):
    raw, facts = open_raw(test_data / "broken" / "nan_inf_flat_clipped_raw.fif")
    recording = recording_from_raw(raw, ME, facts=facts)
    assert dropped_channels(recording) == {
        "Fc1.": "all samples are zero",
        "Fc4.": "800 of 3201 samples are NaN or infinite",
        "C5..": "1 of 3201 samples are NaN or infinite",
        "C1..": "constant at 1.28e-06",
    }
    assert notes_of(recording) == ["C2 is at its limits for 50% of the time"]


def test_a_channel_that_is_zero_but_for_a_blip_is_dropped(make_raw, make_signal):
    signal = make_signal()
    signal[2] = 0
    signal[2, 100:110] = 1e-5
    recording = recording_from_raw(make_raw(signal=signal), ME)
    assert list(dropped_channels(recording)) == ["C3"]
    assert "flat for 99" in dropped_channels(recording)["C3"]


def test_no_usable_channel_is_refused_naming_file_and_channels(tmp_path, make_raw):
    raw = make_raw(signal=np.zeros((8, 2560)))
    raw.save(tmp_path / "dead_raw.fif", verbose="error")
    raw, _ = open_raw(tmp_path / "dead_raw.fif")
    with pytest.raises(SignalError, match=r"dead_raw\.fif: no usable channel: Fp1: all samples"):
        recording_from_raw(raw, ME)


def test_no_brain_sensor_at_all_is_refused(make_raw):
    with pytest.raises(SignalError, match="none of 2 is a brain sensor"):
        recording_from_raw(make_raw(names=("a", "b"), types="misc"), ME)


def test_names_that_are_one_when_normalised_are_refused_by_name(make_raw):
    raw = make_raw(names=("Fp1", "EEG FP1-Ref", "Cz"))
    with pytest.raises(SensorError, match="channel names occur more than once: Fp1"):
        recording_from_raw(raw, ME)


def test_labels_that_a_file_has_twice_are_refused_until_one_is_dropped(test_data):
    raw, facts = open_raw(test_data / "formats" / "edf_edge" / "duplicate_channel_labels.edf")
    says = r"labels\.edf: channel names occur more than once: F1\n.*'EEG F1-Ref-1': drop"
    with pytest.raises(SensorError, match=says):
        recording_from_raw(raw, ME, facts=facts)
    recording = recording_from_raw(raw, ME, facts=facts, channels={"EEG F1-Ref-1": "drop"})
    assert recording.sensors.ch_names == ("F1", "F2")


def test_positions_too_close_together_for_any_head_are_not_used(make_raw):
    names = ("Fp1", "Cz", "O1", "P3")
    where = {name: np.array(template_positions()[name]) for name in names}
    montage = mne.channels.make_dig_montage(where, coord_frame="head")
    raw = make_raw(names=names).set_montage(montage)
    right = recording_from_raw(raw, ME)
    assert set(right.sensors.known) == {Knowledge.MEASURED} and notes_of(right) == []
    for factor in (0.1, 0.001):  # centimetres, or metres, that were said to be millimetres
        small = raw.copy()
        for ch in small.info["chs"]:
            ch["loc"][:3] *= factor
        recording = recording_from_raw(small, ME)
        assert set(recording.sensors.known) == {Knowledge.TEMPLATE}
        (note,) = notes_of(recording)
        assert note.startswith("positions in the file that are on no head, not used: Fp1, Cz")
        np.testing.assert_allclose(recording.sensors.position, right.sensors.position, atol=1e-3)


@pytest.mark.parametrize("frame", ["mri", "mni_tal", "head"])
def test_a_frame_that_nobody_tells_is_not_the_heads(make_raw, frame):
    where = {f"LA{i}": np.array([0.02 + 0.004 * i, 0.01, 0.03]) for i in range(1, 5)}
    marks = {"nasion": [0, 0.1, 0], "lpa": [-0.08, 0, 0], "rpa": [0.08, 0, 0]}
    montage = mne.channels.make_dig_montage(
        where, coord_frame=frame, **(marks if frame == "head" else {})
    )
    raw = make_raw(names=where, types="seeg").set_montage(montage, verbose="error")
    known = recording_from_raw(raw, ME).sensors.known
    assert set(known) == {Knowledge.MEASURED if frame == "head" else Knowledge.SCAN}
    told = {"head": Knowledge.MEASURED, "mni": Knowledge.MNI, "scan": Knowledge.SCAN}
    for name, expected in told.items():
        recording = recording_from_raw(raw, ME, facts=Facts(frame=name))
        assert set(recording.sensors.known) == {expected}


def test_a_recording_without_any_position_is_refused_unless_allowed(make_raw):
    raw = make_raw(names=("L1", "L2"), types="seeg")
    with pytest.raises(SensorError, match=r"no channel has a position.*\n.*allow_unlocated: true"):
        recording_from_raw(raw, ME)
    recording = recording_from_raw(raw, ME, allow_unlocated=True)
    assert notes_of(recording) == ["2 channels without a position: L1, L2"]


def test_a_channel_without_a_physical_range_is_dropped(test_data):
    raw, facts = open_raw(test_data / "broken" / "physmin_eq_physmax.edf")
    recording = recording_from_raw(raw, ME, facts=facts)
    assert dropped_channels(recording) == {"Fcz.": "physical minimum and maximum are both 0"}
    assert len(recording.sensors) == 63


def test_odd_channel_names_are_kept_and_what_has_no_position_is_told(test_data):
    raw, facts = open_raw(test_data / "broken" / "odd_channel_names_raw.fif")
    recording = recording_from_raw(raw, ME, facts=facts)
    assert recording.sensors.ch_names[:4] == ("000/A1", "FC3", "FC1", "FCz")
    assert notes_of(recording) == ["1 channels without a position: 000/A1"]


def test_unit_scale_brings_samples_to_si(make_raw):
    raw = make_raw()
    scaled = recording_from_raw(raw, ME, unit_scale=1e-3).signal
    np.testing.assert_allclose(scaled, raw.get_data() * 1e-3, rtol=1e-6)


def test_meg_positions_are_in_the_head_frame_or_told_not_to_be(test_data):
    raw, _ = open_raw(test_data / "meg" / "neuromag" / "sample_audvis_trunc_raw_sss.fif")
    assert set(recording_from_raw(raw, ME).sensors.known) == {Knowledge.MEASURED}
    raw, _ = open_raw(test_data / "meg" / "neuromag" / "141027_cropped_90Hz_raw.fif")
    recording = recording_from_raw(raw, ME)
    assert set(recording.sensors.known) == {Knowledge.DEVICE}
    assert "no device-to-head transform" in notes_of(recording)[0]


def test_samples_that_cannot_be_read_are_refused(tmp_path, make_raw):
    path = tmp_path / "gone_raw.fif"
    make_raw().save(path, verbose="error")
    raw = mne.io.read_raw(path, verbose="error")
    path.unlink()
    with pytest.raises(SourceError, match=r"gone_raw\.fif: MNE cannot read its samples: FileNot"):
        recording_from_raw(raw, ME)


def test_a_coil_nobody_knows_is_refused_naming_file_and_channel(make_raw):
    raw = make_raw(names=("M1", "Cz"), types=["mag", "eeg"])
    raw.info["chs"][0]["coil_type"] = 31337
    with pytest.raises(SensorError, match=r"d_sub-1: MEG channel 'M1' has coil type 31337"):
        recording_from_raw(raw, ME)
    recording = recording_from_raw(raw, ME, channels={"M1": "drop"})
    assert recording.sensors.ch_names == ("Cz",)


def test_positions_in_millimetres_are_not_taken_for_metres(make_raw):
    """A real set of SSVEP gives them so: Oz 116 m from the middle of the head."""
    raw = make_raw()
    for ch in raw.info["chs"]:
        ch["loc"][:3] = (0.0, 116.0, 0.0)
    raw.info["chs"][2]["loc"][:3] = (0.0, 0.08, 0.0)
    recording = recording_from_raw(raw, ME)
    sensors = recording.sensors
    assert np.linalg.norm(sensors.position, axis=1).max() < 0.2
    known = [Knowledge(k) for k in sensors.known]
    assert known[2] is Knowledge.MEASURED
    assert {*known[:2], *known[3:]} == {Knowledge.TEMPLATE}
    (note,) = [n for n in notes_of(recording) if "on no head" in n]
    assert "Fp1, Fz, Cz" in note and "116 m" in note and "the template's are used" in note


def test_a_coil_far_from_any_head_has_no_position(make_raw, test_data):
    raw = mne.io.read_raw_fif(
        test_data / "meg" / "neuromag" / "sample_audvis_trunc_raw_sss.fif", verbose="error"
    )
    raw.pick(raw.ch_names[:6])
    raw.info["chs"][1]["loc"][:3] = 1e30
    recording = recording_from_raw(raw, ME)
    assert recording.sensors.located.tolist() == [True, False, True, True, True, True]
    assert np.isfinite(recording.sensors.position).all()
    assert any("on no head" in note for note in notes_of(recording))

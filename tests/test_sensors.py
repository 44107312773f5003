import mne
import numpy as np
import pytest
from mne._fiff.constants import FIFF

from neurofm.electrodes import normalise_name, template_positions
from neurofm.errors import SensorError
from neurofm.sensors import (
    Knowledge,
    SensorKind,
    Sensors,
    channel_name,
    kind_of,
    sensors_from_info,
    text_code,
)


@pytest.mark.parametrize(
    ("wild", "tame"),
    [
        ("EEG Fp1-Ref", "Fp1"), ("FP1", "Fp1"), ("Fp1.", "Fp1"), ("Fc5.", "FC5"), ("T3", "T7"),
        ("t4", "T8"), ("EEG T5-LE", "P7"), ("T6-A1", "P8"), ("EEG Cz ", "Cz"), ("POL FZ", "Fz"),
        ("AFP3h", "AFp3h"),
        # neither a derivation nor a foreign name may be taken for a position
        ("FZ-CZ", "Fz-Cz"), ("F3-C3", "F3-C3"), ("L'1", "L'1"), ("EEG 001", "EEG 001"),
        ("EEG FP1-F7", "Fp1-F7"), ("T3 - C3", "T7-C3"), ("EEG A2-A1", "A2-A1"),
    ],
)  # fmt: skip
def test_names_of_the_wild_are_normalised(wild, tame):
    assert normalise_name(wild) == tame


@pytest.mark.parametrize("name", ["Fp1", "Cz", "PO7", "AFp3h", "O2"])
def test_normalising_a_normal_name_changes_nothing(name):
    assert normalise_name(name) == name


def test_template_positions_are_metres_in_the_head_frame():
    positions = template_positions()
    assert np.all(np.linalg.norm(list(positions.values()), axis=1) < 0.16)
    assert positions["T7"][0] < -0.05 < 0.05 < positions["T8"][0]  # x: left to right ear
    assert positions["Oz"][1] < -0.05 < 0.05 < positions["Fpz"][1]  # y: back to nose
    assert positions["Cz"][2] > 0.08  # z: up


def test_eeg_without_digitisation_gets_the_template_and_says_so():
    info = mne.create_info(["EEG T3-Ref", "XX1"], 100.0, "eeg")
    sensors = sensors_from_info(info)
    assert sensors.ch_names == ("T7", "XX1")
    assert list(sensors.known) == [Knowledge.TEMPLATE, Knowledge.ABSENT]
    np.testing.assert_allclose(sensors.position[0], template_positions()["T7"], rtol=1e-6)
    assert list(sensors.located) == [True, False]


def test_measured_positions_win_over_the_template():
    info = mne.create_info(["Cz"], 100.0, "eeg")
    info.set_montage(mne.channels.make_dig_montage({"Cz": [0.01, 0.02, 0.11]}, coord_frame="head"))
    sensors = sensors_from_info(info)
    assert sensors.known[0] == Knowledge.MEASURED
    np.testing.assert_allclose(sensors.position[0], [0.01, 0.02, 0.11], atol=1e-6)


def helmet(coil, *, moved):
    info = mne.create_info(["MEG1"], 100.0, "mag")
    with info._unlock():
        info["chs"][0]["coil_type"] = coil
        info["chs"][0]["loc"][:] = [0.1, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0]
        if moved:
            turn = mne.transforms.rotation(0, 0, np.pi / 2) @ mne.transforms.translation(0, 0.02, 0)
            info["dev_head_t"] = mne.transforms.Transform("meg", "head", turn)
    return info


def test_device_to_head_moves_coils_and_turns_their_normals():
    sensors = sensors_from_info(helmet(FIFF.FIFFV_COIL_VV_MAG_T3, moved=True))
    np.testing.assert_allclose(sensors.position[0], [-0.02, 0.1, 0], atol=1e-6)
    np.testing.assert_allclose(sensors.orientation[0], [0, 1, 0], atol=1e-6)
    assert sensors.known[0] == Knowledge.MEASURED
    assert sensors.oriented[0]


def test_a_helmet_without_device_to_head_says_so():
    sensors = sensors_from_info(helmet(FIFF.FIFFV_COIL_VV_MAG_T3, moved=False))
    assert sensors.known[0] == Knowledge.DEVICE


@pytest.mark.parametrize(
    ("coil", "kind"),
    [
        (FIFF.FIFFV_COIL_VV_PLANAR_T1, SensorKind.GRAD_PLANAR),
        (FIFF.FIFFV_COIL_VV_MAG_T1, SensorKind.MAG),
        (FIFF.FIFFV_COIL_CTF_GRAD | (3 << 16), SensorKind.GRAD_AXIAL),  # compensated data
        (FIFF.FIFFV_COIL_MAGNES_GRAD, SensorKind.GRAD_AXIAL),  # has MAG in its name
        (FIFF.FIFFV_COIL_MAGNES_MAG, SensorKind.MAG),
        (FIFF.FIFFV_COIL_QUSPIN_ZFOPM_MAG, SensorKind.OPM),
    ],
)
def test_kinds_come_from_coil_codes(coil, kind):
    assert kind_of(helmet(coil, moved=True)["chs"][0]) is kind


def test_an_unknown_coil_is_refused_by_name():
    with pytest.raises(SensorError, match="'MEG1' has coil type 12345, which is not known"):
        kind_of(helmet(12345, moved=True)["chs"][0])


def test_channels_that_are_no_brain_sensors_are_left_out():
    info = mne.create_info(["Cz", "STI", "EOG"], 100.0, ["eeg", "stim", "eog"])
    assert sensors_from_info(info).ch_names == ("Cz",)
    with pytest.raises(SensorError, match="channel 'STI' is not a brain sensor"):
        sensors_from_info(info, [1])


def test_units_are_those_of_the_kind():
    assert SensorKind.GRAD_PLANAR.unit == "T/m"
    assert SensorKind.GRAD_AXIAL.unit == SensorKind.OPM.unit == "T"
    assert SensorKind.SEEG.unit == "V"


def test_kind_codes_never_change():
    assert [k.label for k in SensorKind] == [
        "eeg", "mag", "grad_planar", "grad_axial", "opm", "seeg", "ecog", "dbs", "ref_meg",
    ]  # fmt: skip


def test_sensors_survive_a_dictionary_and_a_selection():
    sensors = sensors_from_info(mne.create_info(["Fz", "Cz", "Pz"], 100.0, "eeg"))
    assert Sensors.from_dict(sensors.to_dict()) == sensors
    assert sensors.select([2, 0]).ch_names == ("Pz", "Fz")
    np.testing.assert_array_equal(sensors.select([2, 0]).position, sensors.position[[2, 0]])
    assert sensors.select([2, 0]) != sensors


def test_twins_after_normalisation_are_refused_by_name():
    with pytest.raises(SensorError, match="channel names occur more than once: T7"):
        sensors_from_info(mne.create_info(["T3", "T7"], 100.0, "eeg"))


def test_contradictory_shapes_and_numbers_are_refused():
    sensors = sensors_from_info(mne.create_info(["Fz", "Cz"], 100.0, "eeg"))
    with pytest.raises(SensorError, match=r"position has shape \(3, 3\), expected \(2, 3\)"):
        sensors.evolve(position=np.zeros((3, 3), np.float32))
    with pytest.raises(SensorError, match="1 regions for 2 channels"):
        sensors.evolve(region=(None,))
    bad = sensors.position.copy()
    bad[1, 2] = np.nan
    with pytest.raises(SensorError, match="positions that are not finite numbers: Cz"):
        sensors.evolve(position=bad)


REAL = {
    "meg/neuromag/sample_audvis_trunc_raw_sss.fif": {"eeg": 60, "mag": 102, "grad_planar": 204},
    "meg/opm/opm_cerca_noise_raw.fif": {"opm": 128},
    "ieeg/ecog/sample_ecog_ieeg.fif": {"seeg": 74, "ecog": 320},
    "meg/ctf/testdata_ctf_short_discontinuous.ds": {"eeg": 8, "grad_axial": 273, "ref_meg": 28},
}


@pytest.mark.parametrize("name", REAL)
def test_real_devices_have_the_kinds_their_vendors_say(test_data, name):
    raw = mne.io.read_raw(test_data / name, verbose="error")
    sensors = sensors_from_info(raw.info)
    counts = {
        SensorKind(k).label: int(n)
        for k, n in zip(*np.unique(sensors.kind, return_counts=True), strict=True)
    }
    assert counts == REAL[name]
    assert np.allclose(np.linalg.norm(sensors.orientation[sensors.oriented], axis=1), 1, atol=1e-3)
    assert sensors.located.all()
    inside = np.linalg.norm(sensors.position, axis=1) < 0.4
    assert inside.all()


def test_names_and_regions_have_codes_that_tell_kinds_apart():
    names = ("C3", "Cz", "LA1")
    sensors = Sensors(
        ch_names=names,
        kind=np.array([SensorKind.EEG, SensorKind.SEEG, SensorKind.SEEG], np.int8),
        position=np.zeros((3, 3), np.float32),
        orientation=np.zeros((3, 3), np.float32),
        known=np.full(3, Knowledge.ABSENT, np.int8),
        oriented=np.zeros(3, bool),
        region=("V1", None, "V1"),
    )
    assert [channel_name(n, SensorKind(k)) for n, k in zip(names, sensors.kind, strict=True)] == [
        "C3",
        "seeg:Cz",
        "seeg:LA1",
    ]
    assert sensors.name_code.dtype == np.int64
    assert sensors.name_code[0] == text_code("C3") == 8804020754587210947
    assert len({*sensors.name_code, text_code("Cz"), text_code("LA1")}) == 5
    assert sensors.region_code.tolist() == [text_code("V1"), 0, text_code("V1")]

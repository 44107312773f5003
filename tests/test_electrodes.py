import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.electrodes import (
    contact_of,
    contact_pair,
    normalise_name,
    read_leads,
    template_positions,
)
from neurofm.errors import SensorError
from neurofm.sensors import Knowledge, Sensors, sensors_from_info

TEN_TWENTY = ("Fp1", "F7", "T7", "P7", "O1", "F3", "C3", "P3", "Cz", "Pz", "AFp3h")
BANANA = ("EEG FP1-F7", "EEG F7-T3", "EEG T3-T5", "EEG T5-O1", "EEG FP1-F3", "EEG F3-C3")


def eeg(*names):
    return sensors_from_info(mne.create_info(list(names), 100.0, "eeg"))


def test_a_bipolar_montage_keeps_both_electrodes_and_lies_between_them():
    sensors = eeg(*BANANA)
    assert sensors.ch_names[:4] == ("Fp1-F7", "F7-T7", "T7-P7", "P7-O1")
    assert sensors.reference[:4] == ("F7", "T7", "P7", "O1")
    assert sensors.bipolar.all() and set(sensors.known) == {Knowledge.TEMPLATE}
    middle = np.mean([template_positions()["Fp1"], template_positions()["F7"]], axis=0)
    np.testing.assert_allclose(sensors.position[0], middle, atol=1e-7)


def test_a_second_electrode_that_all_share_is_the_reference():
    sensors = eeg("EEG Fp1-CPz", "EEG C3-CPz", "EEG T3-CPz", "ECG")
    assert sensors.ch_names == ("Fp1", "C3", "T7", "ECG")
    assert sensors.reference == ("CPz", "CPz", "CPz", None)
    assert not sensors.bipolar.any()
    np.testing.assert_allclose(sensors.position[1], template_positions()["C3"], rtol=1e-6)


@pytest.mark.parametrize("name", ["F3-C3", "F3:C3", "F3/C3", "EEG F3 / C3", "F3 – C3"])
def test_a_derivation_is_written_in_many_ways(name):
    sensors = eeg(name)
    assert sensors.ch_names == ("F3-C3",) and sensors.reference == ("C3",)
    assert sensors.bipolar.all()


def test_two_derivations_of_a_sleep_recording_are_derivations():
    sensors = eeg("EEG Fpz-Cz", "EEG Pz-Oz")
    assert sensors.ch_names == ("Fpz-Cz", "Pz-Oz") and sensors.bipolar.all()
    assert eeg("C3-Cz", "C4-Cz").bipolar.all()


def test_what_is_picked_changes_no_name():
    info = mne.create_info(["Fp1-CPz", "C3-CPz", "C4-CPz"], 100.0, "eeg")
    assert sensors_from_info(info, [1]).ch_names == ("C3",)


@pytest.mark.parametrize(
    ("name", "reference"),
    [("EEG C3-A2", "A2"), ("F4-M1", "M1"), ("Fz-LE", "A1+A2"), ("Cz-AVG", "average"),
     ("Cz-Ref", None), ("Cz", None), ("C3:M2", "M2"), ("C4/A1", "A1"), ("EEG F3-LER", "A1+A2"),
     ("EEG O1-CLE", "A1+A2"), ("C3-(M1+M2)/2", "M1+M2"), ("C3-M1M2", "M1+M2"),
     ("Pz-linked mastoids", "M1+M2"), ("Pz-Linked Ears", "A1+A2")],
)  # fmt: skip
def test_suffixes_tell_the_reference_or_only_that_there_is_one(name, reference):
    sensors = eeg(name)
    assert sensors.reference == (reference,)
    assert not sensors.bipolar.any()
    assert sensors.known[0] == Knowledge.TEMPLATE


def test_ear_against_ear_is_a_derivation():
    sensors = eeg("EEG A2-A1")
    assert (sensors.ch_names, sensors.reference) == (("A2-A1",), ("A1",))


def test_inputs_of_an_amplifier_are_no_electrodes():
    # BioSemi's A1 lies on the scalp, and C3 of a 128 channel cap nowhere near C3
    names = [f"{letter}{i}" for letter in "ABCD" for i in range(1, 33)]
    sensors = eeg(*names, "Fz")
    assert sensors.ch_names == (*names, "Fz")
    assert list(np.flatnonzero(sensors.located)) == [128]


def test_ears_and_electrodes_beside_each_other_are_electrodes():
    sensors = eeg("A1", "A2", "C3", "C4", "F3", "F4", "B1", "D1", "E1")
    assert sensors.located.sum() == 6


def test_a_derivation_with_an_unknown_end_has_no_place():
    sensors = eeg("Fp1-XY7")
    assert sensors.ch_names == ("Fp1-XY7",)
    assert sensors.known[0] == Knowledge.ABSENT


def test_a_derivation_does_not_lie_where_its_first_electrode_was_digitised():
    raw = mne.io.RawArray(np.zeros((2, 100)), mne.create_info(["C3", "C4"], 100.0, "eeg"))
    places = {name: template_positions()[name] for name in ("C3", "C4")}
    raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
    pair = mne.set_bipolar_reference(raw, "C3", "C4", verbose="error")
    sensors = sensors_from_info(pair.info)
    assert sensors.ch_names == ("C3-C4",)
    assert abs(sensors.position[0, 0]) < 0.005  # midway, not over the left hemisphere


def test_an_average_reference_by_projection_is_known():
    signal = np.random.default_rng(0).standard_normal((3, 100))
    raw = mne.io.RawArray(signal, mne.create_info(["C3", "C4", "Cz"], 100, "eeg"))
    raw.set_eeg_reference("average", projection=True, verbose="error")
    assert set(sensors_from_info(raw.info).reference) == {None}
    raw.apply_proj(verbose="error")
    assert set(sensors_from_info(raw.info).reference) == {"average"}


def test_current_source_density_is_no_potential():
    info = mne.create_info(["Cz"], 100.0, "csd")
    with pytest.raises(SensorError, match=r"'Cz' holds current source density.*\n.*before"):
        sensors_from_info(info)


@pytest.mark.parametrize(
    ("name", "contact"),
    [
        ("L'1", ("L'", 1)), ("LA12", ("LA", 12)), ("POL LAH-3", ("LAH", 3)), ("G 64", ("G", 64)),
        ("EEG LA 4-Ref", ("LA", 4)), ("2LA3", ("2LA", 3)), ("A'10-REF", ("A'", 10)),
        ("LPG_10", ("LPG", 10)), ("12", None), ("left", None), ("A1-A2", None), ("LA1-LA2", None),
    ],
)  # fmt: skip
def test_contacts_have_a_shaft_and_a_number(name, contact):
    assert contact_of(name) == contact


def test_differences_of_contacts_are_read_as_such():
    assert contact_pair("POL L'3 - L'4") == ("L'3-L'4", "L'4")
    assert contact_pair("LA1") is None
    info = mne.create_info(["LA1-LA2", "LA3"], 100.0, "seeg")
    sensors = sensors_from_info(info)
    assert sensors.reference == ("LA2", None)
    assert list(sensors.bipolar) == [True, False]


@given(st.sampled_from(TEN_TWENTY), st.sampled_from(TEN_TWENTY), st.sampled_from(["", "EEG "]))
def test_normalising_twice_is_normalising_once(active, other, prefix):
    for name in (active, f"{active}-{other}", f"{active.upper()} - {other.lower()}"):
        once = normalise_name(prefix + name)
        assert normalise_name(once) == once
        assert active in once


@settings(max_examples=20)
@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_text_has_a_name_and_none_is_lost(names):
    leads = read_leads(names)
    assert len(leads) == len(names)
    for name, lead in zip(names, leads, strict=True):
        assert bool(lead.name.strip()) == bool(name.strip())
        contact_of(name)


def test_references_survive_a_dictionary_and_older_stores_have_none():
    sensors = eeg(*BANANA)
    table = sensors.to_dict()
    assert Sensors.from_dict(table) == sensors
    del table["reference"]
    assert Sensors.from_dict(table).reference == (None,) * len(BANANA)


def test_sensors_are_put_together_in_order():
    a, b = eeg("Fp1-F7", "Cz"), eeg("Pz")
    both = Sensors.concatenate([b, a])
    assert both.ch_names == ("Pz", "Fp1-F7", "Cz")
    assert both.select([1, 2]) == a
    with pytest.raises(SensorError, match="2 references for 3 channels"):
        both.evolve(reference=("x", "y"))

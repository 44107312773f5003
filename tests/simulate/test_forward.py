from dataclasses import replace

import mne
import numpy as np
import pytest

from neurofm.sensors import SensorKind, sensors_from_info
from neurofm.simulate.anatomy import landmark, make_anatomy, unit
from neurofm.simulate.config import SimulateConfig, rng_for
from neurofm.simulate.devices import DEVICES, make_info
from neurofm.simulate.forward import CONDUCTIVITY, gain, infinite_medium

SUBJECT = make_anatomy(SimulateConfig(), "eeg_a", 0)


def with_dipoles(positions, orientations):
    count = len(positions)
    return replace(
        SUBJECT,
        position=np.asarray(positions, float),
        orientation=np.asarray(orientations, float),
        moment=np.ones(count),
        patch=("background",) * count,
    )


def sensors_on(name, subject=SUBJECT):
    return make_info(DEVICES[name], subject, rng_for(0, "cap"))


def under(name, depth):
    return SUBJECT.centre + depth * SUBJECT.radius * landmark(name)


def test_a_radial_dipole_is_strongest_at_the_electrode_above_it():
    for name in ("C3", "C4", "Pz", "O1"):
        dipole = with_dipoles([under(name, 0.84)], [landmark(name)])
        field = gain(DEVICES["eeg_a"], sensors_on("eeg_a"), dipole)[:, 0]
        assert DEVICES["eeg_a"].ch_names[int(np.argmax(field))] == name
        assert 2e-7 < field.max() * 10e-9 < 5e-6  # 10 nAm give about a microvolt


def test_turning_a_dipole_round_turns_the_sign():
    there = under("C3", 0.8)
    both = with_dipoles([there, there], [landmark("C3"), -landmark("C3")])
    for name in ("eeg_a", "meg", "seeg"):
        field = gain(DEVICES[name], sensors_on(name), both)
        np.testing.assert_allclose(field[:, 0], -field[:, 1])


def test_the_amplifier_subtracts_its_reference():
    bare = replace(DEVICES["eeg_b"], reference=())
    info = sensors_on("eeg_b")
    absolute = gain(bare, info, SUBJECT)
    relative = gain(DEVICES["eeg_b"], info, SUBJECT)
    assert len(relative) == 19
    mastoids = absolute[19:].mean(axis=0)
    np.testing.assert_allclose(relative, absolute[:19] - mastoids)
    assert np.abs(mastoids).max() > 1  # volts per ampere metre: not a reference at infinity


def test_a_radial_dipole_makes_no_magnetic_field_and_a_tangential_one_does():
    there = under("C3", 0.8)
    radial, tangential = landmark("C3"), unit(np.cross(landmark("C3"), [0, 1, 0]))
    field = gain(DEVICES["meg"], sensors_on("meg"), with_dipoles([there] * 2, [radial, tangential]))
    assert np.abs(field[:, 0]).max() < 1e-6 * np.abs(field[:, 1]).max()
    assert 1e-14 < np.abs(field[:, 1]).max() * 10e-9 < 5e-13  # 10 nAm give about 0.1 pT


@pytest.mark.parametrize("name", ["meg", "eeg_a"])
def test_sources_nearer_to_the_sensors_are_stronger(name):
    along = unit(np.cross(landmark("Cz"), [0, 1, 0]))
    depths = [0.3, 0.5, 0.7, 0.85]
    dipoles = with_dipoles([under("Cz", depth) for depth in depths], [along] * 4)
    strongest = np.abs(gain(DEVICES[name], sensors_on(name), dipoles)).max(axis=0)
    assert (np.diff(strongest) > 0).all()


def test_the_head_position_in_the_helmet_decides_what_coils_measure():
    info = sensors_on("meg")
    moved = info.copy()
    shift = np.eye(4)
    shift[0, 3] = 0.01
    trans = info["dev_head_t"]["trans"] @ shift
    with moved._unlock():
        moved["dev_head_t"] = mne.transforms.Transform("meg", "head", trans)
    before, after = (gain(DEVICES["meg"], i, SUBJECT) for i in (info, moved))
    assert np.linalg.norm(before - after) > 0.05 * np.linalg.norm(before)


def test_the_potential_in_an_infinite_medium_falls_with_the_square_of_distance():
    origin, up = np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]])
    contacts = np.array([[0, 0, 0.02], [0, 0, 0.04], [0, 0, -0.02], [0.02, 0, 0]])
    potential = infinite_medium(contacts, origin, up)[:, 0]
    expected = 1 / (4 * np.pi * CONDUCTIVITY * 0.02**2)
    assert potential[0] == pytest.approx(expected, rel=0.1)
    assert potential[0] / potential[1] == pytest.approx(4, rel=0.1)
    assert potential[2] == pytest.approx(-potential[0])
    assert potential[3] == pytest.approx(0)


def test_a_contact_near_a_source_sees_more_of_it_than_one_far_away():
    info = sensors_on("seeg")
    deepest, next_up = (np.array(ch["loc"][:3]) for ch in info["chs"][:2])
    inward = unit(deepest - next_up)
    dipole = with_dipoles([deepest + 0.005 * inward], [inward])
    field = np.abs(gain(DEVICES["seeg"], info, dipole)[:, 0])
    distance = [np.linalg.norm(ch["loc"][:3] - dipole.position[0]) for ch in info["chs"]]
    assert np.argmax(field) == np.argmin(distance) == 0
    assert field[np.argmax(distance)] < 0.05 * field[0]


@pytest.mark.parametrize("name", list(DEVICES))
@pytest.mark.parametrize("number", [0, 1, 2])
def test_sensors_lie_where_the_device_has_them(name, number):
    subject = make_anatomy(SimulateConfig(seed=3), name, number)
    info = make_info(DEVICES[name], subject, rng_for(3, "cap", name, number))
    sensors = sensors_from_info(info)
    away = sensors.position - subject.centre
    distance = np.linalg.norm(away, axis=1) / subject.radius
    if name == "meg":
        assert sensors.kinds == ("mag",)
        assert (distance > 1.05).all()
        assert ((unit(away) * sensors.orientation).sum(axis=1) > 0.97).all()
    elif name == "seeg":
        assert set(sensors.kind) == {SensorKind.SEEG}
        assert (distance < 0.9).all()
    else:
        np.testing.assert_allclose(distance, 1, rtol=1e-5)
        assert all(sensors.located)
    if name != "seeg":  # around the head: each axis has sensors on both sides of its centre
        assert (away.min(axis=0) < 0).all()
        assert (away.max(axis=0) > 0).all()


def test_sources_lie_inside_the_inner_skull():
    for number in range(5):
        subject = make_anatomy(SimulateConfig(), "meg", number)
        depth = np.linalg.norm(subject.position - subject.centre, axis=1) / subject.radius
        assert depth.max() < 0.9
        np.testing.assert_allclose(np.linalg.norm(subject.orientation, axis=1), 1)

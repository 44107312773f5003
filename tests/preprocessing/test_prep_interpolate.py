"""Interpolation: MNE's numbers, as a matrix; nothing where nothing can be known."""

import mne
import numpy as np
import pytest

from neurofm.electrodes import template_positions
from neurofm.errors import SensorError
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.interpolate import Interpolate, head_origin
from neurofm.preprocessing.to_mne import info_of, raw_of
from neurofm.sensors import SensorKind, sensors_from_info
from neurofm.signals import Entities, Event

CAP = [
    "Fp1", "Fp2", "F3", "F4", "Fz", "C3", "C4", "Cz", "P3", "P4", "Pz", "O1", "O2", "T7", "T8",
    "Oz",
]  # fmt: skip


@pytest.fixture
def smooth(make_recording):
    """A potential that changes slowly over the scalp, shape (16, T)."""
    at = np.array([template_positions()[name] for name in CAP])
    waves = np.random.default_rng(0).standard_normal((3, 2560))
    return make_recording(1e-4 * at @ waves, names=CAP)


def test_a_smooth_potential_is_restored(smooth):
    broken = smooth.signal.copy()
    broken[CAP.index("Cz")] = 1.0
    made = Interpolate(names=("Cz",))(smooth.evolve(signal=broken))
    was, now = smooth.signal[CAP.index("Cz")], made.signal[CAP.index("Cz")]
    assert np.corrcoef(was, now)[0, 1] > 0.99
    others = [i for i, name in enumerate(CAP) if name != "Cz"]
    np.testing.assert_array_equal(made.signal[others], smooth.signal[others])
    assert made.history[-1] == {"step": "interpolate", "interpolated": ["Cz"]}


def test_a_bad_channel_may_hold_anything(smooth):
    broken = smooth.signal.copy()
    broken[3] = np.nan
    assert np.isfinite(Interpolate(names=(CAP[3],))(smooth.evolve(signal=broken)).signal).all()


def test_potentials_are_interpolated_as_mne_does(test_data):
    path = test_data / "meg/neuromag/sample_audvis_trunc_raw_sss.fif"
    raw = mne.io.read_raw(path, preload=True, verbose="error").pick("eeg", exclude=[])
    raw.info["bads"] = []
    bads = ["EEG 010", "EEG 033"]
    recording = recording_from_raw(raw, Entities(dataset="real", subject="1"))
    ours = Interpolate(names=tuple(bads))(recording)
    raw.info["bads"] = bads
    raw.interpolate_bads(origin=head_origin(recording.sensors), verbose="error")
    for name in bads:
        expected = raw.get_data([name])[0]
        got = ours.signal[ours.sensors.ch_names.index(name)]
        np.testing.assert_allclose(got, expected, atol=1e-5 * expected.std())


def test_fields_are_interpolated_as_mne_does(test_data):
    path = test_data / "meg/neuromag/sample_audvis_trunc_raw_sss.fif"
    raw = mne.io.read_raw(path, preload=True, verbose="error")
    left = raw.copy().pick("meg", exclude=[]).pick(
        [n for n in raw.ch_names if n.startswith(("MEG 01", "MEG 02", "MEG 15"))]
    )  # fmt: skip
    left.info["bads"] = []
    bads = ["MEG 0113", "MEG 0132", "MEG 0221"]  # gradiometers both ways, and a magnetometer
    recording = recording_from_raw(left, Entities(dataset="real", subject="1"))
    ours = Interpolate(names=tuple(bads))(recording)
    left.info["bads"] = bads
    left.interpolate_bads(origin=(0.0, 0.0, 0.04), verbose="error")
    for name in bads:
        expected = left.get_data([name])[0]
        got = ours.signal[ours.sensors.ch_names.index(name)]
        # coils of one make for all of a kind, positions in float32
        np.testing.assert_allclose(got, expected, atol=2e-3 * expected.std())


def test_what_cannot_be_interpolated_is_dropped_and_says_why(make_recording):
    names = [*CAP, "Q1", "A1-A2x"]
    recording = make_recording(np.random.default_rng(0).standard_normal((18, 512)), names=names)
    made = Interpolate(names=("Cz", "Q1"))(recording)
    assert "Cz" in made.sensors.ch_names
    assert made.history[-1]["dropped"] == {"Q1": "no position to interpolate it at"}
    assert "Q1" not in made.sensors.ch_names


def test_too_many_bad_channels_are_not_made_up(smooth):
    made = Interpolate(names=("Cz", "C3", "C4", "Pz", "P3"))(smooth)
    assert len(made.sensors) == 11
    assert made.history[-1]["dropped"]["Cz"] == "5 of 16 channels bad: too many to interpolate"


def test_too_few_good_channels_are_not_enough(make_recording):
    recording = make_recording()  # 8 channels
    made = Interpolate(names=("Cz",))(recording)
    why = made.history[-1]["dropped"]["Cz"]
    assert why == "7 good channels with a position: too few to interpolate from"


def test_contacts_in_the_head_are_never_interpolated(make_recording):
    names = tuple(f"A{i}" for i in range(1, 9))
    made = Interpolate(names=("A3",))(make_recording(names=names, types="seeg"))
    assert made.history[-1]["dropped"] == {"A3": "inside the head nothing is interpolated"}


def test_a_difference_between_electrodes_is_not_interpolated(make_recording):
    names = (*CAP[:12], "Cz-Pz")
    signal = np.random.default_rng(0).standard_normal((13, 512))
    made = Interpolate(names=("Cz-Pz",))(make_recording(signal, names=names))
    assert made.history[-1]["dropped"] == {
        "Cz-Pz": "between two electrodes nothing is interpolated"
    }


def test_a_channel_that_is_not_there_is_refused(smooth):
    with pytest.raises(SensorError, match="cannot interpolate Q7: no such channel"):
        Interpolate(names=("Q7",))(smooth)


def test_a_recording_of_nothing_but_bad_channels_is_refused(make_recording):
    recording = make_recording()
    with pytest.raises(SensorError, match="every channel is bad, and none can be interpolated"):
        Interpolate(names=recording.sensors.ch_names)(recording)


def test_the_centre_of_the_head_is_fitted_only_to_a_whole_head(make_recording):
    cap = make_recording(np.ones((16, 8)), names=CAP).sensors
    x, y, z = head_origin(cap)
    at = np.linalg.norm(cap.position - np.array([x, y, z]), axis=1)
    np.testing.assert_allclose(at, at.mean(), rtol=0.12)
    back = cap.select([CAP.index(n) for n in ("O1", "O2", "Oz", "Pz")])
    assert head_origin(back.select([0, 1, 2])) == (0.0, 0.0, 0.04)


def test_sensors_survive_the_way_to_mne_and_back(test_data):
    path = test_data / "meg/neuromag/sample_audvis_trunc_raw_sss.fif"
    sensors = sensors_from_info(mne.io.read_info(path, verbose="error"))
    again = sensors_from_info(info_of(sensors, 100.0))
    assert again.ch_names == sensors.ch_names
    np.testing.assert_array_equal(again.kind, sensors.kind)
    np.testing.assert_allclose(again.position, sensors.position, atol=1e-7)
    np.testing.assert_allclose(again.orientation, sensors.orientation, atol=1e-6)


def test_coils_get_right_handed_axes(test_data):
    path = test_data / "meg/neuromag/sample_audvis_trunc_raw_sss.fif"
    info = mne.io.read_info(path, verbose="error")
    sensors = sensors_from_info(info)
    rows = [i for i in range(len(sensors)) if sensors.kind[i] != SensorKind.EEG]
    made = info_of(sensors, 100.0)
    axes = np.array([made["chs"][i]["loc"][3:].reshape(3, 3) for i in rows])
    np.testing.assert_allclose(
        axes @ axes.swapaxes(1, 2), np.tile(np.eye(3), (len(rows), 1, 1)), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.det(axes), 1, atol=1e-6)
    true = mne.pick_info(info, [info["ch_names"].index(sensors.ch_names[i]) for i in rows])
    turn = info["dev_head_t"]["trans"][:3, :3]
    normals = np.array([turn @ ch["loc"][9:] for ch in true["chs"]])
    np.testing.assert_allclose(axes[:, 2], normals, atol=1e-3)


def test_events_and_samples_reach_mne(make_recording):
    recording = make_recording(events=[Event(onset_s=1.5, duration_s=2.0, description="go")])
    raw = raw_of(recording)
    np.testing.assert_allclose(raw.get_data(), recording.signal)
    assert [(a["onset"], a["duration"], a["description"]) for a in raw.annotations] == [
        (1.5, 2.0, "go")
    ]
    assert not len(raw_of(recording, events=False).annotations)

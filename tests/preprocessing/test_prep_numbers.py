"""Numbers that steps measure: in which unit, over which samples, whatever blocks are cut."""

import mne
import numpy as np
import pytest

from neurofm.preprocessing import quality
from neurofm.preprocessing.events import _in_range
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.header import describe
from neurofm.preprocessing.history import band_passed, marked_bad
from neurofm.preprocessing.interpolate import head_origin
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.mains import find_mains
from neurofm.preprocessing.quality import measure_quality
from neurofm.preprocessing.spatial import selection
from neurofm.preprocessing.spectrum import spectra_of
from neurofm.preprocessing.spill import SpilledSignal
from neurofm.preprocessing.stretches import Stretches
from neurofm.preprocessing.windows import measure
from neurofm.sensors import Knowledge
from neurofm.signals import Entities, Event
from neurofm.sphere import fibonacci


@pytest.mark.parametrize("stretch", [1, 7, 500, 2559])
def test_quality_does_not_depend_on_how_blocks_are_cut(
    make_recording, make_signal, monkeypatch, stretch
):
    signal = np.repeat(make_signal(), 3, axis=1)[:, :2560]  # two of three samples repeat
    signal[1, 100] = 1.0
    whole = measure_quality(make_recording(signal=signal))
    assert whole["flat_share"][0] == pytest.approx(2 / 3, abs=0.01)
    assert whole["extreme_share"][:2] == [0.0, pytest.approx(1 / 2560, abs=1e-6)]
    monkeypatch.setattr(quality, "_STRETCH", stretch)
    assert measure_quality(make_recording(signal=signal)) == whole


@pytest.mark.parametrize("sfreq", [128.0, 500.0])
def test_spectra_are_densities_of_one_side(make_recording, sfreq):
    noise = 2e-5 * np.random.default_rng(0).standard_normal((8, int(60 * sfreq)))
    found = spectra_of(make_recording(signal=noise, sfreq=sfreq))["eeg"]
    middle = np.array(found["median"])[np.array(found["hz"]) > 5]
    assert middle.mean() == pytest.approx(2 * 4e-10 / sfreq, rel=0.1)
    assert (np.array(found["low"]) <= np.array(found["high"])).all()


@pytest.mark.parametrize(
    ("onset", "duration", "found"),
    [
        (-1.0, 3.0, [(0.0, 2.0)]), (8.0, 5.0, [(8.0, 2.0)]), (-2.0, 1.0, []), (11.0, 0.0, []),
        (4.0, 0.0, [(4.0, 0.0)]),
    ],
)  # fmt: skip
def test_spans_that_reach_beyond_a_recording_are_cut_at_its_ends(onset, duration, found):
    notes = []
    event = Event(onset_s=onset, duration_s=duration, description="x")
    kept = _in_range([event], 10.0, notes)
    assert [(e.onset_s, e.duration_s) for e in kept] == found
    assert len(notes) == 1 - len(found)


def test_an_offset_is_nothing_of_a_stretch(make_recording, make_signal):
    signal = make_signal() + 1e-3 * np.arange(8)[:, None]
    for block in Stretches(make_recording(signal=signal)).of(np.arange(8)):
        assert np.abs(block.mean(axis=1)).max() < 1e-8


def test_a_window_cut_short_is_as_loud_as_others(make_recording, make_signal):
    signal = make_signal(duration_s=10.1)
    measured = measure(make_recording(signal=signal), 0.5, (30.0, 100.0))
    usual = np.median(measured.muscle[:, :-1], axis=1)
    assert measured.muscle.shape[1] == 21
    assert np.abs(measured.muscle[:, -1] - usual).mean() < 0.35


@pytest.mark.parametrize(("n_humming", "line"), [(0, None), (1, None), (4, 50.0), (8, 50.0)])
def test_mains_of_one_electrode_are_not_the_recordings(
    make_recording, make_signal, n_humming, line
):
    signal = make_signal(duration_s=40.0)
    hum = 2e-5 * np.sin(2 * np.pi * 50 * np.arange(signal.shape[1]) / 256)
    signal[:n_humming] += hum
    assert find_mains(make_recording(signal=signal))[0] == line


def test_a_channel_at_its_limits_is_told_of(make_raw, make_signal):
    signal = make_signal()
    signal[3] = np.clip(signal[3], -2e-5, 2e-5)
    recording = recording_from_raw(make_raw(signal=signal), Entities(dataset="d", subject="1"))
    (note,) = [n for n in recording.history[0]["notes"] if "limits" in n]
    assert note.startswith("Cz is at its limits for 3")
    assert set(recording.history[0]["at_limits"]) == {"Cz"}


def test_a_cap_stands_in_for_positions_that_nobody_measured_only(make_raw):
    raw = make_raw(names=("Fz", "Cz", "X1"))
    measured = {"Cz": [0.01, 0.02, 0.11]}
    raw.set_montage(
        mne.channels.make_dig_montage(measured, coord_frame="head"), on_missing="ignore"
    )
    template = {name: np.array([0.05, 0.0, 0.05]) for name in ("Fz", "Cz")}
    sensors = describe(raw.info, [0, 1, 2], Facts(template=template), "a file")
    assert list(sensors.known) == [Knowledge.TEMPLATE, Knowledge.MEASURED, Knowledge.ABSENT]
    np.testing.assert_allclose(sensors.position[:2], [[0.05, 0, 0.05], measured["Cz"]], rtol=1e-5)


def test_a_history_is_read_to_its_end(make_recording):
    steps = (
        {"step": "read", "bad": {"Fz": "one", "Cz": "two", "gone": "three"}},
        {"step": "band_pass", "low_hz": 0.5, "high_hz": 45.0},
        {"step": "interpolate", "interpolated": ["Fz"]},
        {"step": "notch", "freqs_hz": [50.0]},
        {"step": "band_pass", "low_hz": 0.1, "high_hz": 30.0},
    )
    recording = make_recording()
    for step in steps:
        recording = recording.evolve(step)
    assert marked_bad(recording) == {"Cz": "two"}
    assert band_passed(recording) == (0.5, 30.0, [50.0])


def test_a_signal_that_is_made_when_asked_for_slices_at_any_stride(make_recording):
    recording = make_recording()
    whole = recording.signal
    mixed = selection(recording.sensors, [2, 0], {}).lazily(recording).signal
    spilled = SpilledSignal(whole.shape)
    spilled.write(0, whole)
    for step in (3, 2, 3, 7, 1):
        np.testing.assert_array_equal(mixed[:, ::step], whole[[2, 0], ::step])
        np.testing.assert_array_equal(spilled[:, ::step], whole[:, ::step])
    np.testing.assert_array_equal(mixed[1, 5:90:4], whole[0, 5:90:4])
    np.testing.assert_array_equal(spilled[1, 5:90:4], whole[1, 5:90:4])


@pytest.mark.parametrize(
    ("centre", "radius", "fitted"),
    [((0, 0.005, 0.045), 0.09, True), ((0, 0, 0.04), 0.03, False), ((0, 0.08, 0.04), 0.09, False)],
)
def test_a_head_is_fitted_to_electrodes_that_lie_on_one(make_recording, centre, radius, fitted):
    sensors = make_recording().sensors
    places = fibonacci(8, lowest=-0.2) * radius + centre
    sensors = sensors.evolve(position=places.astype(np.float32), known=np.full(8, 1, np.int8))
    assert sensors.located.all()
    wanted = centre if fitted else (0, 0, 0.04)
    np.testing.assert_allclose(head_origin(sensors), wanted, atol=1e-4)

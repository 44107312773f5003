"""Artefacts: what was put in is marked, when it was, with its reason; the rest is not."""

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.errors import SignalError
from neurofm.preprocessing.artefacts import MarkArtefacts
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.scan import Scan
from neurofm.preprocessing.steps import BandPass
from neurofm.preprocessing.windows import measure
from neurofm.signals import Entities, Event

SFREQ = 256.0


@pytest.fixture
def quiet(make_recording):
    """A minute of 20 uV of noise below 45 Hz, of eight channels."""
    return BandPass(low_hz=1.0, high_hz=100.0)(make_recording(duration_s=60.0))


def with_(recording, rows, start_s, extra):
    signal = recording.signal.copy()
    at = round(start_s * SFREQ)
    signal[rows, at : at + len(extra)] += extra
    return recording.evolve(signal=signal.astype(np.float32))


def noise(duration_s, sd, low_hz, high_hz, seed=1):
    white = np.random.default_rng(seed).standard_normal(round(duration_s * SFREQ))
    out = mne.filter.filter_data(white, SFREQ, low_hz, high_hz, verbose="error")
    return sd * out / out.std()


def marks(recording, marker=None):
    return [(s.reason, s.start_s, s.stop_s) for s in (marker or MarkArtefacts()).find(recording)]


def test_a_quiet_recording_stays_as_it_is(quiet):
    assert not marks(quiet)
    made = MarkArtefacts()(quiet)
    assert made.events == quiet.events
    assert made.history[-1] == {"step": "mark_artefacts", "marked_s": {}, "share": 0.0}


def test_a_large_wave_is_marked_where_it_is(quiet):
    bump = 1e-3 * np.hanning(round(1.0 * SFREQ))
    ((reason, start, stop),) = marks(with_(quiet, [2, 3], 30.0, bump))
    assert reason == "amplitude"
    assert 29.0 <= start <= 30.3
    assert 30.7 <= stop <= 32.0


def test_a_jump_is_marked_even_in_one_channel(quiet):
    ((reason, start, stop),) = marks(with_(quiet, [5], 30.1, np.full(200, 1e-2)),
                                     MarkArtefacts(amplitude=None, muscle_z=None))  # fmt: skip
    assert reason == "jump"
    assert start <= 30.1 <= stop


def test_muscle_is_marked_though_it_is_not_large(quiet):
    tense = noise(3.0, 60e-6, 40, 100)
    found = marks(with_(quiet, slice(0, 6), 20.0, tense))
    assert {reason for reason, *_ in found} == {"muscle"}
    marked = sum(min(stop, 23) - max(start, 20) for _, start, stop in found)
    assert marked > 2.5
    assert sum(stop - start for _, start, stop in found) < 4.5


def test_a_slow_wave_as_large_is_not_taken_for_muscle(quiet):
    slow = noise(3.0, 60e-6, 1, 8)
    assert not marks(with_(quiet, slice(0, 6), 20.0, slow))


def test_muscle_is_not_looked_for_where_the_band_leaves_nothing_of_it(make_recording):
    recording = BandPass(low_hz=1.0, high_hz=38.0)(make_recording(duration_s=60.0))
    loud = with_(recording, slice(0, 8), 20.0, noise(3.0, 90e-6, 30, 37))
    assert not marks(loud)
    assert marks(loud, MarkArtefacts(muscle_hz=(20.0, 140.0)))


def test_clipping_is_taken_from_what_reading_saw(quiet):
    clipped = quiet.evolve(
        {"step": "read", "clipped_s": {"C3": [[10.0, 10.1]], "Cz": [[10.3, 10.4]]}}
    )
    assert marks(clipped) == [("clipping", 9.75, 10.65)]
    assert not marks(clipped, MarkArtefacts(clipping=False))
    for step in ({"step": "bad_channels", "dropped": {"C3": "saturated"}},
                 {"step": "bad_channels", "interpolated": {"C3": "saturated"}},
                 {"step": "bad_channels", "bad": {"C3": "saturated"}}):  # fmt: skip
        assert marks(clipped.evolve(step)) == [("clipping", 10.05, 10.65)]


def test_one_electrode_of_many_spoils_no_moment(make_recording):
    names = [f"X{i}" for i in range(40)]
    recording = make_recording(
        20e-6 * np.random.default_rng(0).standard_normal((40, 5120)), names=names
    )
    bump = 1e-3 * np.hanning(round(1.0 * SFREQ))
    assert not marks(with_(recording, [3], 10.0, bump))
    assert marks(with_(recording, [3, 4], 10.0, bump))


def test_channels_marked_bad_are_not_looked_at(quiet):
    loud = with_(quiet, [2], 10.0, 1e-2 * np.random.default_rng(0).standard_normal(9000))
    assert marks(loud)
    assert not marks(loud.evolve({"step": "bad_channels", "bad": {"C3": "broken"}}))


def test_limits_differ_by_kind(make_recording):
    for kind, sd, limit in (("mag", 5e-13, 1e-11), ("grad", 1e-11, 1e-9), ("seeg", 1e-4, 3e-3)):
        signal = sd * np.random.default_rng(0).standard_normal((8, 2560))
        recording = make_recording(signal, types=kind, names=[f"A{i}" for i in range(8)])
        bump = np.hanning(round(1.0 * SFREQ))
        assert not marks(with_(recording, [1], 4.0, 0.5 * limit * bump)), kind
        assert marks(with_(recording, [1], 4.0, 1.5 * limit * bump)), kind


def test_marks_become_events_that_windows_avoid(quiet):
    ready = quiet.evolve(events=(Event(onset_s=5.0, duration_s=0.0, description="go"),
                                 Event(onset_s=50.0, duration_s=0.0, description="go")))  # fmt: skip
    bump = 1e-3 * np.hanning(round(1.0 * SFREQ))
    made = MarkArtefacts()(with_(ready, [2, 3], 30.0, bump))
    assert [e.description for e in made.events] == ["go", "BAD_amplitude", "go"]
    assert len(made.good_spans()) == 2
    assert made.history[-1]["marked_s"].keys() == {"amplitude"}
    assert made.history[-1]["notes"] == [
        f"marked bad: amplitude {made.history[-1]['marked_s']['amplitude']:g} s"
    ]
    assert 0 < made.history[-1]["share"] < 0.05


def test_a_recording_that_is_mostly_bad_says_so(quiet):
    loud = with_(quiet, slice(0, 8), 5.0, 2e-3 * np.random.default_rng(0).standard_normal(256 * 40))
    made = MarkArtefacts(jump_sd=None, muscle_z=None)(loud)
    (note,) = made.history[-1]["notes"]
    assert note.startswith("6")
    assert "of the recording is marked bad (amplitude 40" in note


def test_a_recording_that_is_all_bad_is_refused(quiet):
    with pytest.raises(SignalError, match=r"(?s)100% of 60 s would be marked bad \(amplitude 60 s.*raise the limits"):  # fmt: skip
        MarkArtefacts()(quiet.evolve(signal=quiet.signal * 100))


def test_spans_that_were_marked_before_alone_do_not_refuse(quiet):
    marked = quiet.evolve(events=(Event(onset_s=0.0, duration_s=60.0, description="BAD_told"),))
    assert MarkArtefacts()(marked).events == marked.events


@settings(max_examples=20)
@given(st.integers(3, 2000), st.integers(1, 90))
def test_windows_do_not_depend_on_how_blocks_are_cut(n_times, n_window):
    import neurofm.preprocessing.windows as windows

    rng = np.random.default_rng(n_times)

    class Recorded:
        sfreq, sensors, duration_s = 100.0, range(3), n_times / 100
        signal = rng.standard_normal((3, n_times)).astype(np.float32)

        def __init__(self):
            self.n_times = n_times

        def good_spans(self):
            return ((0.0, self.duration_s),)

        def blocks(self, n):
            for start in range(0, n_times, n):
                yield start, self.signal[:, start : start + n]

    recorded = Recorded()
    measured = measure(recorded, n_window / 100, None)
    before = windows._WINDOWS
    windows._WINDOWS = 2
    try:
        again = measure(recorded, n_window / 100, None)
    finally:
        windows._WINDOWS = before
    np.testing.assert_array_equal(measured.peak, again.peak)
    np.testing.assert_array_equal(measured.step, again.step)
    np.testing.assert_array_equal(measured.peak.max(axis=1), np.abs(recorded.signal).max(axis=1))
    steps = np.abs(np.diff(recorded.signal, axis=1))
    np.testing.assert_array_equal(measured.step.max(axis=1), steps.max(axis=1))


def scanned(signal, *cuts):
    scan = Scan(len(signal))
    for block in np.split(signal, cuts, axis=1):
        scan.add(block)
    return scan


def clip_signal():
    t = np.arange(4000) / SFREQ
    return np.clip(np.stack([np.sin(7 * t), 2 * np.sin(7 * t)]), -1.5, 1.5)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 3999), max_size=6))
def test_clipping_is_seen_wherever_blocks_are_cut(cuts):
    signal = clip_signal()
    scan = scanned(signal, *sorted(cuts))
    spans = scan.clipped([0, 1], join=0)
    hit = np.zeros(4000, bool)
    for start, stop in spans:
        hit[start:stop] = True
    np.testing.assert_array_equal(hit, np.abs(signal[1]) == 1.5)
    assert scan.at_limits(1) == pytest.approx((np.abs(signal[1]) == 1.5).mean())


def test_highest_peaks_are_no_limits():
    signal = np.random.default_rng(0).standard_normal((4, 5000))
    signal[0, 100:105] = 9.0  # once is no rail
    assert not scanned(signal, 1000).clipped(range(4), join=10)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_plateau_is_no_limit_if_the_signal_goes_beyond_it_later(sign):
    signal = np.random.default_rng(0).standard_normal((1, 5000))
    signal[0, 100:105] = signal[0, 300:305] = sign * 9.0
    assert scanned(signal, 1000).clipped([0], join=0) == [(100, 105), (300, 305)]
    signal[0, 4000] = sign * 9.5
    assert not scanned(signal, 1000).clipped([0], join=0)


def test_stretches_close_together_are_one():
    spans = scanned(clip_signal()).clipped([1], join=4000)
    assert len(spans) == 1


@pytest.mark.parametrize("subject", ["S001", "S002", "S003", "S005"])
def test_people_at_rest_with_closed_eyes_are_left_alone(test_data, subject):
    raw = mne.io.read_raw(test_data / f"eegmmidb/{subject}/{subject}R02.edf", verbose="error")
    recording = recording_from_raw(raw, Entities(dataset="real", subject="1"))
    assert not marks(BandPass(low_hz=0.5, high_hz=75.0)(recording))

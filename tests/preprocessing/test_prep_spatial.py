"""Spatial operators: one matrix, whatever was asked for."""

import numpy as np
import pytest

from neurofm.errors import SensorError
from neurofm.preprocessing.spatial import Spatial, SpatialStep, selection


def average(sensors):
    n = len(sensors)
    return Spatial(np.eye(n) - 1 / n, sensors, {"step": "average"})


class DropFirst(SpatialStep):
    def operator(self, recording):
        n = len(recording.sensors)
        return selection(recording.sensors, np.arange(1, n), {"step": "drop_first"})


class Nothing(SpatialStep):
    def operator(self, recording):
        return None


def test_an_operator_is_its_matrix_times_the_samples(make_recording):
    recording = make_recording()
    made = average(recording.sensors)(recording)
    expected = recording.signal - recording.signal.mean(axis=0)
    np.testing.assert_allclose(made.signal, expected, atol=1e-11)
    assert made.signal.dtype == np.float32
    assert made.history[-1] == {"step": "average"}


def test_composed_operators_do_what_they_do_one_by_one(make_recording):
    recording = make_recording()
    keep = selection(recording.sensors, [5, 0, 2], {"step": "keep"})
    mean = average(keep.sensors)
    both = mean.after(keep)
    one_by_one, at_once = mean(keep(recording)), both(recording)
    np.testing.assert_allclose(at_once.signal, one_by_one.signal, atol=1e-11)
    assert at_once.sensors == one_by_one.sensors
    assert at_once.history == one_by_one.history == ({"step": "keep"}, {"step": "average"})


def test_composition_is_associative_in_what_history_remembers(make_recording):
    sensors = make_recording().sensors
    a, b, c = (selection(sensors, range(len(sensors)), {"step": s}) for s in "abc")
    assert c.after(b).after(a).steps == c.after(b.after(a)).steps == a.steps + b.steps + c.steps


def test_a_selection_takes_samples_as_they_are(make_recording):
    recording = make_recording()
    made = selection(recording.sensors, [3, 1], {"step": "keep"})(recording)
    np.testing.assert_array_equal(made.signal, recording.signal[[3, 1]])
    assert made.sensors.ch_names == ("Cz", "Fz")


def test_what_is_dropped_may_hold_nan(make_recording, make_signal):
    signal = make_signal()
    signal[0] = np.nan
    recording = make_recording(signal)
    keep = selection(recording.sensors, range(1, 8), {"step": "keep"})
    assert np.isfinite(average(keep.sensors).after(keep)(recording).signal).all()


def test_blocks_keep_their_precision(make_recording):
    operator = average(make_recording().sensors)
    for dtype in (np.float32, np.float64):
        assert operator.apply(np.ones((8, 4), dtype)).dtype == dtype


def test_a_long_recording_is_made_block_by_block(make_recording):
    recording = make_recording(duration_s=600.0)
    made = average(recording.sensors)(recording)
    expected = recording.signal - recording.signal.mean(axis=0)
    np.testing.assert_allclose(made.signal, expected, atol=1e-11)


def test_a_step_applies_its_operator_or_nothing(make_recording):
    recording = make_recording()
    assert DropFirst()(recording).sensors.ch_names == recording.sensors.ch_names[1:]
    assert Nothing()(recording) is recording


def test_a_matrix_that_does_not_fit_is_refused(make_recording):
    recording = make_recording()
    sensors = recording.sensors
    with pytest.raises(SensorError, match=r"wrong: a matrix of shape \(3, 8\) for 8 channels"):
        Spatial(np.ones((3, 8)), sensors, {"step": "wrong"})
    with pytest.raises(SensorError, match="wrong: its matrix holds values that are not finite"):
        Spatial(np.full((8, 8), np.nan), sensors, {"step": "wrong"})
    narrow = selection(sensors, [0, 1], {"step": "keep"})
    with pytest.raises(SensorError, match=r"operator \(average\) for 8 channels meets 2"):
        average(sensors)(narrow(recording))
    with pytest.raises(SensorError, match=r"keep: an operator \(average\) for 8 channels meets 2"):
        average(sensors).after(narrow)


def test_samples_can_be_mixed_when_they_are_asked_for(make_recording):
    recording = make_recording()
    keep = selection(recording.sensors, [5, 0, 2], {"step": "keep"})
    eager = average(keep.sensors)(keep(recording))
    lazy = average(keep.sensors).lazily(keep.lazily(recording))
    assert (lazy.sensors, lazy.history) == (eager.sensors, eager.history)
    assert lazy.signal.base is recording.signal, "two operators are one matrix"
    for index in (np.s_[:, 10:20], np.s_[:, ::7], np.s_[1:, :5], np.s_[2]):
        np.testing.assert_allclose(lazy.signal[index], eager.signal[index], atol=1e-11)
    np.testing.assert_allclose(np.asarray(lazy.signal), eager.signal, atol=1e-11)
    blocks = [block for _, block in lazy.blocks(1000)]
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), eager.signal, atol=1e-11)

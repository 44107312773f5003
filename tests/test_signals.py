from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import plain_batch
from hypothesis import given
from hypothesis import strategies as st

from neurofm.errors import ConfigError, SignalError
from neurofm.sensors import Sensors
from neurofm.signals import (
    Batch,
    Entities,
    Event,
    Grid,
    Recording,
    good_spans,
    subject_code,
    subject_of,
    whole_samples,
)


def sensors(n):
    return Sensors(
        ch_names=tuple(f"c{i}" for i in range(n)),
        kind=np.zeros(n, np.int8),
        position=np.zeros((n, 3), np.float32),
        orientation=np.zeros((n, 3), np.float32),
        known=np.zeros(n, np.int8),
        oriented=np.zeros(n, bool),
        region=(None,) * n,
    )


def recording(signal, sfreq=100.0, **more):
    who = Entities(dataset="d", subject="1")
    return Recording(signal=signal, sfreq=sfreq, sensors=sensors(2), entities=who, **more)


def test_a_recording_id_is_made_of_the_entities_and_safe_as_a_folder():
    who = Entities(dataset="My set", subject="S 1/2", session="[a]", task="rest", run="05")
    assert who.recording_id == "My-set_sub-S-1-2_ses--a-_task-rest_run-05"


def test_all_recordings_of_a_subject_have_its_code_and_no_other_has():
    who = [
        Entities(dataset="d", subject="1").recording_id,
        Entities(dataset="d", subject="1", session="2", task="rest", run="3").recording_id,
        Entities(dataset="d", subject="2").recording_id,
        Entities(dataset="e", subject="1").recording_id,
    ]
    assert [subject_of(name) for name in who] == ["d_sub-1", "d_sub-1", "d_sub-2", "e_sub-1"]
    first, again, *others = map(subject_code, who)
    assert first == again == 2380724596383947514
    assert len({first, *others}) == 3
    assert subject_code("") == 0


@pytest.mark.parametrize("missing", ["dataset", "subject"])
def test_dataset_and_subject_are_required(missing):
    with pytest.raises(ConfigError, match=f"a recording without a {missing}"):
        Entities(**({"dataset": "d", "subject": "s"} | {missing: ""}))


def test_shape_type_and_rate_of_a_recording_are_checked():
    with pytest.raises(SignalError, match=r"d_sub-1: signal has shape \(3, 10\) for 2 channels"):
        recording(np.zeros((3, 10), np.float32))
    with pytest.raises(SignalError, match="signal is float64, not float32"):
        recording(np.zeros((2, 10)))
    with pytest.raises(SignalError, match="sampling rate is 0 Hz"):
        recording(np.zeros((2, 10), np.float32), sfreq=0.0)


def test_history_remembers_steps_and_evolve_leaves_the_original_alone():
    before = recording(np.zeros((2, 100), np.float32))
    after = before.evolve({"name": "notch", "line_hz": 50}, sfreq=50.0)
    assert before.history == ()
    assert after.history == ({"name": "notch", "line_hz": 50},)
    assert (before.duration_s, after.duration_s) == (1.0, 2.0)


def test_good_spans_lie_between_bad_and_edge_events():
    events = [
        Event(onset_s=2, duration_s=1, description="BAD_muscle"),
        Event(onset_s=2.5, duration_s=2, description="bad acq"),
        Event(onset_s=6, duration_s=0, description="EDGE boundary"),
        Event(onset_s=1, duration_s=5, description="T1"),
        Event(onset_s=9, duration_s=50, description="Bad"),
    ]
    assert good_spans(events, 10) == ((0, 2), (4.5, 6), (6, 9))


@given(st.lists(st.tuples(st.floats(-5, 30), st.floats(0, 10)), max_size=8), st.floats(0.1, 20))
def test_good_spans_touch_no_bad_event_and_cover_the_rest(bad, duration):
    events = [Event(onset_s=a, duration_s=d, description="BAD") for a, d in bad]
    spans = good_spans(events, duration)
    for t in np.linspace(0.001, duration - 0.001, 97):
        is_bad = any(a < t < a + d for a, d in bad)
        covered = any(start <= t <= stop for start, stop in spans)
        assert covered or is_bad
        assert not (is_bad and any(start < t < stop for start, stop in spans))
    assert all(0 <= start < stop <= duration for start, stop in spans)


def test_seconds_that_are_no_whole_samples_are_refused_with_the_nearest():
    assert whole_samples(0.5, 128) == 64
    with pytest.raises(
        ConfigError, match=r"0\.2 s is 25\.6 samples at 128 Hz.*\n.*try 0\.203125 s"
    ):
        whole_samples(0.2, 128)
    with pytest.raises(ConfigError, match="not a whole number"):
        whole_samples(0.0, 128)


def test_batches_and_grids_move_with_all_their_tensors():
    mask = torch.ones(1, 2, dtype=torch.bool)
    batch = plain_batch(torch.zeros(1, 2, 8), recording_ids=("a",))
    moved = batch.to("meta")
    assert moved.signal.device.type == moved.present.device.type == "meta"
    assert moved.recording_ids == ("a",)
    assert moved.target is None
    assert len(batch) == 1
    grid = Grid(content=torch.ones(1, 2, 3, 4), place=torch.full((1, 2, 1, 4), 2.0), present=mask)
    assert torch.equal(grid.tokens, torch.full((1, 2, 3, 4), 3.0))
    assert grid.to("meta").place.device.type == "meta"


def small_batch(**changes):
    yes = torch.ones(2, 3, dtype=torch.bool)
    tensors = {
        "signal": torch.ones(2, 3, 4),
        "position": torch.zeros(2, 3, 3),
        "orientation": torch.zeros(2, 3, 3),
        "kind": torch.zeros(2, 3, dtype=torch.int64),
    }
    return Batch(**tensors, located=yes, oriented=yes, present=yes, sfreq=100.0, **changes)


def test_a_batch_that_moves_learns_whether_it_is_whole_and_a_changed_copy_forgets():
    batch = small_batch()
    assert not batch.whole and batch.to("cpu").whole and batch.to("cpu").to("cpu").whole
    padded = replace(batch.to("cpu"), present=torch.tensor([[True] * 3, [True, True, False]]))
    assert not padded.whole and not padded.to("cpu").whole
    counts = small_batch(scale=torch.ones(2, 3))
    assert counts.to("cpu").whole and counts.to("cpu").scale is None


def test_a_grid_that_is_whole_has_no_mask_until_others_are_present():
    present = torch.ones(1, 2, 3, dtype=torch.bool)
    grid = Grid(
        content=torch.ones(1, 2, 3, 4), place=torch.ones(1, 2, 1, 4), present=present, whole=True
    )
    assert grid.mask is None and grid.evolve(content=grid.place).whole
    fewer = grid.evolve(present=torch.tensor([[[True] * 3, [False] * 3]]))
    assert not fewer.whole and fewer.mask is fewer.present
    assert grid.evolve(present=present).mask is None  # found out


@given(st.integers(1, 40), st.integers(1, 50))
def test_blocks_put_together_are_the_signal(n_times, length):
    signal = np.arange(2 * n_times, dtype=np.float32).reshape(2, n_times)
    blocks = list(recording(signal).blocks(length))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks], axis=1), signal)
    assert [start for start, _ in blocks] == list(range(0, n_times, length))
    assert all(block.shape[1] <= length for _, block in blocks)

"""Which windows, in which order."""

import sys
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.data.plan import LoaderConfig, WindowPlan, permute
from neurofm.errors import ConfigError, SignalError

SFREQ = 100.0


def make_index(*recordings):
    """A row for each (n_channels, spans in seconds)."""
    rows = [
        {
            "recording_id": f"r{i}",
            "n_channels": n_channels,
            "sfreq": SFREQ,
            "n_times": round(spans[-1] * SFREQ) if spans else 0,
            "spans": np.array(spans, float),
        }
        for i, (n_channels, spans) in enumerate(recordings)
    ]
    return pd.DataFrame(rows)


MIXED = make_index(
    (8, [0.0, 60.0]),
    (4, [0.0, 3.3, 5.0, 41.0]),
    (8, [0.0, 0.5]),
    (8, [2.5, 20.25]),
    (2, [0.0, 9.0]),
)


def make_plan(index=MIXED, seed=0, n_times=100, patches=2, token_budget=64, cut="anywhere"):
    return WindowPlan(
        index, n_times=n_times, patches=patches, token_budget=token_budget, seed=seed, cut=cut
    )


def epoch(plan, number):
    first = number * plan.steps_per_epoch
    return [plan.batch(step) for step in range(first, first + plan.steps_per_epoch)]


def windows(batches):
    return [ref for batch in batches for ref in batch]


spans_of_a_recording = st.lists(st.floats(0.0, 50.0), min_size=0, max_size=8).map(
    lambda edges: sorted(edges)[: len(edges) // 2 * 2]
)


@settings(max_examples=60)
@given(
    recordings=st.lists(st.tuples(st.integers(1, 9), spans_of_a_recording), min_size=1, max_size=6),
    n_times=st.integers(1, 700),
    seed=st.integers(0, 2**40),
    number=st.integers(0, 3),
)
def test_windows_lie_in_good_spans_and_never_overlap(recordings, n_times, seed, number):
    index = make_index(*recordings)
    try:
        plan = make_plan(index, seed, n_times)
    except SignalError:
        return
    refs = windows(epoch(plan, number))
    assert len(refs) == plan.n_windows
    expected = 0
    for row in index.itertuples():
        starts = np.sort([r.start for r in refs if r.recording_id == row.recording_id])
        assert (np.diff(starts) >= n_times).all()
        edges = np.asarray(row.spans).reshape(-1, 2) * SFREQ
        for start in starts:
            inside = (edges[:, 0] <= start + 1e-5) & (start + n_times <= edges[:, 1] + 1e-5)
            assert inside.any()
        lengths = np.floor(edges[:, 1] + 1e-6) - np.ceil(edges[:, 0] - 1e-6)
        expected += int((np.maximum(lengths, 0) // n_times).sum())
    assert len(refs) == expected  # as many as fit


def test_a_batch_depends_on_its_step_alone():
    forwards = [make_plan().batch(step) for step in range(60)]
    plan = make_plan()
    shuffled = np.random.default_rng(0).permutation(60)
    assert {int(s): plan.batch(int(s)) for s in shuffled} == dict(enumerate(forwards))


def test_the_order_of_index_rows_does_not_matter():
    turned = MIXED.iloc[::-1].reset_index(drop=True)
    assert epoch(make_plan(turned), 1) == epoch(make_plan(), 1)


def test_epochs_and_seeds_differ():
    plan = make_plan()
    assert epoch(plan, 0) != epoch(plan, 1)
    assert epoch(plan, 0) != epoch(make_plan(seed=1), 0)
    # not the order alone: where windows are cut moves with the epoch too
    assert {r.start % 100 for r in windows(epoch(plan, 0)) if r.recording_id == "r1"} != {
        r.start % 100 for r in windows(epoch(plan, 1)) if r.recording_id == "r1"
    }


@given(spans_of_a_recording, st.integers(0, 5))
def test_windows_on_the_grid_are_as_many_and_begin_where_chunks_do_if_that_costs_none(
    edges, number
):
    index = make_index((4, edges), (4, [0.0, 9.0]))
    grid, anywhere = (make_plan(index, cut=cut) for cut in ("grid", "anywhere"))
    assert grid.n_windows == anywhere.n_windows
    starts = {}
    for ref in windows(epoch(grid, number)):
        starts.setdefault(ref.recording_id, []).append(ref.start)
    assert all(start % 100 == 0 for start in starts["r1"])
    for low, high in np.reshape(edges, (-1, 2)):
        first, stop = np.ceil(low * SFREQ - 1e-6), np.floor(high * SFREQ + 1e-6)
        here = [s for s in starts.get("r0", ()) if first <= s and s + 100 <= stop]
        on_grid = (stop - np.ceil(first / 100) * 100) // 100
        if here and on_grid == (stop - first) // 100:
            assert all(s % 100 == 0 for s in here)


def test_the_grid_is_the_same_in_every_epoch():
    plan = make_plan(cut="grid")
    first, second = ({(r.recording_id, r.start) for r in windows(epoch(plan, n))} for n in (0, 1))
    assert first == second
    assert epoch(plan, 0) != epoch(plan, 1)


def test_each_epoch_puts_other_windows_together():
    plan = make_plan(make_index((1, [0.0, 60.0])), token_budget=20)  # no leftover, so no phase
    first, second = (
        {frozenset(ref.start for ref in batch) for batch in epoch(plan, number)}
        for number in (0, 1)
    )
    assert not first & second


def test_windows_are_shuffled():
    plan = make_plan(make_index((1, [0.0, 5000.0])), token_budget=20)
    starts = np.array([r.start for r in windows(epoch(plan, 0))])
    assert abs(np.corrcoef(starts, np.arange(len(starts)))[0, 1]) < 0.05
    neighbours = np.abs(np.diff(starts)) <= 100
    assert neighbours.mean() < 0.005


def test_batches_hold_one_montage_size_within_the_budget():
    channels = dict(zip(MIXED["recording_id"], MIXED["n_channels"], strict=True))
    sizes = Counter()
    for batch in epoch(make_plan(token_budget=64, patches=2), 0):
        (n,) = {channels[ref.recording_id] for ref in batch}
        assert len(batch) * n * 2 <= 64
        sizes[n, len(batch)] += 1
    for n in (2, 4, 8):
        found = [size for (m, size) in sizes if m == n]
        assert max(found) - min(found) <= 1


def test_montage_sizes_take_turns():
    channels = dict(zip(MIXED["recording_id"], MIXED["n_channels"], strict=True))
    order = [channels[batch[0].recording_id] for batch in epoch(make_plan(), 0)]
    assert order not in (sorted(order), sorted(order, reverse=True))


def test_a_window_beyond_the_budget_comes_alone():
    assert {len(batch) for batch in epoch(make_plan(token_budget=1), 0)} == {1}


def test_memory_and_time_do_not_grow_with_the_number_of_windows():
    def size(plan):
        arrays = [v for bucket in plan._buckets for v in vars(bucket).values()]
        return sum(a.nbytes for a in arrays if isinstance(a, np.ndarray)) + sys.getsizeof(plan)

    small = make_plan(make_index((8, [0.0, 100.0])))
    start = time.process_time()
    large = make_plan(make_index((8, [0.0, 1.5e9])))
    batches = [large.batch(step) for step in (0, 1, large.steps_per_epoch * 3 - 1)]
    assert time.process_time() - start < 2
    assert large.n_windows == 1_500_000_000
    assert size(large) == size(small)
    assert len({ref.start for ref in windows(batches)}) == sum(map(len, batches))


@settings(max_examples=80)
@given(n=st.integers(1, 5000), key=st.text(max_size=5))
def test_a_permutation_hits_every_number_once(n, key):
    image = permute(np.arange(n), n, key)
    assert sorted(image.tolist()) == list(range(n))
    some = np.arange(0, n, 7)
    np.testing.assert_array_equal(permute(some, n, key), image[some])


@pytest.mark.parametrize(("n", "draws"), [(5, 2000), (1100, 100)])
def test_every_place_is_equally_likely(n, draws):
    counts = np.zeros((5, 5))  # fifths of the numbers, before and after
    fifths = np.arange(n) * 5 // n
    for key in range(draws):
        np.add.at(counts, (fifths, fifths[permute(np.arange(n), n, str(key))]), 1)
    expected = draws * n / 25
    assert 0.4 < ((counts - expected) ** 2 / expected).sum() / 16 < 1.9  # chi2 over 16


def test_no_window_anywhere_says_how_long_the_longest_span_is():
    with pytest.raises(SignalError, match=r"window of 7000 samples; the longest has 6000\n"):
        make_plan(n_times=7000)


@pytest.mark.parametrize("index", [MIXED.iloc[:0], make_index((4, []))])
def test_no_good_span_at_all_is_said(index):
    with pytest.raises(SignalError, match=r"no good span to draw windows from\n.*marked BAD"):
        make_plan(index)


@pytest.mark.parametrize("name", ["n_times", "patches", "token_budget"])
def test_lengths_must_be_positive(name):
    with pytest.raises(ConfigError, match=f"{name} must be positive, got 0"):
        make_plan(**{name: 0})


def test_steps_count_from_zero():
    with pytest.raises(ConfigError, match="step must not be negative, got -1"):
        make_plan().batch(-1)


def test_the_loader_config_has_working_defaults():
    assert LoaderConfig().token_budget >= 1


def test_a_config_plans_with_each_of_its_values():
    config = LoaderConfig(token_budget=32, cut="anywhere")
    found = config.plan(MIXED, n_times=100, patches=2, seed=3)
    assert epoch(found, 0) == epoch(make_plan(seed=3, token_budget=32), 0)
    for other in (LoaderConfig(token_budget=32), LoaderConfig(cut="anywhere")):
        assert epoch(other.plan(MIXED, n_times=100, patches=2, seed=3), 0) != epoch(found, 0)
        assert other.order() != config.order()
    assert LoaderConfig(token_budget=32, cut="anywhere", prefetch=9).order() == config.order()

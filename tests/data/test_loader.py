"""Windows together, in order, from threads or processes."""

import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch

from neurofm.contract import SignalContract
from neurofm.data.collate import collate
from neurofm.data.loader import Loader, label_batches
from neurofm.data.plan import WindowPlan, WindowRef
from neurofm.errors import ConfigError, SensorError, StoreError
from neurofm.sensors import Knowledge, SensorKind, Sensors, text_code
from neurofm.signals import Entities, Event, Recording
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording

SFREQ = 100.0


def sensors_of(n, kind=SensorKind.EEG):
    rng = np.random.default_rng(n)
    known = np.full(n, Knowledge.MEASURED, np.int8)
    known[-1] = Knowledge.ABSENT
    oriented = np.zeros(n, bool)
    oriented[0] = True
    return Sensors(
        ch_names=tuple(f"{n}-{i}" for i in range(n)),
        kind=np.full(n, kind, np.int8),
        position=rng.normal(size=(n, 3)).astype(np.float32),
        orientation=rng.normal(size=(n, 3)).astype(np.float32),
        known=known,
        oriented=oriented,
        region=(None,) * n,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Five recordings with 3, 5 or 8 channels, one with a bad stretch."""
    path = tmp_path_factory.mktemp("loader") / "store"
    contract = SignalContract(sfreq=SFREQ, band_hz=(0.5, 40.0), window_s=1.0, clip=8.0)
    create_store(path, contract)
    rng = np.random.default_rng(0)
    rows = []
    for i, n in enumerate((3, 5, 8, 5, 3)):
        bad = (Event(onset_s=7.0, duration_s=6.0, description="BAD"),) if i == 1 else ()
        recording = Recording(
            signal=rng.normal(scale=1e-5, size=(n, 2500 + 130 * i)).astype(np.float32),
            sfreq=SFREQ,
            sensors=sensors_of(n, SensorKind.MAG if n == 8 else SensorKind.EEG),
            entities=Entities(dataset="d", subject=str(i)),
            events=bad,
        )
        rows.append(write_recording(path, recording, quality={}, provenance={}))
    commit(path, rows)
    return open_store(path)


def make_plan(store, seed=0, token_budget=30):
    return WindowPlan(store.index, n_times=100, patches=1, token_budget=token_budget, seed=seed)


def make_loader(store, plan=None, **options):
    plan = plan or make_plan(store)
    defaults = {"n_times": 100, "sfreq": SFREQ, "last_step": 2 * plan.steps_per_epoch}
    return Loader(store, plan, **{**defaults, **options})


def key(batch):
    tensors = [v.numpy().tobytes() for v in vars(batch).values() if isinstance(v, torch.Tensor)]
    return (batch.recording_ids, batch.start_s, *tensors)


def test_a_batch_carries_the_codes_of_names_and_regions(store):
    refs = (WindowRef("d_sub-0", 0), WindowRef("d_sub-2", 0))
    batch = collate(store, refs, 100, sfreq=SFREQ)
    few, many = (store.sensors(ref.recording_id) for ref in refs)
    assert batch.name_code[0].tolist() == [*few.name_code, 0, 0, 0, 0, 0]
    assert batch.name_code[1].tolist() == many.name_code.tolist()
    assert few.name_code[0] == text_code("3-0")
    assert many.name_code[0] == text_code("mag:8-0")
    assert not batch.region_code.any()


def test_a_batch_knows_whose_windows_are(store):
    refs = tuple(WindowRef(name, 0) for name in ("d_sub-0", "d_sub-2", "d_sub-0"))
    code = collate(store, refs, 100, sfreq=SFREQ).subject_code
    assert code.tolist() == [text_code(ref.recording_id) for ref in refs]
    assert collate(store, (), 100, sfreq=SFREQ).subject_code.dtype is torch.int64


@pytest.mark.parametrize("parallel", ["threads", "processes"])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("prefetch", [1, 5])
def test_batches_do_not_depend_on_who_reads_them(store, parallel, workers, prefetch):
    plan = make_plan(store)
    expected = [
        key(collate(store, plan.batch(step), 100, sfreq=SFREQ))
        for step in range(2 * plan.steps_per_epoch)
    ]
    loader = make_loader(store, parallel=parallel, workers=workers, prefetch=prefetch)
    assert len(loader) == len(expected)
    assert [key(batch) for batch in loader] == expected
    assert [key(batch) for batch in loader] == expected  # and it can be gone through again


@pytest.mark.parametrize("first", [0, 1, 7])
def test_a_loader_started_later_goes_on_exactly(store, first):
    whole = [key(b) for b in make_loader(store)]
    assert [key(b) for b in make_loader(store, first_step=first)] == whole[first:]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_together_hold_what_one_would(store, world):
    ranks = [list(make_loader(store, rank=r, world=world)) for r in range(world)]
    alone = list(make_loader(store))
    assert {len(batches) for batches in ranks} == {len(alone)}
    for step, batch in enumerate(alone):
        for rank in range(world):
            part = ranks[rank][step]
            assert part.recording_ids == batch.recording_ids[rank::world]
            torch.testing.assert_close(part.signal, batch.signal[rank::world], rtol=0, atol=0)


def test_a_rank_without_a_window_gets_a_batch_of_length_zero(store):
    plan = make_plan(store, token_budget=1)
    (batch,) = Loader(store, plan, n_times=100, sfreq=SFREQ, last_step=1, rank=1, world=2)
    assert len(batch) == 0
    n_channels = len(store.sensors(plan.batch(0)[0].recording_id))
    assert batch.signal.shape == (0, n_channels, 100)
    assert batch.present.shape == (0, n_channels)


def test_channels_are_padded_to_the_widest_and_marked(store):
    refs = (WindowRef("d_sub-0", 40), WindowRef("d_sub-2", 1000), WindowRef("d_sub-1", 0))
    batch = collate(store, refs, 100, sfreq=SFREQ, targets=(4, 0, 2), n_channels=9)
    assert batch.signal.shape == (3, 9, 100)
    assert batch.signal.dtype == torch.float32
    assert batch.present.sum(1).tolist() == [3, 8, 5]
    for i, ref in enumerate(refs):
        sensors = store.sensors(ref.recording_id)
        n = len(sensors)
        here = slice(n)
        expected = np.empty((n, 100), np.float32)
        store.read_standard_into(ref.recording_id, ref.start, expected)
        np.testing.assert_array_equal(batch.signal[i, here], expected)
        np.testing.assert_array_equal(batch.position[i, here], sensors.position)
        np.testing.assert_array_equal(batch.orientation[i, here], sensors.orientation)
        np.testing.assert_array_equal(batch.kind[i, here], sensors.kind)
        np.testing.assert_array_equal(batch.located[i, here], sensors.located)
        np.testing.assert_array_equal(batch.oriented[i, here], sensors.oriented)
        assert batch.present[i, here].all()
        for name in ("signal", "position", "orientation", "located", "oriented", "present"):
            assert not getattr(batch, name)[i, n:].any()
    assert batch.recording_ids == ("d_sub-0", "d_sub-2", "d_sub-1")
    assert batch.start_s == (0.4, 10.0, 0.0)
    assert batch.target.tolist() == [4, 0, 2]
    assert batch.kind.dtype == batch.target.dtype == torch.int64


def test_too_many_channels_for_the_batch_are_refused(store):
    with pytest.raises(SensorError, match="d_sub-2 has 8 channels, more than the 4 of the batch"):
        collate(store, (WindowRef("d_sub-2", 0),), 100, sfreq=SFREQ, n_channels=4)


@pytest.mark.parametrize("parallel", ["threads", "processes"])
def test_a_batch_that_is_kept_does_not_change(store, parallel):
    loader = make_loader(store, parallel=parallel, workers=2, prefetch=2)
    kept = list(loader)
    before = [key(b) for b in kept]
    list(loader)
    assert [key(b) for b in kept] == before


def test_no_window_touches_what_is_marked_bad(store):
    for batch in make_loader(store, last_step=4 * make_plan(store).steps_per_epoch):
        for name, start in zip(batch.recording_ids, batch.start_s, strict=True):
            assert name != "d_sub-1" or start + 1.0 <= 7.0 + 1e-9 or start >= 13.0 - 1e-9


def test_labelled_windows_keep_their_order(store):
    rng = np.random.default_rng(0)
    refs = [WindowRef(f"d_sub-{rng.integers(5)}", int(rng.integers(2000))) for _ in range(23)]
    targets = rng.integers(0, 3, 23).tolist()
    batches = list(
        label_batches(store, refs, targets, n_times=100, sfreq=SFREQ, batch_size=5, threads=3)
    )
    assert [len(b) for b in batches] == [5, 5, 5, 5, 3]
    assert [t for b in batches for t in b.target.tolist()] == targets
    assert [n for b in batches for n in b.recording_ids] == [r.recording_id for r in refs]
    assert [s for b in batches for s in b.start_s] == [r.start / SFREQ for r in refs]
    (one,) = label_batches(store, refs[:2], None, n_times=100, sfreq=SFREQ, batch_size=5)
    assert one.target is None


def test_targets_must_match_windows(store):
    options = {"n_times": 100, "sfreq": SFREQ}
    with pytest.raises(ConfigError, match="1 targets for 2 windows"):
        label_batches(store, [WindowRef("d_sub-0", 0)] * 2, [1], batch_size=2, **options)
    with pytest.raises(ConfigError, match="batch_size must be positive, got 0"):
        label_batches(store, [], [], batch_size=0, **options)


class Faulty:
    """A store in which one recording cannot be read."""

    def __init__(self, store, error, forkable=False):
        self.store, self.error, self.forkable = store, error, forkable
        self.index, self.sensors, self.expect = store.index, store.sensors, store.expect
        self.reads = 0

    def read_standard_into(self, recording_id, start, out):
        self.reads += 1
        if recording_id == "d_sub-3":
            raise self.error
        self.store.read_standard_into(recording_id, start, out)


@pytest.mark.parametrize("forkable", [False, True])
@pytest.mark.parametrize("error", [StoreError("chunk 3 is damaged"), MemoryError("no more")])
def test_an_error_of_a_worker_names_the_recording(store, error, forkable):
    faulty = Faulty(store, error, forkable)
    seen = []
    with pytest.raises(type(error), match=str(error)) as caught:
        seen.extend(make_loader(faulty, workers=2))
    assert any("d_sub-3" in note for note in caught.value.__notes__)
    # all batches before the bad one came through, in order
    whole = [key(b) for b in make_loader(store)]
    assert [key(b) for b in seen] == whole[: len(seen)]
    assert not any("d_sub-3" in b.recording_ids for b in seen)


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("neurofm-loader")]


def test_a_consumer_that_stops_early_leaves_no_thread(store):
    for batch in make_loader(store, parallel="threads", workers=3, last_step=10_000):
        assert len(batch)
        break
    del batch
    deadline = time.monotonic() + 600
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loader_threads() == []


def test_no_more_is_made_ahead_than_asked(store):
    reader = Faulty(store, None)
    plan = make_plan(store, token_budget=1)  # one window a batch
    good = WindowPlan(
        store.index[store.index["recording_id"] != "d_sub-3"],
        n_times=plan.n_times,
        patches=1,
        token_budget=1,
        seed=0,
    )
    batches = iter(make_loader(reader, good, workers=2, prefetch=3, last_step=50))
    next(batches)
    time.sleep(0.2)
    assert reader.reads <= 1 + 3
    batches.close()


def test_what_was_not_begun_is_dropped_when_the_consumer_stops(store):
    class Slow(Faulty):
        def read_standard_into(self, recording_id, start, out):
            super().read_standard_into(recording_id, start, out)
            time.sleep(0.05)

    reader = Slow(store, None)
    plan = WindowPlan(
        store.index[store.index["recording_id"] != "d_sub-3"],
        n_times=100,
        patches=1,
        token_budget=1,
        seed=0,
    )
    batches = iter(make_loader(reader, plan, workers=1, prefetch=30, last_step=40))
    next(batches)
    batches.close()
    assert reader.reads <= 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rank": 2, "world": 2}, "rank 2 of 2: ranks count from 0"),
        ({"first_step": 5, "last_step": 4}, "steps 5 to 4 do not go forward"),
        ({"n_times": 50}, "reads 50 samples a window, the plan has 100"),
    ],
)
def test_options_that_contradict_are_refused(store, options, match):
    with pytest.raises(ConfigError, match=match):
        make_loader(store, **options)


def test_a_loader_works_inside_a_worker_process(store):
    class Steps(torch.utils.data.IterableDataset):
        def __iter__(self):
            return (key(b) for b in make_loader(store, last_step=5))

    workers = torch.utils.data.DataLoader(
        Steps(), batch_size=None, num_workers=1, collate_fn=lambda batch: batch
    )
    assert list(workers) == [key(b) for b in make_loader(store, last_step=5)]


def test_the_plan_reads_the_store_index(store):
    assert isinstance(store.index, pd.DataFrame)
    assert make_plan(store).n_windows > 100

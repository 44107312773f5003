"""Memory that is used again, and counts that are scaled late."""

import gc

import numpy as np
import pytest
import torch

from neurofm.contract import SignalContract
from neurofm.data.buffers import Buffers
from neurofm.data.collate import collate
from neurofm.data.loader import Loader
from neurofm.data.plan import WindowPlan, WindowRef
from neurofm.data.several import SeveralReaders
from neurofm.errors import ConfigError, StoreError
from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording


def make_store(path, channels=(3, 5), clip=4.0, dataset="d"):
    """Recordings with 3 and 5 channels, one channel of each with an artefact."""
    create_store(path, SignalContract(sfreq=100.0, band_hz=(0.5, 40.0), window_s=1.0, clip=clip))
    rng, rows = np.random.default_rng(0), []
    for i, n in enumerate(channels):
        signal = rng.normal(scale=1e-5, size=(n, 1250)).astype(np.float32)
        signal[0, 600] = 1e-2
        recording = Recording(
            signal=signal,
            sfreq=100.0,
            sensors=Sensors(
                ch_names=tuple(f"E{c}" for c in range(n)),
                kind=np.full(n, SensorKind.EEG, np.int8),
                position=np.zeros((n, 3), np.float32),
                orientation=np.zeros((n, 3), np.float32),
                known=np.full(n, Knowledge.ABSENT, np.int8),
                oriented=np.zeros(n, bool),
                region=(None,) * n,
            ),
            entities=Entities(dataset=dataset, subject=str(i)),
        )
        rows.append(write_recording(path, recording, quality={}, provenance={}))
    commit(path, rows)
    return open_store(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("buffers") / "store")


def make_loader(reader, **options):
    plan = WindowPlan(reader.index, n_times=100, patches=1, token_budget=12, seed=0)
    return Loader(
        reader, plan, n_times=100, sfreq=100.0, last_step=2 * plan.steps_per_epoch, **options
    )


# ---------------------------------------------------------------------------------------
# Memory


def test_memory_that_nobody_holds_is_used_again():
    buffers = Buffers(2)
    seen = set()
    for size in (1000, 900, 1000, 30, 999):
        tensor = buffers.take((size, 50), np.float32)
        assert tensor.shape == (size, 50)
        tensor.fill_(1.0)
        seen.add(tensor.data_ptr())
        del tensor
    assert len(seen) == 1


@pytest.mark.parametrize(
    "keep", [lambda t: t, lambda t: t[3], lambda t: t.numpy(), lambda t: t.detach().view(-1)]
)
def test_memory_that_somebody_holds_is_not(keep):
    buffers = Buffers(4)
    tensor = buffers.take((8, 4), np.int16).fill_(7)
    kept = keep(tensor)
    del tensor
    gc.collect()
    for _ in range(5):
        buffers.take((8, 4), np.int16).fill_(-1)
    assert (np.asarray(kept) == 7).all()


def test_free_memory_is_bounded():
    buffers = Buffers(2)
    held = [buffers.take((4,), np.float32) for _ in range(6)]
    assert len({t.data_ptr() for t in held}) == 6
    held.clear()
    assert len(buffers._free) == 2


def test_memory_far_too_large_is_not_tied_up():
    buffers = Buffers(2)
    large = buffers.take((2**25,), np.uint8)
    place = large.data_ptr()
    del large
    assert buffers.take((10,), np.uint8).data_ptr() != place


def test_an_empty_batch_takes_no_memory_of_others():
    assert Buffers(1).take((0, 5, 100), np.int16).shape == (0, 5, 100)


# ---------------------------------------------------------------------------------------
# Counts


@pytest.mark.parametrize("options", [{}, {"rank": 1, "world": 2}, {"workers": 3}])
def test_scaled_late_or_early_the_numbers_are_the_same(store, options):
    early, late = make_loader(store, **options), make_loader(store, scale_late=True, **options)
    clipped = False
    for now, later in zip(early, late, strict=True):
        assert later.signal.dtype == torch.int16
        for batch in (later.to("cpu"), later.standardised(), now.standardised()):
            assert batch.scale is None
            torch.testing.assert_close(batch.signal, now.signal, rtol=0, atol=0)
            assert batch.recording_ids == now.recording_ids
        clipped |= bool((now.signal.abs() == 4.0).any())
    assert clipped or options


def test_padding_stays_zero_however_it_is_scaled(store):
    refs = (WindowRef("d_sub-0", 0), WindowRef("d_sub-1", 7))
    batch = collate(store, refs, 100, sfreq=100.0, n_channels=6, scale_late=True)
    assert batch.scale.shape == (2, 6)
    assert not batch.signal[0, 3:].any()
    assert not batch.to("cpu").signal[0, 3:].any()
    assert not batch.scale[0, 3:].any()


def test_counts_come_from_several_stores_as_from_one(store, tmp_path):
    other = make_store(tmp_path / "other", channels=(4,), dataset="e")
    both = SeveralReaders({"a": store, "b": other})
    names = set()
    for now, later in zip(make_loader(both), make_loader(both, scale_late=True), strict=True):
        torch.testing.assert_close(later.to("cpu").signal, now.signal, rtol=0, atol=0)
        names |= set(now.recording_ids)
    assert {"d_sub-0", "e_sub-0"} <= names


def test_stores_that_clip_differently_are_not_scaled_late(store, tmp_path):
    other = make_store(tmp_path / "other", clip=5.0, dataset="e")
    with pytest.raises(StoreError, match=r"clip at different magnitudes: \[4.0, 5.0\]"):
        make_loader(SeveralReaders({"a": store, "b": other}), scale_late=True)


class OnlyStandard:
    """A reader without counts."""

    def __init__(self, store):
        self.index, self.sensors, self.expect = store.index, store.sensors, store.expect
        self.read_standard_into = store.read_standard_into


def test_a_reader_without_counts_cannot_be_scaled_late(store):
    reader = OnlyStandard(store)
    assert len(next(iter(make_loader(reader))))
    with pytest.raises(ConfigError, match="OnlyStandard does not hand on counts"):
        make_loader(reader, scale_late=True)
    with pytest.raises(StoreError, match="OnlyStandard holds no counts"):
        SeveralReaders({"a": reader}).read_counts_into("d_sub-0", 0, np.empty((3, 5), np.int16))


def same(batch):
    """Return what a batch holds, as plain values that another process can send."""
    return batch.recording_ids, batch.start_s, batch.to("cpu").signal.numpy().tobytes()


class Steps(torch.utils.data.IterableDataset):
    """A loader inside a worker process."""

    def __init__(self, store):
        self.store = store

    def __iter__(self):
        return (same(batch) for batch in make_loader(self.store, scale_late=True))


def as_it_is(item):
    return item


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_used_loader_goes_on_inside_a_worker(store, method):
    expected = [same(batch) for batch in make_loader(store)]
    workers = torch.utils.data.DataLoader(
        Steps(store),
        batch_size=None,
        num_workers=1,
        collate_fn=as_it_is,
        multiprocessing_context=method,
    )
    assert list(workers) == expected

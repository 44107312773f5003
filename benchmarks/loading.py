"""Random 10 s windows, 64 channels x 200 Hz: the store beside how others store and load them.

All in one run, round by round in turn, because only ratios taken side by side mean anything:

    python benchmarks/loading.py            # about 500 MB of float32 each, some minutes
    python benchmarks/loading.py --mb 4000 --folder /scratch

The yardstick is what most scripts do: windows in one float32 memmap behind a DataLoader. Its
windows, and those of the other projects, lie where they were cut; those of the store start at
any sample, unless it says so. "Warm" is read from the page cache. Before a "cold" round
everything is closed, and every file synced and dropped from the cache by `posix_fadvise`.
What starting takes (workers, first batches) is not counted, for anyone.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _peers
import numpy as np
import scipy.signal
import torch
import zarr
from numcodecs import blosc

from neurofm.contract import SignalContract
from neurofm.data.buffers import Buffers
from neurofm.data.collate import collate
from neurofm.data.loader import Loader
from neurofm.data.plan import Parallel, WindowPlan
from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.reader import Store, open_store
from neurofm.store.writer import commit, create_store, write_recording

N_CHANNELS, SFREQ, WINDOW_S, RECORDING_S = 64, 200.0, 10.0, 605.0
N_TIMES, PER_RECORDING = int(SFREQ * WINDOW_S), int(RECORDING_S // WINDOW_S)
WINDOW_MB = N_CHANNELS * N_TIMES * 4 / 1e6
BATCH = _peers.BATCH
ZERO, TWO = "memmap, DataLoader, 0 workers", "memmap, DataLoader, 2 workers"


@dataclass(frozen=True)
class Way:
    """One way to load: `start` opens everything afresh and yields batch after batch."""

    name: str
    start: Callable[[], Iterator[Any]]
    skip: int = 2  # batches that are made while it starts
    share: float = 1.0  # slow ways read fewer windows

    def seconds(self, n_windows: int, files: Path | None) -> float:
        """Return the seconds a window takes; cold if there are files to drop from the cache."""
        if files is not None:
            gc.collect()  # closes what was read, and unmaps it
            drop_from_cache(files)
        n_batches = max(1, int(n_windows * self.share) // BATCH)
        batches = self.start()
        for _ in range(self.skip):
            next(batches)
        start = time.perf_counter()
        for _ in range(n_batches):
            next(batches)
        return (time.perf_counter() - start) / n_batches / BATCH


def drop_from_cache(folder: Path) -> None:
    """Drop every file of a folder from the system's page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)  # what is not written yet cannot be dropped
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def read_into_cache(folder: Path) -> None:
    """Read every file of a folder once."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(2**24):
                    pass


def make_signal(seed: int, n_times: int) -> np.ndarray:
    """Return band-passed noise that falls off like EEG, with artefacts, in volts."""
    rng = np.random.default_rng(seed)
    sos = scipy.signal.butter(2, [0.5, 45], "band", fs=SFREQ, output="sos")
    noise = rng.standard_normal((N_CHANNELS, n_times)).astype(np.float32)
    signal = scipy.signal.sosfilt(sos, np.cumsum(noise, axis=1) + 2 * noise, axis=1)
    signal *= 2e-5 / signal.std(axis=1, keepdims=True)
    signal[:, rng.integers(0, n_times, 5)] *= 40  # electrode pops set the largest count
    return signal.astype(np.float32)


def make_store(path: Path, n_recordings: int, chunk_s: float | None) -> Store:
    """Write the recordings into a store."""
    contract = SignalContract(sfreq=SFREQ, band_hz=(0.5, 45.0), window_s=WINDOW_S)
    create_store(path, contract, chunk_s=chunk_s)
    zeros = np.zeros((N_CHANNELS, 3), np.float32)
    sensors = Sensors(
        ch_names=tuple(f"E{i}" for i in range(N_CHANNELS)),
        kind=np.full(N_CHANNELS, SensorKind.EEG, np.int8),
        position=zeros,
        orientation=zeros,
        known=np.full(N_CHANNELS, Knowledge.ABSENT, np.int8),
        oriented=np.zeros(N_CHANNELS, bool),
        region=(None,) * N_CHANNELS,
    )
    rows = []
    for i in range(n_recordings):
        recording = Recording(
            signal=make_signal(i, int(RECORDING_S * SFREQ)),
            sfreq=SFREQ,
            sensors=sensors,
            entities=Entities(dataset="bench", subject=f"{i:04d}"),
        )
        rows.append(write_recording(path, recording, quality={}, provenance={}))
    commit(path, rows)
    return open_store(path)


# ---------------------------------------------------------------------------------------
# Ways


def batches_of(path: Path, *, counts: bool = False, aligned: bool = False) -> Iterator[Any]:
    """Read window after window of a store in one thread."""
    store, rng = open_store(path), np.random.default_rng()
    ids = store.index["recording_id"].tolist()
    out = np.zeros((BATCH, N_CHANNELS, N_TIMES), np.int16 if counts else np.float32)
    read = store.read_counts_into if counts else store.read_standard_into
    while True:
        for i in range(BATCH):
            if aligned:
                start = int(rng.integers(PER_RECORDING)) * N_TIMES
            else:
                start = int(rng.integers(int(RECORDING_S * SFREQ) - N_TIMES))
            read(ids[int(rng.integers(len(ids)))], start, out[i])
        yield out


def batches_of_zarr(path: Path) -> Iterator[Any]:
    """Read the same store with zarr-python."""
    store, rng = open_store(path), np.random.default_rng()
    group = zarr.open(str(path), mode="r")
    names = store.index["recording_id"].tolist()
    arrays = [group[f"recordings/{name}/signal"] for name in names]
    scales = [store.standard_scale(name)[:, None] for name in names]
    out = np.zeros((BATCH, N_CHANNELS, N_TIMES), np.float32)
    while True:
        for i in range(BATCH):
            k, start = (int(rng.integers(n)) for n in (len(arrays), arrays[0].shape[1] - N_TIMES))
            np.multiply(arrays[k][:, start : start + N_TIMES], scales[k], out=out[i])
        yield out


def limit(path: Path, *, decode: bool) -> Iterator[Any]:
    """Do what two threads must do at least, chunk by chunk in random order, and nothing else."""
    store = open_store(path)
    arrays = [store._array(name) for name in store.index["recording_id"]]
    shards = [a.open_shard(n) for a in arrays for n in range(a.grid.n_shards)]
    chunks = [
        (shard.fd, *extent)
        for shard in shards
        for slot in range(len(shard.verified))
        if (extent := shard.extent(range(slot, slot + 1)))
    ]
    outs = np.empty((8, BATCH, N_CHANNELS, N_TIMES), np.int16)

    def fill(numbers: Sequence[int], number: int) -> None:
        encoded, mine = memoryview(bytearray(arrays[0].grid.chunk_bytes)), outs[number % len(outs)]
        for i in [] if decode else numbers:  # all requests of a batch at once
            os.posix_fadvise(*chunks[i], os.POSIX_FADV_WILLNEED)
        for i, out in zip(numbers, mine, strict=True):
            fd, offset, length = chunks[i]
            os.preadv(fd, [encoded[:length]], offset)
            if decode:
                blosc.decompress(encoded[: length - 4], out)

    order = itertools.cycle(np.random.default_rng().permutation(len(chunks)).tolist())
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(2 if decode else 4) as executor:
        for number in itertools.count():
            pending.append(executor.submit(fill, list(itertools.islice(order, BATCH)), number))
            if len(pending) > 4:
                yield pending.popleft().result()


def ways_of_store(path: Path) -> list[Way]:
    """Our own ways: window by window, batches in one thread, and the loader."""
    steps = iter(range(10**9))

    def plan_of(store: Store) -> WindowPlan:
        budget = N_CHANNELS * int(WINDOW_S) * BATCH
        return WindowPlan(
            store.index, n_times=N_TIMES, patches=int(WINDOW_S), token_budget=budget, seed=0
        )

    def collated() -> Iterator[Any]:
        store, buffers = open_store(path), Buffers(3)
        plan = plan_of(store)
        while True:
            yield collate(store, plan.batch(next(steps)), N_TIMES, sfreq=SFREQ, buffers=buffers)

    def loader(
        scale_late: bool, standardise: bool = False, parallel: Parallel = "auto"
    ) -> Iterator[Any]:
        store, first = open_store(path), next(steps) * 50
        for batch in Loader(
            store,
            plan_of(store),
            n_times=N_TIMES,
            sfreq=SFREQ,
            first_step=first,
            last_step=first + 10**6,
            workers=2,
            parallel=parallel,
            scale_late=scale_late,
        ):
            yield batch.standardised() if standardise else batch

    return [
        Way("store, direct", lambda: batches_of(path)),
        Way("store, direct, cut as memmap", lambda: batches_of(path, aligned=True)),
        Way("store, direct, counts", lambda: batches_of(path, counts=True)),
        Way("store, batches, one thread", collated),
        Way("store, Loader, float32", lambda: loader(False), skip=7),
        Way("store, Loader (default)", lambda: loader(True), skip=7),
        Way("  threads in place of processes", lambda: loader(True, parallel="threads"), skip=7),
        Way("  and scaled by the consumer", lambda: loader(True, standardise=True), skip=7),
        Way("zarr-python, same store", lambda: batches_of_zarr(path), share=0.1),
        Way("limit: read, decode, no more", lambda: limit(path, decode=True), skip=7),
        Way("limit: read, no more", lambda: limit(path, decode=False), skip=7),
    ]


def ways_of_others(store: Store, folder: Path, wanted: list[str]) -> list[Way]:
    """Write the same windows as others do; return how they load them."""
    shape = (len(store) * PER_RECORDING, N_CHANNELS, N_TIMES)

    def windows() -> Iterator[np.ndarray]:
        out = np.empty(shape[1:], np.float32)
        for recording_id in store.index["recording_id"]:
            for start in range(0, PER_RECORDING * N_TIMES, N_TIMES):
                store.read_standard_into(recording_id, start, out)
                yield out

    signals = [lambda n=name: store.recording(n).signal for name in store.index["recording_id"]]
    makers: dict[str, Callable[[Path], _peers.Opened]] = {
        "memmap": lambda f: _peers.memmap(f, shape, windows),
        "h5py": lambda f: _peers.hdf5(f, shape, windows),
        "LMDB": lambda f: _peers.lmdb(f, shape, windows),
        "litdata": lambda f: _peers.litdata(f, shape, windows),
        "braindecode, FIF": lambda f: _peers.braindecode(f, signals, SFREQ, N_TIMES),
    }
    ways = []
    for name, make in makers.items():
        if name != "memmap" and name not in wanted:
            continue
        part = folder / name.replace(", ", "-")
        part.mkdir()
        opened = make(part)
        for workers in (0, 2):
            suffix = f"DataLoader, {workers} workers"
            share = 0.2 if name.startswith("braindecode") and workers else 1.0
            start = lambda o=opened, w=workers: iter(o(w))  # noqa: E731 - bound here
            ways.append(Way(f"{name}, {suffix}", start, 2 * workers + 1, share))
    return ways


# ---------------------------------------------------------------------------------------


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=500, help="size as float32, in megabytes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, default=640, help="windows a round")
    parser.add_argument("--chunk-s", type=float, help="by default the store's own choice")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    peers = ["h5py", "LMDB", "litdata", "braindecode, FIF"]
    parser.add_argument("--peers", nargs="*", default=peers, help="beside memmap")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="neurofm-loading-", dir=args.folder))
    try:
        n_recordings = max(2, round(args.mb / WINDOW_MB / PER_RECORDING))
        store = make_store(folder / "store", n_recordings, args.chunk_s)
        n_windows = min(args.windows, (n_recordings * PER_RECORDING // BATCH - 8) * BATCH)
        ways = ways_of_others(store, folder, args.peers) + ways_of_store(folder / "store")
        found: dict[tuple[str, bool], list[float]] = {}
        read_into_cache(folder)
        for cold in (False, True):
            for turn in range(args.rounds + (not cold)):
                for way in ways:
                    seconds = way.seconds(n_windows, folder if cold else None)
                    if turn or cold:  # the first warm round warms up
                        found.setdefault((way.name, cold), []).append(seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    size = store.index["duration_s"].sum() * SFREQ * N_CHANNELS * 4
    smaller = size / store.index["n_bytes"].sum()
    print(f"{size / 1e6:.0f} MB as float32, {smaller:.2f} times smaller in the store")
    show([way.name for way in ways], found)


def show(names: list[str], found: dict[tuple[str, bool], list[float]]) -> None:
    """Print windows a second, and ratios to the memmap: medians over rounds, paired."""
    print("windows/s; times the memmap behind a DataLoader, lowest and highest in brackets\n")
    print(f"{'':33}{'warm':>8}{'to 0w':>7}{'to 2w':>19}{'cold':>9}{'to 2w':>19}")
    for name in names:
        line = f"{name:33}"
        for cold in (False, True):
            own = found[name, cold]
            line += f"{1 / statistics.median(own):>{9 if cold else 8}.0f}"
            for base in (TWO,) if cold else (ZERO, TWO):
                ratios = [b / a for a, b in zip(own, found[base, cold], strict=True)]
                middle = statistics.median(ratios)
                line += f"{middle:>7.2f}"
                if base == TWO:
                    line += f" ({min(ratios):.2f}-{max(ratios):.2f})".rjust(12)
        print(line)


if __name__ == "__main__":
    main()

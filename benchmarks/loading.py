"""Random 10 s windows, 64 channels x 200 Hz: the store beside memmap, zarr-python and h5py.

All in one run, round by round in turn, because only ratios taken side by side mean anything:

    python benchmarks/loading.py            # about 500 MB, under two minutes
    python benchmarks/loading.py --mb 4000

The yardstick is what most scripts do: windows in one float32 memmap behind a DataLoader. Its
windows, and those of h5py, lie where they were cut; those of the store start at any sample.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.signal
import torch
import zarr

from neurofm.contract import SignalContract
from neurofm.data.collate import collate
from neurofm.data.loader import Loader
from neurofm.data.plan import WindowPlan
from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.reader import Store, open_store
from neurofm.store.writer import commit, create_store, write_recording

LIMIT = "copy in memory, the limit"
YARDSTICK = "memmap, DataLoader, 0 workers"
WORKERS = "memmap, DataLoader, 2 workers"
N_CHANNELS, SFREQ, WINDOW_S, RECORDING_S = 64, 200.0, 10.0, 600
N_TIMES = int(SFREQ * WINDOW_S)
WINDOW_MB = N_CHANNELS * N_TIMES * 4 / 1e6
BATCH = 16
TOKEN_BUDGET = N_CHANNELS * int(WINDOW_S) * BATCH


@dataclass(frozen=True)
class Way:
    """One way to read windows: call it with how many, and it returns the seconds it took."""

    name: str
    run: Callable[[int], float]
    share: float = 1.0  # slow ways read fewer windows


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


def window_major(store: Store) -> Iterator[np.ndarray]:
    """Yield the same windows, standardised, one after another."""
    out = np.empty((N_CHANNELS, N_TIMES), np.float32)
    for recording_id in store.index["recording_id"]:
        for start in range(0, int(RECORDING_S * SFREQ), N_TIMES):
            store.read_standard_into(recording_id, start, out)
            yield out


class MemmapWindows(torch.utils.data.Dataset):
    """Windows of one memmap, as a map-style data set."""

    def __init__(self, path: Path):
        self.windows = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.windows[i]))


def behind_dataloader(path: Path, workers: int) -> Callable[[int], float]:
    """Return a way to read a memmap through torch's DataLoader, workers started beforehand."""
    windows = MemmapWindows(path)

    def run(n: int) -> float:
        n += BATCH * (2 * workers + 1)  # the first batches are made while workers start
        sampler = torch.utils.data.RandomSampler(windows, replacement=True, num_samples=n)
        loader = torch.utils.data.DataLoader(
            windows, BATCH, sampler=sampler, num_workers=workers, drop_last=True
        )
        batches = iter(loader)
        for _ in range(2 * workers + 1):
            next(batches)
        start = time.perf_counter()
        for _ in batches:
            pass
        return time.perf_counter() - start

    return run


def each(read: Callable[[int], object], n_windows: int) -> Callable[[int], float]:
    """Return a way that calls `read` with random window numbers."""
    rng = np.random.default_rng(1)

    def run(n: int) -> float:
        numbers = rng.integers(0, n_windows, n).tolist()
        start = time.perf_counter()
        for number in numbers:
            read(number)
        return time.perf_counter() - start

    return run


def ways_of_store(store: Store) -> list[Way]:
    """Our own ways: one process without and with batches, and the threaded loader."""
    ids = store.index["recording_id"].tolist()
    last = int(store.index["n_times"].iloc[0]) - N_TIMES
    out = np.empty((BATCH, N_CHANNELS, N_TIMES), np.float32)
    plan = WindowPlan(
        store.index, n_times=N_TIMES, patches=int(WINDOW_S), token_budget=TOKEN_BUDGET, seed=0
    )
    rng = np.random.default_rng(2)

    def direct(number: int) -> None:
        name = ids[number % len(ids)]
        store.read_standard_into(name, int(rng.integers(0, last)), out[number % BATCH])

    def aligned(number: int) -> None:
        start = number // len(ids) % (last // N_TIMES) * N_TIMES
        store.read_standard_into(ids[number % len(ids)], start, out[number % BATCH])

    def batches(n: int) -> float:
        start = time.perf_counter()
        for step in range(n // BATCH):
            collate(store, plan.batch(step), N_TIMES, sfreq=SFREQ)
        return time.perf_counter() - start

    def threaded(threads: int) -> Callable[[int], float]:
        def run(n: int) -> float:
            loader = Loader(
                store, plan, n_times=N_TIMES, sfreq=SFREQ, last_step=n // BATCH, threads=threads
            )
            start = time.perf_counter()
            for _ in loader:
                pass
            return time.perf_counter() - start

        return run

    return [
        Way("store, direct", each(direct, 10**6)),
        Way("store, direct, cut as memmap", each(aligned, 10**6)),
        Way("store, batches, one thread", batches),
        Way("store, Loader, 1 thread", threaded(1)),
        Way("store, Loader, 2 threads", threaded(2)),
    ]


def ways_of_others(store: Store, folder: Path) -> list[Way]:
    """Read the same windows by memmap, h5py and zarr-python."""
    n_windows = len(store) * int(RECORDING_S // WINDOW_S)
    shape = (n_windows, N_CHANNELS, N_TIMES)
    path = folder / "windows.npy"
    memmap = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    file = h5py.File(folder / "windows.h5", "w")
    chunked = file.create_dataset("windows", shape, np.float32, chunks=(1, N_CHANNELS, N_TIMES))
    for i, window in enumerate(window_major(store)):
        memmap[i] = chunked[i] = window
    memmap.flush()
    file.flush()
    memory = np.array(memmap[: min(n_windows, 500)])
    out = np.empty((BATCH, N_CHANNELS, N_TIMES), np.float32)
    names = store.index["recording_id"].tolist()
    arrays = [zarr.open(str(store.path), mode="r")[f"recordings/{n}/signal"] for n in names]
    scales = [
        np.asarray(a.attrs["scale"], np.float32)[:, None] / store.divisor(name)[:, None]
        for a, name in zip(arrays, names, strict=True)
    ]
    rng = np.random.default_rng(3)

    def in_file(number: int) -> None:
        chunked.read_direct(out, np.s_[number], np.s_[number % BATCH])

    def plain(number: int) -> None:
        i = number % len(arrays)
        start = int(rng.integers(0, arrays[i].shape[1] - N_TIMES))
        np.multiply(arrays[i][:, start : start + N_TIMES], scales[i], out=out[number % BATCH])

    return [
        Way(LIMIT, each(lambda i: np.copyto(out[i % BATCH], memory[i]), len(memory))),
        Way("memmap, copied", each(lambda i: np.copyto(out[i % BATCH], memmap[i]), n_windows)),
        Way(YARDSTICK, behind_dataloader(path, 0)),
        Way(WORKERS, behind_dataloader(path, 2)),
        Way("h5py, chunk = window", each(in_file, n_windows)),
        Way("zarr-python, same store", each(plain, 10**6), share=0.1),
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=500, help="size as float32, in megabytes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--windows", type=int, default=640, help="windows a round")
    parser.add_argument("--chunk-s", type=float, help="by default the store's own choice")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="neurofm-loading-", dir=args.folder))
    try:
        per_recording = WINDOW_MB * RECORDING_S / WINDOW_S
        store = make_store(folder / "store", max(2, round(args.mb / per_recording)), args.chunk_s)
        ways = ways_of_others(store, folder) + ways_of_store(store)
        rates: dict[str, list[float]] = {way.name: [] for way in ways}
        for turn in range(args.rounds + 1):
            for way in ways:
                n = max(BATCH, int(args.windows * way.share) // BATCH * BATCH)
                seconds = way.run(n)
                if turn:  # the first round warms up
                    rates[way.name].append(n / seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(store, rates)


def show(store: Store, rates: dict[str, list[float]]) -> None:
    """Print the table."""
    size = store.index["duration_s"].sum() * SFREQ * N_CHANNELS * 4
    smaller = size / store.index["n_bytes"].sum()
    base, workers = (statistics.median(rates[name]) for name in (YARDSTICK, WORKERS))
    print(f"{size / 1e6:.0f} MB as float32, {smaller:.2f} times smaller in the store; warm;")
    print("medians over the rounds, lowest and highest in brackets; ratio to the DataLoader")
    print(
        f"with 0 and with 2 workers\n\n{'':31}{'windows/s':>10}{'GB/s':>27}{'to 0w':>8}{'to 2w':>8}"
    )
    for name, found in rates.items():
        rate = statistics.median(found)
        spread = f"({min(found):.0f}-{max(found):.0f})"
        print(
            f"{name:31}{rate:>10.0f} {spread:>17}{rate * WINDOW_MB / 1e3:>9.2f}"
            f"{rate / base:>8.2f}{rate / workers:>8.2f}"
        )


if __name__ == "__main__":
    main()

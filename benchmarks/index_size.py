"""A store of very many recordings: how long opening takes, the first batch, and how much memory.

The recordings are simulated: a few are written, and the folders of all others are links to
them, so that index, groups and shards are read exactly as in a store of that size.

    python benchmarks/index_size.py                 # 100 000 recordings
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from neurofm.contract import SignalContract
from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Entities, Event, Recording
from neurofm.store.index import SCHEMA
from neurofm.store.writer import commit, create_store, write_recording

WRITTEN, SFREQ, WINDOW_S, MINUTES = 20, 200.0, 10.0, 2.0
CHANNELS = (19, 32, 64, 128)


def make_store(path: Path, n_recordings: int) -> None:
    """Write a few recordings, and an index and folders of many."""
    create_store(path, SignalContract(sfreq=SFREQ, band_hz=(0.5, 70.0), window_s=WINDOW_S))
    rows = [write_one(path, i) for i in range(WRITTEN)]
    commit(path, rows)
    table = pd.DataFrame(rows).sort_values("recording_id", ignore_index=True)
    table = table.iloc[np.arange(n_recordings) % WRITTEN].reset_index(drop=True)
    names = [Entities(dataset="bench", subject=f"{i:07d}").recording_id for i in range(len(table))]
    recordings = path / "recordings"
    for name, origin in zip(names, table["recording_id"], strict=True):
        if not (recordings / name).exists():
            (recordings / name).symlink_to(origin, target_is_directory=True)
    table["recording_id"] = names
    table["subject"] = [name.rpartition("-")[2] for name in names]
    table["source"] = [f"sub-{s}/eeg/sub-{s}_task-rest_eeg.edf" for s in table["subject"]]
    table["source_hash"] = [f"{i:064x}" for i in range(len(table))]
    pq.write_table(pa.Table.from_pandas(table, SCHEMA), path / "index.parquet", compression="zstd")


def write_one(path: Path, number: int) -> dict[str, object]:
    """Write one recording, a bad stretch in its middle."""
    rng = np.random.default_rng(number)
    n = CHANNELS[number % len(CHANNELS)]
    sensors = Sensors(
        ch_names=tuple(f"E{c}" for c in range(n)),
        kind=np.full(n, SensorKind.EEG, np.int8),
        position=rng.normal(scale=0.1, size=(n, 3)).astype(np.float32),
        orientation=np.zeros((n, 3), np.float32),
        known=np.full(n, Knowledge.MEASURED, np.int8),
        oriented=np.zeros(n, bool),
        region=(None,) * n,
    )
    recording = Recording(
        signal=rng.normal(scale=1e-5, size=(n, int(MINUTES * 60 * SFREQ))).astype(np.float32),
        sfreq=SFREQ,
        sensors=sensors,
        entities=Entities(dataset="bench", subject=f"{number:07d}"),
        events=(Event(onset_s=50.0, duration_s=5.0, description="BAD_jump"),),
    )
    return write_recording(path, recording, quality={}, provenance={})


def measure(path: Path) -> None:
    """Open, plan, make the first batch and a hundred more; print what each took."""
    from neurofm.data.loader import Loader
    from neurofm.data.plan import WindowPlan
    from neurofm.store.reader import open_store

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    store = open_store(path)
    opened = time.perf_counter()
    plan = WindowPlan(
        store.index,
        n_times=store.contract.n_times,
        patches=int(WINDOW_S),
        token_budget=8192,
        seed=0,
    )
    batches = iter(
        Loader(store, plan, n_times=plan.n_times, sfreq=SFREQ, last_step=200, scale_late=True)
    )
    next(batches)
    first = time.perf_counter()
    windows = sum(len(next(batches)) for _ in range(100))
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + private_of_children()
    print(len(store), plan.n_windows, opened - start, first - start, windows / (end - first))
    print(before, peak)


def private_of_children() -> float:
    """Return the megabytes that child processes do not share with this one."""
    total = 0
    for child in multiprocessing.active_children():
        for line in Path(f"/proc/{child.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private"):
                total += int(line.split()[1])
    return total / 1024


def main() -> None:
    """Measure in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        measure(args.read)
        return
    print("seconds to open, and from there to the first batch; MB resident: imports, and the peak")
    columns = ("recordings", "windows", "open s", "first s", "windows/s", "imports", "peak MB")
    print("".join(f"{name:>12}" for name in columns))
    for n in args.recordings:
        folder = Path(tempfile.mkdtemp(prefix="neurofm-index-"))
        try:
            make_store(folder / "store", n)
            rounds = []
            for _ in range(args.rounds):
                command = [sys.executable, __file__, "--read", str(folder / "store")]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rounds.append([float(value) for value in done.stdout.split()])
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        found = [statistics.median(values) for values in zip(*rounds, strict=True)]
        formats = ("12.0f", "12.0f", "12.3f", "12.3f", "12.0f", "12.0f", "12.0f")
        print("".join(format(v, f) for v, f in zip(found, formats, strict=True)))


if __name__ == "__main__":
    main()

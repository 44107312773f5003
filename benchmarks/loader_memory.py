"""Peak memory of going through a store with the Loader, for stores of growing size.

Each store is read in a process of its own. What grows is the page cache of the system, which
is not the process's; the resident set should not.

    python benchmarks/loader_memory.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from neurofm.contract import SignalContract
from neurofm.data.loader import Loader
from neurofm.data.plan import WindowPlan
from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording

SFREQ, WINDOW_S, N_CHANNELS = 200.0, 4.0, 32


def make_store(path: Path, n_recordings: int, minutes: float) -> None:
    """Write noise."""
    create_store(path, SignalContract(sfreq=SFREQ, band_hz=(0.5, 70.0), window_s=WINDOW_S))
    rng = np.random.default_rng(0)
    signal = rng.normal(scale=1e-5, size=(N_CHANNELS, int(minutes * 60 * SFREQ))).astype(np.float32)
    for i in range(n_recordings):
        sensors = Sensors(  # positions differ, as after digitising every head
            ch_names=tuple(f"E{c}" for c in range(N_CHANNELS)),
            kind=np.full(N_CHANNELS, SensorKind.EEG, np.int8),
            position=rng.normal(scale=0.1, size=(N_CHANNELS, 3)).astype(np.float32),
            orientation=np.zeros((N_CHANNELS, 3), np.float32),
            known=np.full(N_CHANNELS, Knowledge.MEASURED, np.int8),
            oriented=np.zeros(N_CHANNELS, bool),
            region=(None,) * N_CHANNELS,
        )
        entities = Entities(dataset="bench", subject=f"{i:05d}")
        recording = Recording(signal=signal, sfreq=SFREQ, sensors=sensors, entities=entities)
        commit(path, [write_recording(path, recording, quality={}, provenance={})])


def read_all(path: Path, workers: int) -> None:
    """Go through one epoch; print windows, and megabytes before and after."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = open_store(path)
    n_times = store.contract.n_times
    plan = WindowPlan(
        store.index, n_times=n_times, patches=int(WINDOW_S), token_budget=4096, seed=0
    )
    loader = Loader(
        store, plan, n_times=n_times, sfreq=SFREQ, last_step=plan.steps_per_epoch, workers=workers
    )
    windows = sum(len(batch) for batch in loader)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(windows, before / 1024, after / 1024)


def main() -> None:
    """Measure stores of N, 2N, 4N and 8N recordings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=40, help="in the smallest store")
    parser.add_argument("--minutes", type=float, default=1.0, help="length of a recording")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read_all(args.read, args.workers)
        return
    print(f"{'recordings':>10}{'windows':>10}{'MB float32':>12}{'MB before':>11}{'peak MB':>9}")
    with tempfile.TemporaryDirectory(prefix="neurofm-memory-") as folder:
        for factor in (1, 2, 4, 8):
            n = args.recordings * factor
            path = Path(folder) / str(n)
            make_store(path, n, args.minutes)
            command = [
                sys.executable,
                __file__,
                "--read",
                str(path),
                "--workers",
                str(args.workers),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            windows, before, after = (float(value) for value in done.stdout.split())
            size = n * args.minutes * 60 * SFREQ * N_CHANNELS * 4 / 1e6
            print(f"{n:>10}{windows:>10.0f}{size:>12.0f}{before:>11.0f}{after:>9.0f}")


if __name__ == "__main__":
    main()

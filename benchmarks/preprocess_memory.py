"""Peak memory of preprocessing: over the number of recordings, and over the length of one.

Usage: python benchmarks/preprocess_memory.py [N] [workers]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import mne
import numpy as np
import psutil
import yaml

from neurofm.electrodes import template_positions

N_CHANNELS, SFREQ, DURATION_S = 32, 250.0, 120.0
LENGTHS_MIN = (60, 240)  # what is filtered of either does not stay in memory
EVERY_S = 0.02


def main(n: int = 8, workers: int = 2) -> None:
    """Print peaks and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for count in (n, 4 * n):
            peak, seconds = measure(Path(folder) / str(count), count, DURATION_S, workers)
            peaks.append(peak)
            print(f"{count:4d} recordings, {workers} workers: peak {peak:6.0f} MB, {seconds:.1f} s")
        print(f"ratio {peaks[1] / peaks[0]:.2f}")
        peaks = []
        for minutes in LENGTHS_MIN:
            peak, seconds = measure(Path(folder) / f"{minutes}min", 1, minutes * 60, 0)
            peaks.append(peak)
            print(f"one of {minutes:4.0f} min, no workers: peak {peak:6.0f} MB, {seconds:.1f} s")
        print(f"ratio {peaks[1] / peaks[0]:.2f}")


def measure(folder: Path, count: int, duration_s: float, workers: int) -> tuple[float, float]:
    """Return the peak resident megabytes of the command and its workers, and its seconds."""
    write_recordings(folder / "raw", count, duration_s)
    values = {
        "dataset": "noise",
        "root": str(folder / "raw"),
        "store": str(folder / "store"),
        "contract": {"sfreq": SFREQ, "band_hz": [0.5, 45], "window_s": 4.0},
        "sources": [{}],
        "workers": workers,
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "neurofm.cli", "preprocess", str(config)],
                               stdout=subprocess.DEVNULL)  # fmt: skip
    peak = [0.0]
    watcher = threading.Thread(target=watch, args=(psutil.Process(process.pid), peak))
    watcher.start()
    status = process.wait()
    seconds = time.perf_counter() - start
    watcher.join()
    if status:
        sys.exit(f"preprocessing ended with status {status}")
    return peak[0], seconds


def write_recordings(folder: Path, count: int, duration_s: float) -> None:
    """Write FIF files of noise at positions of the 10-05 system."""
    folder.mkdir(parents=True)
    names = list(template_positions())[:N_CHANNELS]
    info = mne.create_info(names, SFREQ, "eeg")
    rng = np.random.default_rng(0)
    for number in range(count):
        signal = 2e-5 * rng.standard_normal((N_CHANNELS, int(SFREQ * duration_s)))
        raw = mne.io.RawArray(signal, info, verbose="error")
        raw.save(folder / f"sub-{number:04d}_raw.fif", verbose="error")


def watch(process: psutil.Process, peak: list[float]) -> None:
    """Follow the memory of a process and its children until it ends."""
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        total = 0
        for member in [process, *children(process)]:
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak[0] = max(peak[0], total / 1e6)
        time.sleep(EVERY_S)


def children(process: psutil.Process) -> list[psutil.Process]:
    """Return a process's children; none once it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

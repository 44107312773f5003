"""One recording from file to store: neurofm beside the usual chain of MNE, in turn, in one run.

64 channels, 500 Hz, 30 minutes, BrainVision: notch, band-pass 0.1-75 Hz, 200 Hz, average reference.

    python benchmarks/preprocess_speed.py                # five rounds, about four minutes
    python benchmarks/preprocess_speed.py --format int16 --rounds 3

Every measurement is a process of its own, which has imported everything and made a small
recording before the clock starts; the file is in the page cache. Ours ends when the recording is
in the store and synced, with its hash, quality and scale; MNE's when `raw.save` returns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402  (after the number of threads is set)

N_CHANNELS, SFREQ, LINE_HZ = 64, 500.0, 50.0
BAND_HZ, TO_HZ = (0.1, 75.0), 200.0
FORMATS = {"float32": ("IEEE_FLOAT_32", "<f4", 1.0), "int16": ("INT_16", "<i2", 0.1)}
AT_ONCE = 3  # recordings that each of two processes makes side by side
WAYS = ("ours", "mne", "read", "limit")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--format", choices=FORMATS, default="float32")
    parser.add_argument("--folder", type=Path, help="where the files go; by default temporary")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FILE", "N"), help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        write_recording(args.make / "rec", args.minutes * 60, args.format)
        write_recording(args.make / "small", 30, args.format)
        return
    if args.one:
        one(args.one[0], Path(args.one[1]), int(args.one[2]))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        file = Path(folder) / "rec.vhdr"
        # in another process, as a child's peak memory begins at what its parent holds
        make = [sys.executable, __file__, "--make", folder, "--format", args.format]
        subprocess.run([*make, "--minutes", str(args.minutes)], check=True)
        megabytes = file.with_suffix(".eeg").stat().st_size / 1e6
        print(f"{N_CHANNELS} ch, {SFREQ:g} Hz, {args.minutes:g} min, {args.format}: "
              f"{megabytes:.0f} MB")  # fmt: skip
        rounds = [{way: measure(way, file) for way in WAYS} for _ in range(args.rounds)]
        single = [measure("ours", file, AT_ONCE)["s"] for _ in range(args.rounds)]
        double = [side_by_side(file) for _ in range(args.rounds)]
    table(rounds, args.minutes * 60)
    print(f"difference from MNE's result: {rounds[0]['ours']['difference']:.1e} (relative RMS)")
    gain = statistics.median(2 * a / b for a, b in zip(single, double, strict=True))
    print(
        f"{AT_ONCE / statistics.median(single):.2f} recordings/s in one process, "
        f"{2 * AT_ONCE / statistics.median(double):.2f} in two: {gain:.2f} times"
    )


def table(rounds: list[dict[str, dict[str, float]]], duration_s: float) -> None:
    """Print a line for each way, with ratios within each round."""
    print(f"{'':34s}{'s':>7s}{'x real time':>13s}{'MNE / this':>12s}{'peak MB':>9s}")
    names = {
        "ours": "neurofm, file to store",
        "mne": "MNE chain, file to FIF",
        "read": "neurofm, reading alone",
        "limit": "copying the bytes in and out",
    }
    for way in WAYS:
        seconds = statistics.median(r[way]["s"] for r in rounds)
        ratio = statistics.median(r["mne"]["s"] / r[way]["s"] for r in rounds)
        peak = statistics.median(r[way]["peak_mb"] for r in rounds)
        print(f"{names[way]:34s}{seconds:7.2f}{duration_s / seconds:13.0f}{ratio:12.1f}{peak:9.0f}")
    share = statistics.median(r["read"]["s"] / r["ours"]["s"] for r in rounds)
    memory = statistics.median(r["ours"]["peak_mb"] / r["mne"]["peak_mb"] for r in rounds)
    print(f"reading is {share:.0%} of ours; memory is {memory:.2f} of MNE's")


def measure(way: str, file: Path, n: int = 1) -> dict[str, float]:
    """Return what one process measured."""
    process = start(way, file, n)
    return finish(process)


def side_by_side(file: Path) -> float:
    """Return the seconds until two processes have each made their recordings."""
    processes = [start("ours", file, AT_ONCE) for _ in range(2)]
    begun = time.perf_counter()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.stdout.readline()
    seconds = time.perf_counter() - begun
    for process in processes:
        process.wait()
    return seconds


def start(way: str, file: Path, n: int) -> subprocess.Popen[str]:
    """Start a process and wait until it is warm."""
    command = [sys.executable, __file__, "--one", way, str(file), str(n)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    if process.stdout.readline() != "ready\n":
        sys.exit(f"{way} did not start")
    return process


def finish(process: subprocess.Popen[str]) -> dict[str, float]:
    """Let a warm process work, and return what it says."""
    told, _ = process.communicate("go\n")
    if process.returncode:
        sys.exit(f"ended with status {process.returncode}")
    return json.loads(told)


# ---------------------------------------------------------------------------------------
# In a process of its own


def one(way: str, file: Path, n: int) -> None:
    """Warm up, wait for a line, work, and say how long it took and how much memory."""
    act: Callable[[Path, Path], Any] = {"ours": ours, "mne": by_mne, "read": read, "limit": limit}[
        way
    ]
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        act(file.with_name("small.vhdr"), Path(folder) / "warm")
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.perf_counter()
        for number in range(n):
            act(file, Path(folder) / str(number))
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        told = {"s": seconds, "peak_mb": peak}
        if way == "ours" and n == 1:
            told["difference"] = difference(Path(folder) / "0", file, Path(folder))
        print(json.dumps(told), flush=True)


def ours(file: Path, to: Path) -> None:
    """Do what a worker process does with a recording."""
    from neurofm.contract import SignalContract
    from neurofm.preprocessing.make import preprocess_one
    from neurofm.preprocessing.sources import SourceConfig
    from neurofm.preprocessing.task import Task
    from neurofm.signals import Entities
    from neurofm.store.writer import commit, create_store

    contract = SignalContract(
        sfreq=TO_HZ, band_hz=BAND_HZ, window_s=10.0, reference={"eeg": "average"}
    )
    create_store(to, contract)
    task = Task(
        path=file,
        relative=file.name,
        entities=Entities(dataset="made", subject="1"),
        source=SourceConfig(),
        contract=contract,
        store=to,
    )
    outcome = preprocess_one(task)
    if outcome.row is None:
        sys.exit(str(outcome.error))
    commit(to, [outcome.row])


def by_mne(file: Path, to: Path) -> None:
    """Do the same in the usual order."""
    import mne

    raw = mne.io.read_raw(file, preload=True, verbose="error")
    raw.pick("eeg", verbose="error")
    raw.notch_filter([LINE_HZ], verbose="error")
    raw.filter(*BAND_HZ, verbose="error")
    raw.resample(TO_HZ, npad=100, verbose="error")
    raw.set_eeg_reference("average", verbose="error")
    raw.save(f"{to}_raw.fif", overwrite=True, verbose="error")


def read(file: Path, to: Path) -> None:
    """Read all samples as the engine does."""
    import mne

    from neurofm.preprocessing.from_mne import RawReader
    from neurofm.signals import Entities

    raw = mne.io.read_raw(file, verbose="error")
    reader = RawReader(raw, Entities(dataset="made", subject="1"))
    samples = reader.read if reader.direct is None else reader.direct.read
    for start in range(0, reader.n_times, 4096):
        samples(start, min(start + 4096, reader.n_times))


def limit(file: Path, to: Path) -> None:
    """Read every byte, and write and sync as many as the store will have."""
    n_bytes = 0
    with file.with_suffix(".eeg").open("rb") as samples:
        while block := samples.read(1 << 20):
            n_bytes += len(block)
    with to.open("wb") as out:
        for _ in range(n_bytes // 12 >> 20):  # 200 of 500 Hz, and a fifth of float32
            out.write(block or bytes(1 << 20))
        os.fsync(out.fileno())


def difference(store: Path, file: Path, folder: Path) -> float:
    """Return the relative RMS difference of both results, rounding to counts included."""
    import mne

    from neurofm.store.reader import open_store

    by_mne(file, folder / "check")
    theirs = mne.io.read_raw(folder / "check_raw.fif", verbose="error")
    opened = open_store(store)
    (name,) = opened.index["recording_id"]
    mine = opened.recording(name).signal
    n = min(mine.shape[1], 60_000)
    reference = theirs.get_data(stop=n)
    return float(np.sqrt(np.mean((mine[:, :n] - reference) ** 2) / np.mean(reference**2)))


# ---------------------------------------------------------------------------------------
# What is read


def write_recording(path: Path, duration_s: float, kind: str) -> Path:
    """Write noise that falls off like EEG, with mains and offsets; return the header's path."""
    from neurofm.electrodes import template_positions

    binary, dtype, resolution = FORMATS[kind]
    names = list(template_positions())[:N_CHANNELS]
    n_times = int(duration_s * SFREQ)
    rng = np.random.default_rng(0)
    slope = np.sqrt(np.maximum(np.fft.rfftfreq(n_times, 1 / SFREQ), 0.1))
    mains = 3 * np.sin(2 * np.pi * LINE_HZ * np.arange(n_times) / SFREQ)
    signal = np.empty((n_times, N_CHANNELS), dtype)
    for channel in range(N_CHANNELS):
        row = np.fft.irfft(np.fft.rfft(rng.standard_normal(n_times)) / slope, n_times)
        row = 20 * row / row.std() + mains + 100 * rng.standard_normal()
        signal[:, channel] = row / resolution
    signal.tofile(path.with_suffix(".eeg"))
    header = [
        "Brain Vision Data Exchange Header File Version 1.0", "", "[Common Infos]",
        "Codepage=UTF-8", f"DataFile={path.name}.eeg", f"MarkerFile={path.name}.vmrk",
        "DataFormat=BINARY", "DataOrientation=MULTIPLEXED", f"NumberOfChannels={N_CHANNELS}",
        f"SamplingInterval={1e6 / SFREQ:g}", "", "[Binary Infos]", f"BinaryFormat={binary}", "",
        "[Channel Infos]",
        *(f"Ch{i}={name},,{resolution:g},µV" for i, name in enumerate(names, 1)),
    ]  # fmt: skip
    markers = [
        "Brain Vision Data Exchange Marker File, Version 1.0", "", "[Common Infos]",
        "Codepage=UTF-8", f"DataFile={path.name}.eeg", "", "[Marker Infos]",
        "Mk1=New Segment,,1,1,0,20200101000000000000",
    ]  # fmt: skip
    path.with_suffix(".vmrk").write_text("\n".join(markers) + "\n", encoding="utf-8")
    path.with_suffix(".vhdr").write_text("\n".join(header) + "\n", encoding="utf-8")
    return path.with_suffix(".vhdr")


if __name__ == "__main__":
    main()

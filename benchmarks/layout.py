"""What decided how the store lies on disk: codec, length of a chunk, and what rounding costs.

    python benchmarks/layout.py
    python benchmarks/layout.py --data ../data      # the error by sensor kind, on real files

Times are of the processor, per window of 10 s of 64 channels at 200 Hz, in one thread: other
work on the machine disturbs them less than it does the clock.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mne
import numpy as np
import scipy.signal
from loading import (
    BATCH,
    N_CHANNELS,
    N_TIMES,
    RECORDING_S,
    SFREQ,
    batches_of,
    batches_of_zarr,
    make_signal,
    make_store,
    read_into_cache,
)
from numcodecs import Blosc

from neurofm.contract import SignalContract, robust_sd
from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording

CODECS: dict[str, Blosc | None] = {
    "raw": None,
    "lz4": Blosc("lz4", 5, Blosc.NOSHUFFLE),
    "lz4 + shuffle": Blosc("lz4", 5, Blosc.SHUFFLE),
    "lz4 + bitshuffle, level 1": Blosc("lz4", 1, Blosc.BITSHUFFLE),
    "lz4 + bitshuffle, level 5": Blosc("lz4", 5, Blosc.BITSHUFFLE),
    "lz4 + bitshuffle, level 9": Blosc("lz4", 9, Blosc.BITSHUFFLE),
    "zstd 1 + bitshuffle": Blosc("zstd", 1, Blosc.BITSHUFFLE),
    "zstd 3 + bitshuffle": Blosc("zstd", 3, Blosc.BITSHUFFLE),
}
# file under --data, the channels to take, and what they are
FILES: tuple[tuple[str, str, SensorKind], ...] = (
    ("eegmmidb/S001/S001R01.edf", "eeg", SensorKind.EEG),
    ("meg/neuromag/*.fif", "mag", SensorKind.MAG),
    ("meg/neuromag/*.fif", "grad", SensorKind.GRAD_PLANAR),
    ("meg/ctf/*.ds", "mag", SensorKind.GRAD_AXIAL),
    ("meg/opm/*.fif", "mag", SensorKind.OPM),
    ("ieeg/seeg/*.edf", "eeg", SensorKind.SEEG),
    ("ieeg/ecog/*.fif", "ecog", SensorKind.ECOG),
)
READABLE = {"T": (1e15, "fT"), "V": (1e6, "uV"), "T/m": (1e13, "fT/cm")}


def cpu_us(run: Callable[[], object], n_windows: int, rounds: int) -> float:
    """Return the median microseconds of processor time a window."""
    found = []
    for turn in range(rounds + 1):
        start = time.process_time()
        run()
        if turn:
            found.append((time.process_time() - start) / n_windows * 1e6)
    return statistics.median(found)


def show_codecs(rounds: int) -> None:
    """Print size and decoding time of int16 counts and of float32, by codec."""
    signal = make_signal(0, int(600 * SFREQ))
    counts = np.rint(signal / robust_sd(signal)[:, None] * 256)
    counts = np.clip(counts, -32767, 32767).astype(np.int16)
    print(f"{'chunk = a quarter window':36}{'times smaller':>14}{'decode, us':>12}")
    for dtype, samples in (("int16", counts), ("float32", signal)):
        parts = np.split(samples, samples.shape[1] * 4 // N_TIMES, axis=1)
        parts = [np.ascontiguousarray(part) for part in parts]
        for name, codec in CODECS.items():
            encoded = [part.tobytes() if codec is None else codec.encode(part) for part in parts]
            smaller = signal.nbytes / sum(map(len, encoded))
            out = np.empty_like(parts[0])

            def decode(codec: Blosc | None = codec, encoded: list[bytes] = encoded) -> None:
                for data in encoded:
                    if codec is None:
                        out.reshape(-1)[:] = np.frombuffer(data, out.dtype)  # noqa: B023
                    else:
                        codec.decode(data, out)  # noqa: B023

            time_us = cpu_us(decode, len(parts) // 4, rounds)
            print(f"{dtype + ', ' + name:36}{smaller:>14.2f}{time_us:>12.0f}")


def show_chunks(folder: Path, rounds: int) -> None:
    """Print what a window costs by the length of a chunk."""
    print(f"\n{'':16}{'times':>9}{'any start':>11}{'any start':>11}{'cut alike':>11}", end="")
    print(f"{'zarr-python':>13}\n{'chunk':16}{'smaller':>9}{'float32':>11}{'counts':>11}", end="")
    print(f"{'float32':>11}{'any start':>13}")
    for chunk_s in (0.5, 1.0, 2.5, 5.0, 10.0):
        path = folder / f"{chunk_s:g}"
        store = make_store(path, 6, chunk_s)
        read_into_cache(path)
        size = store.index["duration_s"].sum() * SFREQ * N_CHANNELS * 4
        line = f"{chunk_s:g} s of 10 s".ljust(16)
        line += f"{size / store.index['n_bytes'].sum():>9.2f}"
        for batches, n, width in (
            (batches_of(path), 20, 11),
            (batches_of(path, counts=True), 20, 11),
            (batches_of(path, aligned=True), 20, 11),
            (batches_of_zarr(path), 2, 13),
        ):
            line += f"{cpu_us(lambda b=batches, n=n: take(b, n), n * BATCH, rounds):>{width}.0f}"
        print(line)


def take(batches: Iterator[Any], n: int) -> None:
    """Draw some batches."""
    for _ in range(n):
        next(batches)


def show_errors(data: Path, folder: Path) -> None:
    """Write real signals, read them back, and print how far they are off, by kind."""
    print(f"\n{'kind':13}{'channels':>9}{'robust SD':>20}{'step':>13}{'rms error':>13}", end="")
    print(f"{'below SD':>10}{'worst':>13}{'held':>6}")
    for pattern, picks, kind in FILES:
        path = next(iter(sorted(data.glob(pattern))), None)
        if path is not None:
            show_error(path, picks, kind, folder / kind.label)


def show_error(path: Path, picks: str, kind: SensorKind, folder: Path) -> None:
    """Print the line of one file; "held" are samples beyond what counts reach."""
    raw = mne.io.read_raw(path, verbose="error").pick(picks, verbose="error")
    if auxiliary := [name for name in raw.ch_names if name.startswith(("DC", "EKG"))]:
        raw.drop_channels(auxiliary)
    signal = scipy.signal.detrend(raw.get_data(), axis=1)
    varies = robust_sd(signal.astype(np.float32)) > 0
    signal = signal[varies].astype(np.float32)
    n, sfreq = len(signal), float(raw.info["sfreq"])
    sensors = Sensors(
        ch_names=tuple(f"C{i}" for i in range(n)),
        kind=np.full(n, kind, np.int8),
        position=np.zeros((n, 3), np.float32),
        orientation=np.zeros((n, 3), np.float32),
        known=np.full(n, Knowledge.ABSENT, np.int8),
        oriented=np.zeros(n, bool),
        region=(None,) * n,
    )
    recording = Recording(
        signal=signal, sfreq=sfreq, sensors=sensors, entities=Entities(dataset="d", subject="1")
    )
    contract = SignalContract(
        sfreq=sfreq, band_hz=(0.1, sfreq / 3), window_s=100 / sfreq, kinds=(kind.label,)
    )
    create_store(folder, contract)
    commit(folder, [write_recording(folder, recording, quality={}, provenance={})])
    store = open_store(folder)
    error = np.abs(store.recording(recording.recording_id).signal - signal).astype(np.float64)
    quality = store.quality(recording.recording_id)
    sd = robust_sd(signal)
    step = np.median(np.asarray(quality["step_over_sd"]) * sd)
    rms = np.sqrt((error**2).mean(axis=1))
    times, unit = READABLE[kind.unit]
    below = f"{-20 * np.log10(np.median(rms / sd)):.0f} dB"
    print(
        f"{kind.label:13}{n:>9}{np.median(sd) * times:>14.3g} {unit:5}"
        f"{step * times:>13.3g}{np.median(rms) * times:>13.3g}{below:>10}"
        f"{error.max() * times:>13.3g}{sum(quality['saturated']):>6}"
    )


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the real recordings")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="neurofm-layout-"))
    try:
        print(f"windows of {RECORDING_S:g} s recordings, {N_CHANNELS} channels at {SFREQ:g} Hz\n")
        show_codecs(args.rounds)
        show_chunks(folder, args.rounds)
        if args.data:
            show_errors(args.data, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

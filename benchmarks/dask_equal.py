"""The same recordings by local workers and by a Dask cluster: bytes compared, seconds beside.

Usage: python benchmarks/dask_equal.py [RECORDINGS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import edfio
import numpy as np

from neurofm.config import parse_config
from neurofm.preprocessing.run import CONFIG, run

NAMES = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Fz", "Cz", "Pz")
SFREQ, DURATION_S = 256, 120
WAYS: dict[str, dict[str, Any]] = {
    "this process": {"workers": 0},
    "2 worker processes": {"workers": 2},
    "Dask, 2 workers": {"cluster": {"name": "local", "workers": 2}},
}


def main(n: int = 12) -> None:
    """Print the seconds of each way; exit with 1 if a byte differs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder / "raw", n)
        stores = {}
        for way, values in WAYS.items():
            start = time.perf_counter()
            store = folder / way.replace(" ", "-")
            run(parse_config(CONFIG, config(folder, store) | values, where="benchmark"))
            seconds = time.perf_counter() - start
            stores[way] = contents(store)
            size = sum(map(len, stores[way].values())) / 1e6
            print(f"{way:20s} {seconds:6.1f} s, {len(stores[way])} files, {size:.1f} MB")
    first, *others = stores.values()
    equal = all(other == first for other in others)
    print("every byte is equal" if equal else "the stores differ")
    sys.exit(not equal)


def config(folder: Path, store: Path) -> dict[str, Any]:
    """Return the values that all ways share."""
    return {
        "dataset": "made",
        "root": str(folder / "raw"),
        "store": str(store),
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 4.0},
        "sources": [{}],
    }


def write_recordings(folder: Path, n: int) -> None:
    """Write EDF files of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(n):
        signals = [
            edfio.EdfSignal(row, SFREQ, label=name, physical_dimension="uV")
            for name, row in zip(
                NAMES, 20 * rng.standard_normal((len(NAMES), SFREQ * DURATION_S)), strict=True
            )
        ]
        edfio.Edf(signals).write(folder / f"sub-{number:03d}_eeg.edf")


def contents(store: Path) -> dict[str, bytes]:
    """Return every byte of a store, by file."""
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Peak memory of pretraining over a store and over one eight times its size.

    python benchmarks/pretrain_memory.py [--recordings 20] [--growth 8]

Each run is a process of its own; its peak resident size is what the kernel recorded. The
limit is what the samples of the larger store would add, were they all held: it is printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mne
import numpy as np

from neurofm.contract import SignalContract
from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities, Recording
from neurofm.store.writer import commit, create_store, write_recording

CONTRACT = SignalContract(sfreq=128, band_hz=(0.5, 45), window_s=4)
NAMES = ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T7", "T8"]
CONFIG = """
stores: [{store}]
folder: {folder}
encoder:
  width: 64
  tokenizer: {{name: linear_patch, patch_s: 0.5}}
  backbone: {{name: transformer, depth: 2, n_heads: 4, attention: criss_cross}}
steps: 60
accelerator: cpu
"""


def make_store(path: Path, n_recordings: int, minutes: float) -> int:
    """Write noise recordings; return the bytes of their samples as float32."""
    create_store(path, CONTRACT)
    sensors = sensors_from_info(mne.create_info(NAMES, 128.0, "eeg"))
    draw = np.random.default_rng(0)
    shape = (len(NAMES), int(minutes * 60 * 128))
    rows = []
    for i in range(n_recordings):
        recording = Recording(
            signal=1e-5 * draw.standard_normal(shape, dtype=np.float32),
            sfreq=128.0,
            sensors=sensors,
            entities=Entities(dataset="noise", subject=str(i)),
        )
        rows.append(write_recording(path, recording, quality={}, provenance={}))
    commit(path, rows)
    return n_recordings * shape[0] * shape[1] * 4


def peak_mib(folder: Path, store: Path) -> float:
    """Pretrain in a process of its own; return its peak resident size in MiB."""
    config = folder / f"{store.name}.yaml"
    config.write_text(CONFIG.format(store=store, folder=folder / f"run-{store.name}"))
    child = subprocess.Popen(
        [sys.executable, "-m", "neurofm.cli", "pretrain", str(config)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"pretraining failed with status {status}")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Print both peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--growth", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peaks = []
        for n in (args.recordings, args.growth * args.recordings):
            size = make_store(folder / f"store{n}", n, args.minutes)
            peaks.append(peak_mib(folder, folder / f"store{n}"))
            print(
                f"{n:5d} recordings, {size / 2**20:7.0f} MiB of samples: peak {peaks[-1]:.0f} MiB"
            )
        print(f"growth of the peak: {peaks[1] - peaks[0]:+.0f} MiB")


if __name__ == "__main__":
    main()

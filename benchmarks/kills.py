"""Runs that are killed, disks that fill, targets that cannot be written: what is left of them.

Whatever happens in the middle, the store must verify, and the same command must then complete
it: every byte as in a store that nothing happened to.

Usage: python benchmarks/kills.py [ROUNDS] [SEED]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from neurofm.store.reader import open_store

N_RECORDINGS, N_CHANNELS, SFREQ, DURATION_S = 12, 16, 256, 120
FULL_ROUNDS = 3  # of a disk that holds a part of the store, another part each time
READY_S = 60.0


def main(rounds: int = 6, seed: int = 0) -> None:
    """Print what happened in each round; exit with 1 if a store was left wrong."""
    rng = np.random.default_rng(seed)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_cohort(folder)
        start = time.perf_counter()
        require(command(config, folder / "whole").wait() == 0, "undisturbed", wrong)
        whole_s = time.perf_counter() - start
        truth = contents(folder / "whole")
        print(f"{N_RECORDINGS} recordings undisturbed: {whole_s:.1f} s")
        for number in range(rounds):
            who = ("parent", "worker", "worker and parent")[number % 3]
            store = folder / f"store-{number}"
            times = killed(config, store, who, rng)
            same(store, truth, f"round {number}, kill -9 of {who}", wrong)
            print(f"round {number}: {who} killed {times} times, then completed")
        n_bytes = sum(map(len, truth.values()))
        for share in rng.uniform(0.2, 0.9, FULL_ROUNDS):
            disk_full(config, folder, round(share * n_bytes), truth, wrong)
        read_only(config, folder, truth, wrong)
    print(f"{len(wrong)} wrong", *wrong, sep="\n  ")
    sys.exit(bool(wrong))


def write_cohort(folder: Path) -> Path:
    """Write EDF files of noise and a config; return the config."""
    import edfio

    (folder / "raw").mkdir()
    rng = np.random.default_rng(1)
    names = ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T7", "T8",
             "Fz", "Cz"]  # fmt: skip
    for number in range(N_RECORDINGS):
        signals = [
            edfio.EdfSignal(
                20 * rng.standard_normal(SFREQ * DURATION_S),
                SFREQ,
                label=name,
                physical_dimension="uV",
            )
            for name in names[:N_CHANNELS]
        ]
        edfio.Edf(signals).write(folder / "raw" / f"sub-{number:02d}_eeg.edf")
    values = {
        "dataset": "made",
        "root": str(folder / "raw"),
        "store": "given on the command line",
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2.0},
        "sources": [{}],
        "workers": 2,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "config.yaml"


def command(config: Path, store: Path) -> subprocess.Popen[bytes]:
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "neurofm.cli", "preprocess", str(config), f"store={store}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def killed(config: Path, store: Path, who: str, rng: np.random.Generator) -> int:
    """Start the command again and again, and kill it at random moments, until it completes."""
    times = 0
    while True:
        process = command(config, store)
        # after some attempts it is left alone
        if times < 3:
            reached = len(made(store)) + int(rng.integers(3))
            until(partial(_reached, store, reached, process.pid), process)
            time.sleep(float(rng.uniform(0.0, 0.5)))
            for pid in workers_of(process.pid)[:1] if "worker" in who else []:
                kill(pid)
                times += 1
            if "parent" in who and process.poll() is None:
                kill(process.pid)
                times += 1
                process.communicate()
                continue
        process.communicate()
        # a recording that twice lost its worker is refused, and tried again by the next run
        if times >= 3:
            return times
        times += 1


def _reached(store: Path, n: int, pid: int) -> bool:
    return len(made(store)) >= n and bool(workers_of(pid))


def kill(pid: int) -> None:
    """Kill a process, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a run."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    )
    lines = listed.stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "preprocessing.worker" in line]


def disk_full(
    config: Path, folder: Path, n_bytes: int, truth: dict[str, bytes], wrong: list[str]
) -> None:
    """Run into the end of a small disk; give it space; run again."""
    disk = folder / "disk"
    if not mount(disk, f"size={n_bytes}"):
        print("disk full: not tried, no permission to mount a small disk")
        return
    try:
        said = failing(config, disk / "store", "disk full", wrong)
        require(b"cannot be written" in said, f"disk full: says {said[-200:]!r}", wrong)
        n = len(open_store(disk / "store").index)
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        finish(config, disk / "store", truth, "disk full", wrong)
        print(f"disk full after {n} recordings: stopped, said so, then completed")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def read_only(config: Path, folder: Path, truth: dict[str, bytes], wrong: list[str]) -> None:
    """Lose the permission to write in the middle, and have none from the start."""
    disk = folder / "disk"
    if not mount(disk, "size=1g"):
        print("read-only: not tried, no permission to mount a disk")
        return
    try:
        process = command(config, disk / "store")
        until(lambda: len(made(disk / "store")) > 2, process)
        # a disk with files open for writing cannot be made read-only at once, as no real one can
        while subprocess.run(
            ["mount", "-o", "remount,ro", str(disk)], capture_output=True
        ).returncode:
            if process.poll() is not None:
                break
        said = process.communicate()[1]
        require(process.returncode in (0, 2), f"read-only: status {process.returncode}", wrong)
        early = process.returncode == 0
        require(early or b"Read-only" in said, f"read-only: says {said[-200:]!r}", wrong)
        said = failing(config, disk / "store", "read-only", wrong)
        require(b"Read-only" in said, f"read-only: says {said[-200:]!r}", wrong)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        finish(config, disk / "store", truth, "read-only", wrong)
        print(f"read-only {'after it was done' if early else 'in the middle'}: then completed")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def mount(disk: Path, options: str) -> bool:
    """Make a disk of memory."""
    disk.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True
    )
    return made.returncode == 0


def failing(config: Path, store: Path, what: str, wrong: list[str]) -> bytes:
    """Run the command, which must end with an error that is told, not with a traceback."""
    process = command(config, store)
    said = process.communicate(timeout=300)[1]
    require(process.returncode == 2, f"{what}: status {process.returncode}", wrong)
    require(b"Traceback" not in said, f"{what}: {said[-400:]!r}", wrong)
    return said


def finish(config: Path, store: Path, truth: dict[str, bytes], what: str, wrong: list[str]) -> None:
    """Run the command again, which must complete the store."""
    process = command(config, store)
    said = process.communicate(timeout=300)[1]
    require(process.returncode == 0, f"{what}, again: {said[-300:]!r}", wrong)
    same(store, truth, what, wrong)


def same(store: Path, truth: dict[str, bytes], what: str, wrong: list[str]) -> None:
    """Compare a store with the undisturbed one."""
    wrong += [f"{what}: {problem}" for problem in open_store(store).verify()]
    have = contents(store)
    differing = sorted(
        name for name in truth.keys() | have.keys() if truth.get(name) != have.get(name)
    )
    told = [
        f"{name} ({len(have.get(name, b''))} bytes of {len(truth.get(name, b''))})"
        for name in differing[:5]
    ]
    require(not differing, f"{what}: differs in {', '.join(told)}", wrong)


def contents(store: Path) -> dict[str, bytes]:
    """Return every byte of a store, by file."""
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def made(store: Path) -> list[Path]:
    """Return the recordings in place."""
    folder = store / "recordings"
    return [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []


def until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait for something, while a process runs."""
    end = time.monotonic() + READY_S
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


def require(fine: bool, what: str, wrong: list[str]) -> None:
    """Remember what is not as it must be."""
    if not fine:
        wrong.append(what)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

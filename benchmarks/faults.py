"""Thousands of damaged files through `neurofm preprocess`: what is refused, kept, and wrong.

Every batch is one run over damaged copies of a small recording of each format. The run must
end; every file must have a row; what is kept must be finite, verified, and of the size that the
undamaged recording has.

Usage: python benchmarks/faults.py [DATA] [N] [SEED]; DATA is NEUROFM_TEST_DATA by default
"""

from __future__ import annotations

import collections
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from mutations import Base, bases, mutate

from neurofm.config import parse_config
from neurofm.errors import SourceError
from neurofm.preprocessing.report import read_report
from neurofm.preprocessing.run import CONFIG, run
from neurofm.store.reader import Store, open_store

BATCH = 500
TIMEOUT_S = 20.0
MEMORY = 6 << 30  # bytes of address space: a damaged size must not take the machine
WRONG_UNIT = 300.0  # a mistake in the unit is 1e3 or more
# a reader that crashes or hangs costs its own file, which is refused and says so
CONTAINED = {"WorkerDied", "TimedOut"}
OURS = {"SourceError", "SignalError", "SensorError", "ConfigError", "ContractError"}
CONTRACT = {"sfreq": 128, "band_hz": [0.5, 40.0], "window_s": 0.5}


@dataclass
class Count:
    """What came out so far.

    Attributes
    ----------
    verdicts : Counter
        (format, kept or kind of refusal) -> files.
    faults : list of str
        What must not happen.
    contained : list of str
        Files whose reader crashed or hung, and cost nothing else.
    seconds : float
        Of the runs.
    workers : int
        Processes of the runs.
    """

    verdicts: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)
    contained: list[str] = field(default_factory=list)
    seconds: float = 0.0
    workers: int = 2


def main(data: str = "", n: int = 1000, seed: int = 0) -> None:
    """Print a table by format, and every fault."""
    data = data or os.environ.get("NEUROFM_TEST_DATA", "")
    if not (Path(data) / "MANIFEST.md").is_file():
        print("no real recordings to damage: say where they are, or set NEUROFM_TEST_DATA")
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        count = damage(Path(data), Path(folder), n, seed)
    table(count)
    total = sum(count.verdicts.values())
    print(f"{total} files in {count.seconds:.0f} s: {total / count.seconds:.0f} files/s")
    print(f"{len(count.contained)} contained", *count.contained, sep="\n  ")
    print(f"{len(count.faults)} faults", *count.faults, sep="\n  ")
    sys.exit(bool(count.faults))


def damage(
    data: Path, folder: Path, n: int, seed: int, *, only: Collection[str] = (), workers: int = 2
) -> Count:
    """Run `n` damaged files of all formats, or `only` of some, in batches."""
    kinds = [b for b in bases(data, folder / "scratch") if not only or b.name in only]
    count = Count(workers=workers)
    sound = folder / "sound"
    for base in kinds:
        base.write(sound / base.name / "0")
    truth = _sizes(open_store(_run(kinds, sound, folder / "truth", count)))
    count.faults += [f"{b.name}: not kept though undamaged" for b in kinds if b.name not in truth]
    count.seconds = 0.0
    rng = np.random.default_rng(seed)
    for start in range(0, n, BATCH):
        batch = folder / "batch"
        told = {}
        for number in range(start, min(n, start + BATCH)):
            base = kinds[int(rng.integers(len(kinds)))]
            files, what = mutate(base, rng)
            base.write(batch / base.name / str(number), files)
            told[f"{base.name}/{number}"] = what
        store = _run(kinds, batch, folder / "store", count)
        _judge(store, told, truth, count)
        shutil.rmtree(batch)
        shutil.rmtree(store)
    return count


def _run(kinds: list[Base], root: Path, store: Path, count: Count) -> Path:
    sources = [
        {
            "root": base.name,
            "include": [f"*/{base.main}"],
            "pattern": f"{{subject}}/{base.main}",
            "task": base.name,
            **base.source,
        }
        for base in kinds
        if (root / base.name).is_dir()
    ]
    values: dict[str, Any] = {
        "dataset": "damaged",
        "root": str(root),
        "store": str(store),
        "contract": CONTRACT,
        "sources": sources,
        "workers": count.workers,
        "timeout_s": TIMEOUT_S,
    }
    start = time.perf_counter()
    try:
        run(parse_config(CONFIG, values, where="faults"))
    except SourceError as error:
        if "could be kept" not in error.problem:
            raise
    count.seconds += time.perf_counter() - start
    return store


# ---------------------------------------------------------------------------------------
# Judging


def _judge(
    store: Path, told: dict[str, str], truth: dict[str, dict[str, float]], count: Count
) -> None:
    """Count the rows of the report, and look for what must not happen."""
    there = open_store(store)
    count.faults += [f"verify: {problem}" for problem in there.verify()]
    rows = {"/".join(row.path.split("/")[:2]): row for row in read_report(store).itertuples()}
    for name, what in told.items():
        row = rows.get(name)
        kind = name.split("/")[0]
        if row is None:
            if "without" not in what and (kind, "gone") not in count.verdicts:
                count.faults.append(f"{name} has no row ({what})")
            count.verdicts[kind, "no file"] += 1
            continue
        verdict = row.error or row.status
        count.verdicts[kind, verdict] += 1
        if verdict in CONTAINED:
            count.contained.append(f"{name}: {row.reason} ({what})")
        elif row.status == "refused" and verdict not in OURS:
            count.faults.append(f"{name}: {verdict}: {row.reason[:300]} ({what})")
        if row.status == "kept":
            wrong = _wrong(there, row.recording_id, truth.get(kind, {}))
            count.faults += [f"{name}: kept with {problem} ({what})" for problem in wrong]


def _wrong(store: Store, recording_id: str, truth: dict[str, float]) -> list[str]:
    """Tell what is wrong with a recording that was kept."""
    recording = store.recording(recording_id)
    wrong = []
    if not np.isfinite(recording.signal).all():
        wrong.append("samples that are not finite")
    position = recording.sensors.position[recording.sensors.located]
    if not np.isfinite(position).all() or (np.linalg.norm(position, axis=1) > 0.5).any():
        wrong.append("positions that are on no head")
    edges = [(event.onset_s, event.duration_s) for event in recording.events]
    if not all(np.isfinite(edge).all() and 0 <= edge[0] <= recording.duration_s for edge in edges):
        wrong.append("events outside of the recording")
    sizes = _size_of(store, recording_id)
    ratios = [sizes[name] / truth[name] for name in sizes if name in truth]
    factor = float(np.median(ratios)) if ratios else 1.0
    if not 1 / WRONG_UNIT < factor < WRONG_UNIT:
        wrong.append(f"amplitudes {factor:.3g} times what they were")
    return wrong


def _sizes(store: Store) -> dict[str, dict[str, float]]:
    """Return the amplitude of every channel of the undamaged recordings, by format."""
    index = store.index
    return {
        row.task: _size_of(store, row.recording_id)
        for row in index[["task", "recording_id"]].itertuples()
    }


def _size_of(store: Store, recording_id: str) -> dict[str, float]:
    names = store.sensors(recording_id).ch_names
    return dict(zip(names, store.quality(recording_id)["robust_sd"], strict=True))


def table(count: Count) -> None:
    """Print how many files of each format came to what."""
    verdicts = sorted({verdict for _, verdict in count.verdicts}, key=lambda v: (v != "kept", v))
    kinds = sorted({kind for kind, _ in count.verdicts})
    print(f"{'format':14s}" + "".join(f"{verdict:>16s}" for verdict in verdicts))
    for kind in kinds:
        print(f"{kind:14s}" + "".join(f"{count.verdicts[kind, v]:16d}" for v in verdicts))
    sums = [sum(count.verdicts[kind, v] for kind in kinds) for v in verdicts]
    print(f"{'all':14s}" + "".join(f"{value:16d}" for value in sums))


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))

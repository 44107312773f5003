"""The README's table: three labelled sets from files to held-out scores.

    python benchmarks/real_data.py --data DIR [--out runs]

DIR holds eegmat/, eegmmidb/ and ssvep_exo/. Every line is a `neurofm` command that can be
typed by hand; this script types them, and prints the table from their summary.json files.
The encoder is pretrained on all recordings of the three sets, without labels.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

SETS = ("eegmat", "eegmmidb", "ssvep_exo")
TASKS = ("eegmat", "eegmmidb_eyes", "eegmmidb_fists_feet", "ssvep_exo")


def neurofm(*arguments: str) -> None:
    """Run one command, say how long it took, and stop at its first failure."""
    print("$ neurofm", *arguments, flush=True)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "neurofm.cli", *arguments])
    if done.returncode:
        sys.exit(done.returncode)
    print(f"({time.perf_counter() - start:.0f} s)", flush=True)


def rows(folder: Path, task: str) -> list[str]:
    """Return the table's rows of one task."""
    summary = json.loads((folder / task / "summary.json").read_text(encoding="utf-8"))
    lines = []
    for row in summary["scores"]:
        if row["metric"] != "balanced_accuracy":
            continue
        lines.append(
            f"| {task} | {row['protocol']} | {row['model']} | {row['adaptation']} "
            f"| {row['mean']:.3f} | {row['low']:.3f} to {row['high']:.3f} |"
        )
    return lines


def main() -> None:
    """Run the whole way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--table-only", action="store_true", help="do not run anything again")
    args = parser.parse_args()
    stores = [str(args.out / "stores" / name) for name in SETS]
    pretrained = args.out / "pretrain"
    if not args.table_only:
        for name, store in zip(SETS, stores, strict=True):
            neurofm("preprocess", name, f"root={args.data / name}", f"store={store}")
        neurofm("pretrain", "tiny", f"stores=[{','.join(stores)}]", f"folder={pretrained}")
        for task in TASKS:
            store = next(s for name, s in zip(SETS, stores, strict=True) if task.startswith(name))
            neurofm(
                "finetune", task, f"stores=[{store}]", f"checkpoint={pretrained / 'checkpoint'}",
                f"folder={args.out / 'finetune' / task}",
            )  # fmt: skip
    print("\n| task | protocol | model | adaptation | balanced accuracy | 95 % interval |")
    print("|---|---|---|---|--:|--:|")
    for task in TASKS:
        print("\n".join(rows(args.out / "finetune", task)))


if __name__ == "__main__":
    main()

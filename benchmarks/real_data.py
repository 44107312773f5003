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


Cells = dict[tuple[str, str], dict[str, str]]


def read_cells(folder: Path) -> Cells:
    """Return ``mean [low, high]`` by model and adaptation, then by task and protocol."""
    cells: Cells = {}
    for task in TASKS:
        summary = json.loads((folder / task / "summary.json").read_text(encoding="utf-8"))
        for row in summary["scores"]:
            if row["metric"] == "balanced_accuracy":
                column = f"{task}, {row['protocol']}".replace("few_shot_", "few-shot ")
                text = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
                cells.setdefault((row["model"], row["adaptation"]), {})[column] = text
    return cells


def table(cells: Cells, word: str) -> str:
    """Return a Markdown table of the columns whose protocol has `word` in its name."""
    columns = [c for c in next(iter(cells.values())) if word in c]
    lines = [
        f"| model | adaptation | {' | '.join(columns)} |",
        "|---|---" + "|--:" * len(columns) + "|",
    ]
    for (model, adaptation), row in cells.items():
        lines.append(f"| {model} | {adaptation} | {' | '.join(row[c] for c in columns)} |")
    return "\n".join(lines)


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
    cells = read_cells(args.out / "finetune")
    print(f"\n{table(cells, 'loso')}\n\n{table(cells, 'few-shot')}")


if __name__ == "__main__":
    main()

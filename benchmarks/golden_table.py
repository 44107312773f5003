"""Write docs/published.md: each published model, the parts it is made of, the error reached.

Every fixture is compared; what differs is listed, and makes the command fail.

python benchmarks/golden_table.py            compare, print and write
python benchmarks/golden_table.py --print    compare and print
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import golden_harness as harness  # noqa: E402 - beside the tests that use it

INTRODUCTION = """# Published models

Each model below is put together from parts of this package (`neurofm/published/`), takes the
constructor arguments and the weights of the original under their original names, and is compared
with what the original answered in float32 with random weights: every output, every loss, and the
activations at the boundaries of its modules. `pytest -m golden` repeats the comparison for any
folder of fixtures (`NEUROFM_GOLDEN`). Arguments hold as the original takes them, its defaults
included; what has no counterpart here is refused by name. Where braindecode is installed, the
encoders of CBraMod, BIOT, LaBraM, LUNA, EEGPT and REVE are also compared with its, in double
precision and over other sizes. This page is written by `python benchmarks/golden_table.py`.

*Error* is the largest absolute difference over all tensors of a fixture, *of tolerated* the largest
difference as a share of rtol x |expected| + atol, with rtol 1e-4 and the atol of the fixture.
Codes, masks and indices are equal everywhere.
"""
HEADER = "| model | fixture | parts | tensors | error | of tolerated |\n|---|---|---|--:|--:|--:|"


def row(result: harness.Comparison) -> str:
    """Return one line of the table."""
    parts = ", ".join(f"`{part}`" for part in result.parts)
    reached = f"{result.worst:.1e} | {result.share:.3f}"
    if result.problems:
        reached = f"{len(result.problems)} differ | **failed**"
    count = len(result.errors)
    return f"| {result.model} | {result.folder} | {parts} | {count} | {reached} |"


def page(results: list[harness.Comparison], missing: list[str]) -> str:
    """Return the whole page."""
    lines = [INTRODUCTION, HEADER]
    lines += [row(r) for r in sorted(results, key=lambda r: (r.model.lower(), r.folder))]
    if omitted := [(r.folder, name, why) for r in results for name, why in r.omitted.items()]:
        lines += ["", "Activations without a counterpart in our parts:", ""]
        lines += [f"* {folder}, `{name}`: {why}" for folder, name, why in omitted]
    if missing:
        lines += ["", f"Not there yet: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compare every fixture; fail where one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true", help="do not write the page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    adapters = harness.adapters_by_model()
    folders = harness.fixtures(harness.golden_folder())
    if not folders:
        print(f"no reference fixtures at {harness.golden_folder()}; set NEUROFM_GOLDEN")
        return 1
    known = [folder for folder in folders if harness.model_of(folder) in adapters]
    results = [harness.compare(folder, adapters[harness.model_of(folder)]) for folder in known]
    missing = sorted({harness.model_of(folder) for folder in folders} - set(adapters))
    text = page(results, missing)
    print(text)
    if not args.print:
        (ROOT / "docs").mkdir(exist_ok=True)
        (ROOT / "docs" / "published.md").write_text(text, encoding="utf-8")
    for result in results:
        for problem in result.problems:
            print(f"{result.folder}: {problem}", file=sys.stderr)
    return int(any(result.problems for result in results))


if __name__ == "__main__":
    sys.exit(main())

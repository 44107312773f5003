"""How long the command takes to answer `--help`, and `import neurofm` to import.

    python benchmarks/start_time.py

Limits: `neurofm --help` below 0.3 s, `import neurofm` at most 0.15 s. The floor is an
interpreter that does nothing, timed in the same run.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 15


def median_s(command: list[str]) -> float:
    """Return the median wall time of a command over `RUNS` runs."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    rows = {
        "python -c pass": median_s([sys.executable, "-c", "pass"]),
        "import neurofm": median_s([sys.executable, "-c", "import neurofm"]),
        "neurofm --help": median_s([str(Path(sys.executable).with_name("neurofm")), "--help"]),
    }
    for name, seconds in rows.items():
        print(f"{name:16s} {seconds:.3f} s")
    sys.exit(0 if rows["neurofm --help"] < 0.3 else "--help takes 0.3 s or more")


if __name__ == "__main__":
    main()

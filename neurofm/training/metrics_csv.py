"""Metrics of a run as one CSV file that survives being killed and continued."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from neurofm.files import write_atomically


class MetricsCsv:
    """Append one row a step; after a resume, rows of repeated steps are replaced.

    Parameters
    ----------
    path : Path
        The file. Its columns are fixed by its first row.
    first_step : int
        Rows of this step and later ones are dropped: the run is about to write them again.
    """

    def __init__(self, path: Path, *, first_step: int = 0):
        self.path = path
        self.columns: list[str] | None = None
        if path.exists():
            self._rewind(first_step)

    def _rewind(self, first_step: int) -> None:
        # A run that was killed may have left half a line: it has no line end, or too few values.
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = list(csv.reader(line for line in lines if line.endswith("\n")))
        if not rows:
            self.path.unlink()
            return
        self.columns = rows[0]
        kept = [r for r in rows[1:] if len(r) == len(self.columns) and int(r[0]) < first_step]
        write_atomically(self.path, _text([self.columns, *kept]))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append the metrics of one step."""
        header = []
        if self.columns is None:
            self.columns = ["step", *values]
            header = [self.columns]
        row = [str(step), *(f"{values[name]:.9g}" for name in self.columns[1:])]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_text([*header, row]))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics file, steps among them, as numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _text(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()

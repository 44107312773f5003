"""The report: one row for every input file, kept or refused, and why."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd

from neurofm.errors import NeurofmError, StoreError
from neurofm.store.layout import replace_synced
from neurofm.store.remote import Location
from neurofm.store.staging import index_lock

COLUMNS = (
    "dataset", "path", "recording_id", "status", "reason", "hint", "error", "n_channels",
    "dropped", "sfreq_in", "sfreq_out", "duration_s", "n_events", "line_hz", "notes",
)  # fmt: skip
COUNTS = ("n_channels", "n_events")
NUMBERS = ("sfreq_in", "sfreq_out", "duration_s", "line_hz")
FILE_NAME = "report.csv"
IN_STORE = "in the store already"


def refusal(error: NeurofmError, kind: str = "") -> dict[str, str]:
    """Return the columns that tell of a refused file; `kind` replaces the error's type."""
    return {
        "status": "refused",
        "reason": error.problem,
        "hint": error.hint or "",
        "error": kind or type(error).__name__,
    }


def report_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Make a table of report rows, by path."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    table = table.astype(dict.fromkeys(NUMBERS, "Float64") | dict.fromkeys(COUNTS, "Int64"))
    text = [name for name in COLUMNS if name not in NUMBERS + COUNTS]
    table[text] = table[text].fillna("").astype(str)
    return table.sort_values("path", ignore_index=True)


def read_report(store: Location) -> pd.DataFrame:
    """Return the report of all runs so far; empty if there was none.

    Raises
    ------
    StoreError
        If the file is not a report.
    """
    path = store / FILE_NAME
    if not path.is_file():
        return report_table([])
    try:
        table = pd.read_csv(io.BytesIO(path.read_bytes()), dtype=str)
    except (ValueError, OSError) as error:
        raise StoreError(f"{path} cannot be read: {error}", hint="delete it") from None
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise StoreError(f"{path} lacks the columns {', '.join(missing)}", hint="delete it")
    return report_table([dict(zip(table.columns, row, strict=True)) for row in table.to_numpy()])


def merge_report(store: Location, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of this run into the report, over older rows of the same files."""
    with index_lock(store):  # the report of another run may be on its way
        merged = _merged(read_report(store), rows)
        replace_synced(store / FILE_NAME, merged.to_csv(index=False).encode())


def _merged(old: pd.DataFrame, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    # the file tells of the store, not of the run: what a run found there is kept
    new = report_table(
        [{**r, "status": "kept", "reason": ""} if r.get("reason") == IN_STORE else r for r in rows]
    )
    key = ["dataset", "path"]
    stays = ~old.set_index(key).index.isin(new.set_index(key).index)
    parts = [table for table in (old[stays], new) if len(table)]
    merged = pd.concat(parts, ignore_index=True) if parts else new
    return merged.sort_values(key, ignore_index=True)

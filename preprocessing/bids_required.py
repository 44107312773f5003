"""What the tables of a BIDS dataset must hold before anything is read by them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neurofm.errors import SourceError
from neurofm.preprocessing.bids_tables import read_json, read_table

_COLUMNS = {
    "channels.tsv": ("name", "type"),
    "electrodes.tsv": ("name", "x", "y", "z"),
    "events.tsv": ("onset", "duration"),
    "participants.tsv": ("participant_id",),
}
_MARKS = ("AnatomicalLandmarkCoordinates", "FiducialsCoordinates")
_HINT = "complete it, or read the files without `reader: {name: bids}`"


def require_complete(tables: Sequence[Path]) -> None:
    """Refuse tables that lack what BIDS requires, by name.

    Parameters
    ----------
    tables : sequence of Path
        Those that say how to read a recording, and the one of participants.

    Raises
    ------
    SourceError
        If a table is none, lacks a column or a key, or has words where coordinates should be.
    """
    located = any(table.name.endswith("electrodes.tsv") for table in tables)
    for table in tables:
        for ending, columns in _COLUMNS.items():
            if table.name.endswith(ending):
                _require(table, "column", columns, list(read_table(table).columns))
        if located and table.name.endswith("coordsystem.json"):
            _require_frame(table, read_json(table))


def names_that_differ(names: Sequence[str], tables: Sequence[Path]) -> str:
    """Say how the names of ``channels.tsv`` differ from a file's; empty if they do not."""
    path = next((t for t in tables if t.name.endswith("channels.tsv")), None)
    if path is None:
        return ""
    told = read_table(path)["name"].tolist()
    if twice := sorted({name for name in told if told.count(name) > 1}):
        return f"{path.name} has a name more than once: {', '.join(twice[:6])}"
    pairs = [(a, b) for a, b in zip(names, told, strict=False) if a not in told or b not in names]
    shown = ", ".join(f"{b!r} for the file's {a!r}" for a, b in pairs[:4])
    return f"{path.name} names {len(pairs)} channels otherwise than the file: {shown}" * bool(pairs)


def _require_frame(path: Path, told: dict[str, Any]) -> None:
    kind = next((k for k in ("iEEG", "EEG", "MEG") if f"{k}CoordinateSystem" in told), "EEG")
    _require(path, "key", (f"{kind}CoordinateSystem", f"{kind}CoordinateUnits"), list(told))
    for key in _MARKS:
        for name, xyz in (told.get(key) or {}).items():
            if not (isinstance(xyz, list) and all(isinstance(v, int | float) for v in xyz)):
                raise SourceError(
                    f"{path}: {key} has {xyz!r} for {name}, not three numbers",
                    hint="correct it, or leave the landmark out",
                )


def _require(path: Path, what: str, wanted: Sequence[str], found: list[str]) -> None:
    if lacking := [name for name in wanted if name not in found]:
        raise SourceError(
            f"{path}: lacks the {what} {', '.join(map(repr, lacking))}, which BIDS requires; "
            f"found {', '.join(found[:8]) or 'none'}",
            hint=_HINT,
        )

"""Roles: what a file is for, by its name and its neighbours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

FILES = (
    ".fif", ".fif.gz", ".edf", ".bdf", ".gdf", ".vhdr", ".ahdr", ".set", ".cnt", ".sqd", ".con",
    ".eeg", ".cdt", ".dap", ".lay", ".nedf", ".ns3", ".nxe", ".xdf",
)  # fmt: skip
FOLDERS = (".ds", ".mff", ".mefd")
EPOCHS = ("-epo.fif", "_epo.fif", "-epo.fif.gz", "_epo.fif.gz")
_NOT_RAW = re.compile(
    r"[-_](?:eve|epo|ave|cov|fwd|inv|trans|proj|ica|src|sol|annot|sss_head_pos)\.fif(?:\.gz)?$"
)
_LATER_PART = re.compile(
    r"^(?P<stem>.+?)(?:-(?P<n>\d{1,2})|_split-(?P<bids>\d{2})(?P<rest>_\w+)?)\.fif$"
)

_HEADERS = (".vhdr", ".VHDR", ".ahdr")


def has_known_extension(path: Path) -> bool:
    """Tell whether a name is one of a format that is read by default."""
    return path.name.lower().endswith(FOLDERS + FILES)


def not_its_own(path: Path) -> str:
    """Tell why a file is no recording of its own; empty if it may be one."""
    name = path.name
    if _NOT_RAW.search(name):
        return "not a continuous recording"
    if name.lower().endswith((".vmrk", ".fdt")):
        return "belongs to a header file"
    if name.lower().endswith(".eeg") and any(
        path.with_suffix(header).is_file() for header in _HEADERS
    ):
        return "belongs to a header file"
    if (first := first_part(path)) is not None:
        return f"a later part of {first.name}"
    return ""


def first_part(path: Path) -> Path | None:
    """Return the first file of a recording that was split; None if this is it."""
    match = _LATER_PART.match(path.name)
    if match is None:
        return None
    if match["n"]:
        first = path.with_name(f"{match['stem']}.fif")
    elif int(match["bids"]) > 1:
        first = path.with_name(f"{match['stem']}_split-01{match['rest'] or ''}.fif")
    else:
        return None
    return first if first.exists() else None


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, and the folders of formats that are one, by name.

    Links are followed, though not in a circle; what begins with a dot is left out.
    """
    visited: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in visited:
            folders.clear()
            continue
        visited.add(real)
        whole = [f for f in folders if f.lower().endswith(FOLDERS)]
        folders[:] = sorted(f for f in folders if f not in whole and not f.startswith("."))
        for name in sorted([*files, *whole]):
            if not name.startswith("."):
                yield Path(here) / name

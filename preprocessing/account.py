"""Accounting: a row for every file of a folder, also for those that are no recording."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from neurofm.errors import NeurofmError
from neurofm.preprocessing.mirror import MANIFEST
from neurofm.preprocessing.naming import relative_to
from neurofm.preprocessing.roles import FOLDERS, has_known_extension, not_its_own
from neurofm.preprocessing.sources import Found, SourceConfig

COMPANION, OTHER = "companion", "other"
_TEXTS = re.compile(r"^(?:README|LICEN[CS]E|CHANGES|CITATION|MANIFEST|SHA\d*SUMS|MD5SUMS)", re.I)
_KINDS = {
    "text": (".txt", ".md", ".rst", ".pdf", ".html", ".docx"),
    "a program": (".py", ".m", ".sh", ".ipynb", ".r", ".jl"),
    "a table": (".tsv", ".csv", ".xlsx", ".parquet"),
    "a description of other files": (".json", ".yaml", ".yml", ".xml"),
    "a picture or film": (".png", ".jpg", ".jpeg", ".svg", ".gif", ".tif", ".tiff", ".mp4", ".avi"),
    "an anatomical image or surface": (".nii", ".nii.gz", ".mgz", ".gii", ".stl", ".obj"),
}


def account(root: Path, found: Sequence[Found]) -> list[Found]:
    """Return an entry for every file below `root` that `found` says nothing of.

    Parameters
    ----------
    root : Path
        The config's root.
    found : sequence of Found
        What the sources ask for.

    Returns
    -------
    list of Found
        By path. A file that is read with a recording is its companion; others say what they
        are. None is a recording that is worked on.
    """
    named = {item.path.resolve() for item in found if not item.nothing}
    why: dict[Path, str] = {}
    for item in found:
        if item.nothing or item.role:
            continue
        read, about = _files_of(item)
        why |= {file: f"read with {item.relative}" for file in read if file not in why}
        why |= {file: f"describes {item.relative}" for file in about if file not in why}
    out = []
    for path in _everything(root):
        real = path.resolve()
        if real in named:
            continue
        role, reason = (COMPANION, why[real]) if real in why else _role(path)
        shown = relative_to(path, root)
        out.append(
            Found(path=path, relative=shown, source=SourceConfig(), skipped=reason, role=role)
        )
    return out


def _files_of(item: Found) -> tuple[list[Path], list[Path]]:
    """Return what a recording is made of, and what describes it.

    A file that is broken may not tell what belongs to it; it gets its own row, with the reason.
    """
    own = [p for p in item.path.rglob("*") if p.is_file()] if item.path.is_dir() else []
    about: list[Path] = []
    with suppress(NeurofmError, OSError, ValueError):
        own += item.source.files(item.path)
        about += item.source.reader.about(item.path)
    return [p.resolve() for p in own], [p.resolve() for p in about]


def _everything(root: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if name != MANIFEST:
                yield Path(here) / name


def _role(path: Path) -> tuple[str, str]:
    name = path.name.lower()
    if why := not_its_own(path):
        return OTHER, f"{why}, and no recording that is read names it"
    if has_known_extension(path) or any(p.name.lower().endswith(FOLDERS) for p in path.parents):
        return "", "a recording by its name, but no source asks for it"
    if _TEXTS.match(path.name):
        return OTHER, "no recording: text"
    for kind, endings in _KINDS.items():
        if name.endswith(endings):
            return OTHER, f"no recording: {kind}, which no source asks for"
    if not path.is_file():
        return OTHER, "no recording: a broken link" if path.is_symlink() else "no file: not opened"
    try:
        if _is_text(path):
            return OTHER, "no recording: text"
    except OSError as error:
        return OTHER, f"cannot be read: {error.strerror or error}"
    return "", "of no format that is known, and no source asks for it"


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # a character may be cut at the end of what was read
        return error.start > len(head) - 4
    return b"\0" not in head

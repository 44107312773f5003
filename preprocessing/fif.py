"""FIF files: complete or cut short."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import BinaryIO

from neurofm.errors import SourceError
from neurofm.preprocessing.magic import wrong_format

_BLOCK_START, _BLOCK_END = 104, 105


def verify_fif(path: Path, file: BinaryIO) -> None:
    """Walk over the tags: a file that was cut ends inside a tag, or with open blocks."""
    size = path.stat().st_size
    at, open_blocks, n_tags = 0, 0, 0
    while at < size:
        file.seek(at)
        header = file.read(16)
        if len(header) < 16:
            raise _cut_fif(path)
        kind, _, n_bytes, following = struct.unpack(">iiii", header)
        if n_tags == 0 and kind != 100:
            raise wrong_format(path, "FIF", header)
        if n_bytes < 0 or at + 16 + n_bytes > size:
            raise _cut_fif(path)
        open_blocks += (kind == _BLOCK_START) - (kind == _BLOCK_END)
        n_tags += 1
        if following == -1:
            break
        at = following if following > 0 else at + 16 + n_bytes
    if open_blocks > 0:
        raise _cut_fif(path)


def later_parts(path: Path) -> list[Path]:
    """Return the files after the first of a recording that was too long for one."""
    stem = path.name[: -len(".fif")]
    if "_split-01" in stem:
        names = [stem.replace("_split-01", f"_split-{n:02d}") for n in range(2, 100)]
    else:
        names = [f"{stem}-{n}" for n in range(1, 100)]
    parts = []
    for name in names:
        if not (part := path.with_name(f"{name}.fif")).is_file():
            break
        parts.append(part)
    return parts


def _cut_fif(path: Path) -> SourceError:
    return SourceError(
        f"{path}: cut short: the FIF file ends inside its data ({path.stat().st_size} bytes)",
        hint="download or copy the file again",
    )


def verify_fif_gz(path: Path, head: bytes) -> None:
    """Unpack a compressed file once: a part that is missing at its end shows nowhere else.

    Raises
    ------
    SourceError
        If it is cut short or damaged, or holds something else.
    """
    if not head.startswith(b"\x1f\x8b"):
        raise wrong_format(path, "gzip-compressed FIF", head)
    try:
        with gzip.open(path, "rb") as file:
            if file.read(4) != b"\x00\x00\x00\x64":
                raise SourceError(f"{path}: a gzip archive, but not of a FIF file")
            while file.read(1 << 20):
                pass
    except (EOFError, OSError) as error:
        raise SourceError(
            f"{path}: cut short: the archive is damaged: {error}", hint="download it again"
        ) from None

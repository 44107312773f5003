"""Content against name: what a file is, looked at before anyone reads samples from it."""

from __future__ import annotations

import gzip
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from neurofm.errors import SourceError


@dataclass
class Facts:
    """What a look at the bytes of a file found worth knowing.

    Attributes
    ----------
    notes : list of str
        Oddities that do not stop a reading.
    unusable : dict
        Channel name -> why its samples mean nothing.
    duplicates : set of str
        Channel labels that occur more than once; readers number them.
    """

    notes: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    duplicates: set[str] = field(default_factory=set)


def verify(path: Path) -> Facts:
    """Check that a file is what its extension says, and complete.

    Parameters
    ----------
    path : Path
        A file, or the folder of a format that is one.

    Returns
    -------
    Facts
        Notes, unusable channels, duplicated labels.

    Raises
    ------
    SourceError
        If the file is missing, empty, a placeholder, of another format, or cut short.
    """
    if path.is_dir():
        return Facts()
    if not path.is_file():
        what = "a broken link" if path.is_symlink() else "not there"
        raise SourceError(f"{path}: the file is {what}", hint="fetch the file's content")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes)", hint="download it again")
    with path.open("rb") as file:
        head = file.read(512)
        _refuse_placeholder(path, head)
        name = path.name.lower()
        if name.endswith((".edf", ".bdf")):
            return _verify_edf(path, file, head)
        if name.endswith(".gdf") and not head.startswith(b"GDF "):
            raise _wrong_format(path, "GDF", head)
        if name.endswith((".vhdr", ".ahdr")) and b"Data Exchange Header" not in head:
            raise _wrong_format(path, "a BrainVision header", head)
        if name.endswith(".set") and not _is_matlab(head):
            raise _wrong_format(path, "a MATLAB file (EEGLAB)", head)
        if name.endswith(".fif"):
            _verify_fif(path, file)
    if path.name.lower().endswith(".fif.gz"):
        _verify_fif_gz(path, head)
    return Facts()


def _refuse_placeholder(path: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise SourceError(
            f"{path}: a git-lfs pointer, not the recording itself", hint="run: git lfs pull"
        )
    if b".git/annex/objects" in head:
        raise SourceError(
            f"{path}: a git-annex link, not the recording itself",
            hint="run: git annex get (or: datalad get)",
        )


_MAGIC = (
    (b"0       ", "EDF"),
    (b"\xffBIOSEMI", "BDF"),
    (b"GDF ", "GDF"),
    (b"Brain Vision", "a BrainVision header"),
    (b"BrainVision", "a BrainVision header"),
    (b"MATLAB", "a MATLAB file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x00\x00\x00\x64\x00\x00\x00\x1f", "FIF"),
    (b"<", "a web page or XML"),
)


def _wrong_format(path: Path, expected: str, head: bytes) -> SourceError:
    actual = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if actual is None:
        printable = sum(32 <= b < 127 or b in b"\r\n\t" for b in head) >= 0.95 * len(head)
        actual = "text" if printable else f"something else (it begins with {head[:8]!r})"
    return SourceError(
        f"{path}: named {path.suffix} but its content is {actual}, not {expected}",
        hint=f"rename it to .{actual.lower()}" if actual in ("EDF", "BDF", "GDF", "FIF") else None,
    )


def _is_matlab(head: bytes) -> bool:
    return head.startswith((b"MATLAB", b"\x89HDF")) or head[:4] in (
        b"\x00\x00\x00\x00",
        b"\xe8\x03\x00\x00",
    )


# ---------------------------------------------------------------------------------------
# EDF and BDF


def _verify_edf(path: Path, file: BinaryIO, head: bytes) -> Facts:
    kind, magic, sample_bytes = (
        ("BDF", b"\xffBIOSEMI", 3) if path.suffix.lower() == ".bdf" else ("EDF", b"0       ", 2)
    )
    if not head.startswith(magic):
        raise _wrong_format(path, kind, head)
    try:
        n_signals = int(head[252:256])
        header_bytes = int(head[184:192])
        n_records = int(head[236:244])
        record_s = float(head[244:252])
        file.seek(256)
        columns = _Columns(file.read(256 * n_signals), n_signals)
        labels = columns.text(0, 16)
        samples = [int(v) for v in columns.text(216, 8)]
        physical = list(zip(columns.number(104), columns.number(112), strict=True))
    except (ValueError, IndexError) as error:
        raise SourceError(
            f"{path}: the {kind} header is damaged: {error}", hint="download the file again"
        ) from None
    signals = [i for i, label in enumerate(labels) if not label.endswith("Annotations")]
    if signals and not record_s > 0:
        raise SourceError(f"{path}: a record lasts {record_s:g} s: the sampling rate is not known")
    facts = Facts()
    _check_records(path, header_bytes, sum(samples) * sample_bytes, n_records, facts)
    for i in signals:
        low, high = physical[i]
        if low == high:
            facts.unusable[labels[i]] = f"physical minimum and maximum are both {low:g}"
    facts.duplicates = {v for v, n in Counter(labels[i] for i in signals).items() if n > 1}
    rates = {samples[i] / record_s for i in signals}
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in sorted(rates))
        facts.notes.append(f"channels are sampled at {listed} Hz; the slower were upsampled")
    if head[192:236].startswith((b"EDF+D", b"BDF+D")):
        facts.notes.append("the header says the recording is discontinuous")
    return facts


class _Columns:
    """The signal headers of EDF: each field for all signals, then the next field."""

    def __init__(self, data: bytes, n: int):
        if n < 1 or len(data) < 256 * n:
            raise ValueError(f"{len(data)} bytes of signal headers for {n} signals")
        self.data, self.n = data, n

    def text(self, offset: int, width: int) -> list[str]:
        at = offset * self.n
        fields = (self.data[at + i * width : at + (i + 1) * width] for i in range(self.n))
        return [value.decode("latin-1").strip() for value in fields]

    def number(self, offset: int) -> list[float]:
        return [float(value.replace(",", ".")) for value in self.text(offset, 8)]


def _check_records(
    path: Path, header_bytes: int, record_bytes: int, n_records: int, facts: Facts
) -> None:
    there = path.stat().st_size - header_bytes
    found, rest = divmod(max(there, 0), max(record_bytes, 1))
    if found == 0:
        raise SourceError(
            f"{path}: no complete data record: a header and {max(there, 0)} bytes of data, "
            f"of {record_bytes} in a record",
            hint="download the file again",
        )
    if n_records == -1:
        facts.notes.append(f"the header does not say how many records there are; found {found}")
    elif found < n_records:
        raise SourceError(
            f"{path}: cut short: the header promises {n_records} records, {found} are there"
            + (" and a part of one more" if rest else ""),
            hint="download the file again",
        )
    elif found > n_records or rest:
        facts.notes.append(
            f"{there - n_records * record_bytes} bytes beyond the {n_records} records were ignored"
        )


# ---------------------------------------------------------------------------------------
# FIF

_BLOCK_START, _BLOCK_END = 104, 105


def _verify_fif(path: Path, file: BinaryIO) -> None:
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
            raise _wrong_format(path, "FIF", header)
        if n_bytes < 0 or at + 16 + n_bytes > size:
            raise _cut_fif(path)
        open_blocks += (kind == _BLOCK_START) - (kind == _BLOCK_END)
        n_tags += 1
        if following == -1:
            break
        at = following if following > 0 else at + 16 + n_bytes
    if open_blocks > 0:
        raise _cut_fif(path)


def _cut_fif(path: Path) -> SourceError:
    return SourceError(
        f"{path}: cut short: the FIF file ends inside its data ({path.stat().st_size} bytes)",
        hint="download or copy the file again",
    )


def _verify_fif_gz(path: Path, head: bytes) -> None:
    if not head.startswith(b"\x1f\x8b"):
        raise _wrong_format(path, "gzip-compressed FIF", head)
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


_BV_KEY = re.compile(r"^(DataFile|MarkerFile)\s*=\s*(.+?)\s*$", re.MULTILINE)


def companions(path: Path) -> list[Path]:
    """Files that belong to a recording and are read with it, there or not.

    Parameters
    ----------
    path : Path
        The recording.

    Returns
    -------
    list of Path
        For a folder, every file in it.
    """
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    name = path.name.lower()
    if name.endswith((".vhdr", ".ahdr")):
        text = path.read_text(encoding="latin-1")
        stem = path.name[: -len(path.suffix)]
        names = [value.replace("$b", stem) for _, value in _BV_KEY.findall(text)]
        return [path.with_name(Path(value).name) for value in names]
    if name.endswith(".set") and path.with_suffix(".fdt").is_file():
        return [path.with_suffix(".fdt")]
    if name.endswith(".fif"):
        stem = path.name[: -len(".fif")]
        if "_split-01" in stem:
            globs = [stem.replace("_split-01", f"_split-{n:02d}") for n in range(2, 100)]
        else:
            globs = [f"{stem}-{n}" for n in range(1, 100)]
        parts = []
        for part in globs:
            if not (later := path.with_name(f"{part}.fif")).is_file():
                break
            parts.append(later)
        return parts
    return []

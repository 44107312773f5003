"""First bytes: what a file is, whatever its name says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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
    regions : dict
        Channel name -> atlas region, as a file beside the recording gives it.
    reference : str
        What potentials are taken against, as such a file says; empty if none does.
    frame : str
        ``head``, ``mni`` or ``scan``, where such a file or the source says that positions are in
        this frame and the reader has taken them for the head's.
    template : dict
        Electrode -> position in the head frame, for those that nobody has measured.
    participant : dict
        What a table says of the person: column -> text.
    """

    notes: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    duplicates: set[str] = field(default_factory=set)
    regions: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    frame: str = ""
    template: dict[str, tuple[float, ...]] = field(default_factory=dict)
    participant: dict[str, str] = field(default_factory=dict)


def refuse_placeholder(path: Path, head: bytes) -> None:
    """Refuse a file that only points to where the recording is."""
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


def wrong_format(path: Path, expected: str, head: bytes) -> SourceError:
    """Say what a file was taken for, and what it is."""
    actual = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if actual is None:
        printable = sum(32 <= b < 127 or b in b"\r\n\t" for b in head) >= 0.95 * len(head)
        actual = "text" if printable else f"something else (it begins with {head[:8]!r})"
    return SourceError(
        f"{path}: named {path.suffix} but its content is {actual}, not {expected}",
        hint=f"rename it to .{actual.lower()}" if actual in ("EDF", "BDF", "GDF", "FIF") else None,
    )

"""Content against name: what a file is, looked at before anyone reads samples from it."""

from __future__ import annotations

from pathlib import Path

from neurofm.errors import SourceError
from neurofm.preprocessing.brainvision import brainvision_parts, verify_brainvision
from neurofm.preprocessing.curry import curry_parts, verify_curry
from neurofm.preprocessing.edf import verify_edf
from neurofm.preprocessing.fif import verify_fif, verify_fif_gz
from neurofm.preprocessing.magic import Facts, refuse_placeholder, wrong_format

_CURRY = (".cdt", ".dap", ".dat", ".rs3")


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
    name = path.name.lower()
    with path.open("rb") as file:
        head = file.read(512)
        refuse_placeholder(path, head)
        _refuse_another_format(path, head)
        if name.endswith((".edf", ".bdf")):
            return verify_edf(path, file, head)
        if name.endswith((".vhdr", ".ahdr")):
            verify_brainvision(path)
        if name.endswith(_CURRY):
            return verify_curry(path)
        if name.endswith(".fif"):
            verify_fif(path, file)
    if name.endswith(".fif.gz"):
        verify_fif_gz(path, head)
    return Facts()


def _refuse_another_format(path: Path, head: bytes) -> None:
    name = path.name.lower()
    if name.endswith(".gdf") and not head.startswith(b"GDF "):
        raise wrong_format(path, "GDF", head)
    if name.endswith((".vhdr", ".ahdr")) and b"Data Exchange Header" not in head:
        raise wrong_format(path, "a BrainVision header", head)
    if name.endswith(".set") and not _is_matlab(head):
        raise wrong_format(path, "a MATLAB file (EEGLAB)", head)


def _is_matlab(head: bytes) -> bool:
    return head.startswith((b"MATLAB", b"\x89HDF")) or head[:4] in (
        b"\x00\x00\x00\x00",
        b"\xe8\x03\x00\x00",
    )


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

    Raises
    ------
    SourceError
        If it names what cannot be a file beside it.
    """
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    name = path.name.lower()
    if name.endswith((".vhdr", ".ahdr")):
        return list(brainvision_parts(path).values())
    if name.endswith(_CURRY):
        return [part for part in curry_parts(path) if part != path]
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

"""Content against name: what a file is, looked at before anyone reads samples from it."""

from __future__ import annotations

from pathlib import Path

from neurofm.errors import SourceError
from neurofm.preprocessing.brainvision import brainvision_parts, verify_brainvision
from neurofm.preprocessing.curry import curry_parts, verify_curry
from neurofm.preprocessing.edf import verify_edf
from neurofm.preprocessing.fif import later_parts, verify_fif, verify_fif_gz
from neurofm.preprocessing.magic import Facts, refuse_placeholder, wrong_format

_CURRY = (".cdt", ".dap", ".dat", ".rs3")
_BCI2000 = (b"BCI2000V=", b"HeaderLen=")
_NIHON = (b"EEG-1100", b"EEG-1200A", b"EEG-2100", b"QI-403A", b"DAE-2100D")


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
        if name.endswith(_CURRY) and not head.startswith(_BCI2000):
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
    if name.endswith(".eeg") and not head.startswith(_NIHON):
        raise SourceError(
            f"{path}: no recording of Nihon Kohden, and no BrainVision header of its name is "
            "beside it",
            hint="get its .vhdr; or exclude it, if a header of another name reads it",
        )
    if name.endswith(".set") and not _is_matlab(head):
        raise wrong_format(path, "a MATLAB file (EEGLAB)", head)


def _is_matlab(head: bytes) -> bool:
    return head.startswith((b"MATLAB", b"\x89HDF")) or head[:4] in (
        b"\x00\x00\x00\x00",
        b"\xe8\x03\x00\x00",
    )


def is_bci2000(path: Path) -> bool:
    """Tell whether a file is BCI2000's, whose extension is one of Curry's."""
    if not (path.name.lower().endswith(".dat") and path.is_file()):
        return False
    with path.open("rb") as file:
        return file.read(16).startswith(_BCI2000)


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
        if is_bci2000(path):
            return []
        return [part for part in curry_parts(path) if part != path]
    if name.endswith(".eeg"):
        beside = (path.with_suffix(s) for e in (".pnt", ".log", ".21e") for s in (e.upper(), e))
        return sorted({file for file in beside if file.is_file()})
    if name.endswith(".set") and path.with_suffix(".fdt").is_file():
        return [path.with_suffix(".fdt")]
    if name.endswith(".fif"):
        return later_parts(path)
    return []

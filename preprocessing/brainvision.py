"""BrainVision: whether the numbers are stored as the header says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from neurofm.errors import SourceError

_FORMAT = re.compile(r"^BinaryFormat\s*=\s*(\w+)", re.MULTILINE)
_DATA = re.compile(r"^DataFile\s*=\s*(.+?)\s*$", re.MULTILINE)
# bytes looked at, in the middle of the file
_LOOKED_AT = 1 << 18
# As 32-bit floats, samples in volts or in parts of a microvolt are zero or lie between these;
# 16-bit integers taken for floats hardly ever do.
_ANY = (1e-9, 1e8)
# Those in microvolts lie between these; integers do only where all channels stay at 1.4 to 1.9 mV.
_MICROVOLTS = (1e-5, 1e6)
_SURE, _NEVER = 0.99, 0.5


def verify_brainvision(path: Path) -> None:
    """Refuse a header that takes 32-bit floats for 16-bit integers, or the other way round.

    Either opens without a complaint, with noise for samples and half or double the length.

    Parameters
    ----------
    path : Path
        The header.

    Raises
    ------
    SourceError
        If the samples are not stored as the header says.
    """
    header = path.read_bytes().decode("latin-1")
    said, data = _FORMAT.search(header), _DATA.search(header)
    if said is None or data is None:
        return
    samples = path.with_name(data[1].replace("$b", path.stem))
    if not samples.is_file():
        return
    values = _as_floats(samples)
    if len(values) < 100:
        return
    if said[1] == "INT_16" and _share(values, _MICROVOLTS) >= _SURE:
        raise _mismatch(path, samples, "INT_16", "32-bit floats: IEEE_FLOAT_32")
    if said[1] == "IEEE_FLOAT_32" and _share(values, _ANY) <= _NEVER:
        raise _mismatch(path, samples, "IEEE_FLOAT_32", "no such numbers, probably INT_16")


def _as_floats(samples: Path) -> np.ndarray:
    """Return sizes of numbers in the middle of the file; zeros are zeros in every format."""
    size = samples.stat().st_size
    with samples.open("rb") as file:
        file.seek(max(0, (size - _LOOKED_AT) // 8) * 4)
        found = file.read(_LOOKED_AT)
    values = np.frombuffer(found[: len(found) // 4 * 4], "<f4")
    return np.abs(values[values != 0])


def _share(values: np.ndarray, between: tuple[float, float]) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.mean((values >= between[0]) & (values <= between[1])))


def _mismatch(path: Path, samples: Path, said: str, found: str) -> SourceError:
    return SourceError(
        f"{path}: says that {samples.name} holds {said}, but its samples are {found}",
        hint="correct BinaryFormat in the header if that gives a plausible signal, or get both "
        "files again",
    )

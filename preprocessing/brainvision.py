"""BrainVision: whether the numbers are stored as the header says, and all are there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from neurofm.errors import SourceError

_FORMAT = re.compile(r"^BinaryFormat\s*=\s*(\w+)", re.MULTILINE)
_NUMBER = re.compile(r"^(NumberOfChannels|DataPoints)\s*=\s*(\d{1,12})\s*$", re.MULTILINE)
_MARKERS = re.compile(r"^MarkerFile\s*=\s*(.+?)\s*$", re.MULTILINE)
_POSITION = re.compile(r"^Mk\d+=[^,]*,[^,]*,(\d{1,12}),", re.MULTILINE)
_SIZES = {"INT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
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

    Either opens without a complaint, with noise for samples and half or double the length. So
    does a file that was cut, at half the length: no header says how long it should be, but its
    markers, a broken frame or the optional number of data points may.

    Parameters
    ----------
    path : Path
        The header.

    Raises
    ------
    SourceError
        If the samples are not stored as the header says, or some are missing.
    """
    header = path.read_bytes().decode("latin-1")
    said, data = _FORMAT.search(header), _DATA.search(header)
    if said is None or data is None:
        return
    samples = path.with_name(data[1].replace("$b", path.stem))
    if not samples.is_file():
        return
    _require_whole(path, header, samples)
    values = _as_floats(samples)
    if len(values) < 100:
        return
    if said[1] == "INT_16" and _share(values, _MICROVOLTS) >= _SURE:
        raise _mismatch(path, samples, "INT_16", "32-bit floats: IEEE_FLOAT_32")
    if said[1] == "IEEE_FLOAT_32" and _share(values, _ANY) <= _NEVER:
        raise _mismatch(path, samples, "IEEE_FLOAT_32", "no such numbers, probably INT_16")


def _require_whole(path: Path, header: str, samples: Path) -> None:
    told = dict(_NUMBER.findall(header))
    n_channels, n_bytes = int(told.get("NumberOfChannels", 0)), _SIZES.get(_said(_FORMAT, header))
    if not n_channels or n_bytes is None:
        return
    frames, rest = divmod(samples.stat().st_size, n_channels * n_bytes)
    promised, by = int(told.get("DataPoints", 0)), "the header promises"
    markers = path.with_name(_said(_MARKERS, header).replace("$b", path.stem))
    if markers.is_file() and _said(_MARKERS, header):
        positions = _POSITION.findall(markers.read_bytes().decode("latin-1"))
        last = max(map(int, positions), default=0)
        # a marker may stand just behind the last sample
        if last - 1 > max(promised, frames):
            promised, by = last, f"{markers.name} has a marker at"
    if promised > frames or rest:
        why = f"{by} sample {promised}, " if promised > frames else ""
        broken = f" and {rest} bytes of one more" if rest else ""
        raise SourceError(
            f"{path}: cut short: {why}{frames} samples{broken} are in {samples.name}",
            hint="get the file again; if it was cut on purpose, take out the markers behind it",
        )


def _said(regex: re.Pattern[str], header: str) -> str:
    found = regex.search(header)
    return found[1] if found else ""


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

"""BrainVision: whether the numbers are stored as the header says, and all are there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from neurofm.errors import SourceError

_FORMAT = re.compile(r"^BinaryFormat\s*=\s*(\w+)", re.MULTILINE)
_NUMBER = re.compile(r"^(NumberOfChannels|DataPoints)\s*=\s*(\d{1,12})\s*$", re.MULTILINE)
_PART = re.compile(r"^(DataFile|MarkerFile)[^\S\n]*=[^\S\n]*(\S.*?)\s*$", re.MULTILINE)
_POSITION = re.compile(r"^Mk\d+=[^,]*,[^,]*,(\d{1,12}),", re.MULTILINE)
_SIZES = {"INT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
# bytes of a file's name, on any disk
_LONGEST = 255
# bytes looked at, in the middle of the file
_LOOKED_AT = 1 << 18
# As 32-bit floats, samples in volts or in parts of a microvolt are zero or lie between these;
# 16-bit integers taken for floats hardly ever do.
_ANY = (1e-9, 1e8)
# Those in microvolts lie between these; integers do only where all channels stay at 1.4 to 1.9 mV.
_MICROVOLTS = (1e-5, 1e6)
_SURE, _NEVER = 0.99, 0.5


def brainvision_parts(path: Path) -> dict[str, Path]:
    """Return the files that a header names, by ``DataFile`` and ``MarkerFile``, there or not.

    Parameters
    ----------
    path : Path
        The header.

    Raises
    ------
    SourceError
        If what it names cannot be a file beside it.
    """
    found = {}
    for key, said in _PART.findall(_text(path)):
        name = said.replace("$b", path.stem).removeprefix("./")
        if name in (".", "..") or set(name) & set("/\\\0") or len(name.encode()) > _LONGEST:
            raise SourceError(
                f"{path}: {key} in the header is {said[:80]!r}, which is no file beside it",
                hint=f"put the file beside the header, and its name alone into {key}",
            )
        found[key] = path.with_name(name)
    return found


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


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
        If the samples are not stored as the header says, or some are missing, or a file that it
        names cannot be one beside it.
    """
    header = _text(path)
    said, parts = _FORMAT.search(header), brainvision_parts(path)
    samples = parts.get("DataFile")
    if said is None or samples is None or not samples.is_file():
        return
    _require_whole(path, header, samples, parts.get("MarkerFile"))
    values = _as_floats(samples)
    if len(values) < 100:
        return
    if said[1] == "INT_16" and _share(values, _MICROVOLTS) >= _SURE:
        raise _mismatch(path, samples, "INT_16", "32-bit floats: IEEE_FLOAT_32")
    if said[1] == "IEEE_FLOAT_32" and _share(values, _ANY) <= _NEVER:
        raise _mismatch(path, samples, "IEEE_FLOAT_32", "no such numbers, probably INT_16")


def _require_whole(path: Path, header: str, samples: Path, markers: Path | None) -> None:
    told = dict(_NUMBER.findall(header))
    said = _FORMAT.search(header)
    n_channels, n_bytes = int(told.get("NumberOfChannels", 0)), _SIZES.get(said[1] if said else "")
    if not n_channels or n_bytes is None:
        return
    frames, rest = divmod(samples.stat().st_size, n_channels * n_bytes)
    promised, by = int(told.get("DataPoints", 0)), "the header promises"
    if markers is not None and markers.is_file():
        positions = _POSITION.findall(_text(markers))
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

"""Curry files: a header in words, of which some are left at zero."""

from __future__ import annotations

import math
import re
from pathlib import Path

from neurofm.errors import SourceError
from neurofm.preprocessing.magic import Facts

_TOLD = re.compile(r"^[^\S\n]*(SampleFreqHz|SampleTimeUsec)[^\S\n]*=([^\n]*)$", re.MULTILINE)


def curry_parts(path: Path) -> list[Path]:
    """Return the header and the data of a Curry recording, whichever of them `path` is."""
    name = path.name
    if ".cdt" in name:
        stem = name[: name.index(".cdt")]
        headers = [path.with_name(f"{stem}.cdt{end}") for end in (".dpa", ".dpo")]
        header = next((h for h in headers if h.is_file()), headers[0])
        return [header, path.with_name(f"{stem}.cdt")]
    return [path.with_suffix(".dap"), path.with_suffix(".dat"), path.with_suffix(".rs3")]


def verify_curry(path: Path) -> Facts:
    """Check that the header tells a sampling rate.

    Raises
    ------
    SourceError
        If neither the rate nor the time between two samples is above zero, or one of them is
        not a number.
    """
    facts = Facts()
    header = curry_parts(path)[0]
    if not header.is_file():
        return facts
    told = dict(_TOLD.findall(header.read_text(encoding="latin-1")))
    rate, step_us = (_number(path, header, told, key) for key in ("SampleFreqHz", "SampleTimeUsec"))
    if rate <= 0 and step_us <= 0:
        raise SourceError(
            f"{path}: the sampling rate in {header.name!r} is {rate:g} Hz, and the time between "
            f"two samples {step_us:g} microseconds",
            hint="write the true `SampleFreqHz` into the header",
        )
    if rate <= 0:
        facts.notes.append(
            f"the sampling rate in the header is {rate:g} Hz; {1e6 / step_us:g} Hz follow from "
            f"the {step_us:g} microseconds between two samples"
        )
    return facts


def _number(path: Path, header: Path, told: dict[str, str], key: str) -> float:
    try:
        number = float(told.get(key, "").strip() or 0)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SourceError(
            f"{path}: {key} in {header.name!r} is {told[key].strip()!r}, which is not a number",
            hint=f"write the true `{key}` into the header",
        )
    return number

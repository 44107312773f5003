"""Names: which files match a glob, and which subject, session, task and run a path stands for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from neurofm.errors import ConfigError, SourceError
from neurofm.signals import Entities

FIELDS = ("subject", "session", "task", "run")
_BIDS = {"subject": "sub", "session": "ses", "task": "task", "run": "run"}


@cache
def glob_regex(glob: str, *, path: bool = True) -> re.Pattern[str]:
    """Compile a glob.

    ``*`` and ``?`` stay within one folder and ``**`` crosses folders. Every other character,
    square brackets among them, stands for itself: recordings have names like
    ``record-[2012.07.06].gdf``.

    Parameters
    ----------
    glob : str
        The glob.
    path : bool
        False for channel names, in which a slash is a character like any other.

    Returns
    -------
    re.Pattern
        To be used with ``fullmatch``.
    """
    one = "[^/]" if path else "."
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": f"{one}*", "?": one}
    return re.compile("".join(wild.get(p) or re.escape(p) for p in parts), re.DOTALL)


def matches(name: str, globs: tuple[str, ...], *, path: bool = True) -> bool:
    """Tell whether any glob matches the whole name."""
    return any(glob_regex(glob, path=path).fullmatch(name) for glob in globs)


@cache
def pattern_regex(pattern: str) -> re.Pattern[str]:
    """Compile a naming pattern such as ``{subject}/{subject}R{run}.edf``.

    Parameters
    ----------
    pattern : str
        Literal text with fields in braces: ``{subject}``, ``{session}``, ``{task}`` and
        ``{run}``; a field that comes twice must match the same text. ``{*}`` matches anything
        within a folder, ``{**}`` anything.

    Returns
    -------
    re.Pattern
        One named group per field.

    Raises
    ------
    ConfigError
        If a field is unknown, or braces do not pair.
    """
    out, seen = [], set()
    for part in re.split(r"(\{[^{}]*\})", pattern):
        if not part.startswith("{") or not part.endswith("}"):
            if "{" in part or "}" in part:
                raise ConfigError(f"pattern {pattern!r}: a brace without its partner")
            out.append(re.escape(part))
            continue
        field = part[1:-1]
        if field in ("*", "**"):
            out.append("[^/]*" if field == "*" else ".*")
        elif field in seen:
            out.append(f"(?P={field})")
        elif field in FIELDS:
            out.append(f"(?P<{field}>[^/]+?)")
            seen.add(field)
        else:
            raise ConfigError(
                f"pattern {pattern!r}: unknown field {part}",
                hint=f"fields are {', '.join('{' + f + '}' for f in FIELDS)}, {{*}} and {{**}}",
            )
    return re.compile("".join(out), re.DOTALL)


def entities_of(
    relative: str, *, dataset: str, pattern: str | None, fixed: Mapping[str, str]
) -> Entities:
    """Tell what a recording is from its path.

    Parameters
    ----------
    relative : str
        Path relative to the source's root, with forward slashes.
    dataset : str
        The name of the data set.
    pattern : str, optional
        See `pattern_regex`. Without one, BIDS entities are read from the path.
    fixed : mapping
        Entities given in the config; they win over the path.

    Returns
    -------
    Entities
        Dataset, subject, session, task and run.

    Raises
    ------
    SourceError
        If the path does not match, or no subject can be found.
    """
    found = _by_pattern(relative, pattern) if pattern else _by_bids(relative)
    values = {**found, **{k: v for k, v in fixed.items() if v}}
    if not values.get("subject"):
        raise SourceError(
            f"{relative}: no subject in the path",
            hint="name files the BIDS way (sub-01_task-rest_eeg.edf), or give the source a "
            "`pattern` such as 'Subject{subject}_{run}.edf'",
        )
    return Entities(dataset=dataset, **values)


def _by_pattern(relative: str, pattern: str) -> dict[str, str]:
    match = pattern_regex(pattern).fullmatch(relative)
    if match is None:
        raise SourceError(
            f"{relative}: does not match the source's pattern {pattern!r}",
            hint="change `pattern`, or leave the file out with `exclude`",
        )
    return match.groupdict()


def _by_bids(relative: str) -> dict[str, str]:
    found = {}
    for field, key in _BIDS.items():
        # the last occurrence is the file's own, should folders say it too
        values = re.findall(rf"(?:^|[/_]){key}-([^/_.]+)", relative)
        if values:
            found[field] = values[-1]
    return found


def relative_to(path: Path, root: Path) -> str:
    """Return the way from `root` to a file, with forward slashes, as a table can hold it."""
    way = Path(os.path.relpath(path, root)).as_posix()
    return os.fsencode(way).decode("utf-8", "backslashreplace")


def require_text(name: str) -> None:
    """Refuse the name of a file that is not text: Unix allows any bytes, tables do not.

    Raises
    ------
    SourceError
        If it is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise SourceError(
            f"{shown}: its name is not UTF-8, and no table can hold it", hint="rename it"
        ) from None

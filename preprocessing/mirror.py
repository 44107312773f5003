"""Recordings behind a URL: a local folder that looks like theirs, filled as files are needed.

Every remote file has an empty placeholder of its name, so that what works on paths works on
these; a worker fetches a recording and its companions just before it reads them. A placeholder
that is read by mistake is an empty file, which every reader refuses.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from neurofm.errors import ConfigError, SourceError
from neurofm.files import write_atomically

MANIFEST = ".neurofm-mirror.json"
# small, and read to find out which other files belong to a recording, or shared by many
_HEADERS = (".vhdr", ".ahdr", ".dap", ".json", ".tsv")
_ETAGS = ("ETag", "etag", "md5Hash", "checksum")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")


@dataclass(frozen=True)
class _Manifest:
    """What lies behind a URL: size and version of every file."""

    url: str
    keep: bool
    files: dict[str, tuple[int, int]]


class _Remote(NamedTuple):
    """One file of a manifest."""

    url: str
    relative: str
    size: int
    stamp: int
    keep: bool

    def __str__(self) -> str:
        return f"{self.url.rstrip('/')}/{self.relative}"


def is_url(root: str) -> bool:
    """Tell whether a root is a URL and not a path."""
    return "://" in root


def mirror(url: str, cache: Path, *, keep: bool = True) -> Path:
    """Make, or bring up to date, the local image of a remote folder; headers are fetched.

    Parameters
    ----------
    url : str
        Anything fsspec knows: ``s3://bucket/folder``, ``https://host/folder/``.
    cache : Path
        Folder of all images.
    keep : bool
        Whether downloaded files stay when they have been used.

    Returns
    -------
    Path
        The image's root.

    Raises
    ------
    ConfigError
        If the protocol is unknown, or what it needs is not installed.
    SourceError
        If the folder cannot be listed, or holds nothing.
    """
    root = cache.expanduser().absolute() / hashlib.sha256(url.encode()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    files = _listed(url)
    for relative, (size, stamp) in files.items():
        _place(root / relative, size, stamp)
    known = set(files) | {MANIFEST}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        if path.relative_to(root).as_posix() not in known:
            path.unlink()
    write_atomically(root / MANIFEST, json.dumps({"url": url, "keep": keep, "files": files}))
    fetch(root / relative for relative in files if relative.lower().endswith(_HEADERS))
    return root


def fetch(paths: Iterable[Path]) -> None:
    """Download those files that are placeholders; nothing is done to any other file.

    Raises
    ------
    SourceError
        If one cannot be downloaded, or arrives with another size than was listed.
    """
    for path in paths:
        known = _known(path)
        if known is not None and path.is_file() and path.stat().st_size != known.size:
            _download(known, path)


def _download(remote: _Remote, path: Path) -> None:
    begun = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        fs, base = _open(remote.url)
        fs.get_file(f"{base}/{remote.relative}", str(begun))
        found = begun.stat().st_size
        if found != remote.size:
            raise SourceError(
                f"{remote}: {found} bytes arrived, {remote.size} were listed",
                hint="the file has changed, or the connection broke: run again",
            )
        os.utime(begun, ns=(remote.stamp, remote.stamp))
        begun.replace(path)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{remote}: cannot be downloaded: {type(error).__name__}: {error}",
            hint="run again; what is in the store already is not downloaded again",
        ) from error
    finally:
        begun.unlink(missing_ok=True)


def release(paths: Iterable[Path]) -> None:
    """Make placeholders again of downloaded files that are not to be kept."""
    for path in paths:
        known = _known(path)
        if known is None or known.keep or path.name.lower().endswith(_HEADERS):
            continue
        if path.is_file() and path.stat().st_size:
            begun = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            _place(begun, known.size, known.stamp)
            begun.replace(path)


def size_of(path: Path) -> int:
    """Return the size of a file, also of one that is not downloaded yet."""
    known = _known(path)
    return path.stat().st_size if known is None else known.size


def _place(path: Path, size: int, stamp: int) -> None:
    """Leave a file that is there in this version; put an empty one in place of any other."""
    if path.is_file():
        told = path.stat()
        if told.st_mtime_ns == stamp and told.st_size in (0, size):
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    # the time tells one version from another, here as for files that are local
    os.utime(path, ns=(stamp, stamp))


def _listed(url: str) -> dict[str, tuple[int, int]]:
    """Return size and version of every file below a URL."""
    fs, base = _open(url)
    try:
        found = fs.find(base, detail=True)
    # each protocol's library has errors of its own, such as botocore's for missing credentials
    except Exception as error:
        raise SourceError(
            f"{url}: cannot be listed: {type(error).__name__}: {error}",
            hint="check the URL and the access to it, which is configured where fsspec's library "
            "looks for it: the environment, or ~/.config/fsspec",
        ) from error
    files = {}
    for name, info in found.items():
        relative = str(name).removeprefix(base).lstrip("/")
        parts = PurePosixPath(relative).parts
        if not relative or ".." in parts or any(part.startswith(".neurofm") for part in parts):
            continue
        size = info.get("size")
        if size is None:
            size = fs.size(name)
        if size is None:
            raise SourceError(f"{url}/{relative}: the server does not tell its size")
        files[relative] = (int(size), _stamp(info, int(size)))
    if not files:
        raise SourceError(
            f"{url}: no file there",
            hint="check the access, and the URL: it has to be a folder, of which `include` names "
            "single files",
        )
    return files


def _stamp(info: dict[str, Any], size: int) -> int:
    """Return a time in nanoseconds that stands for one version of a file."""
    told = [str(info[key]) for key in _ETAGS if info.get(key)]
    if not told:
        times = (info[key] for key in _TIMES if info.get(key))
        told = [t.isoformat() if isinstance(t, datetime) else str(t) for t in times]
    digest = hashlib.sha256("/".join([str(size), *told]).encode()).digest()
    return int.from_bytes(digest[:4]) // 2 * 1_000_000_000


def _open(url: str) -> tuple[Any, str]:
    try:
        import fsspec

        fs, base = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ConfigError(
            f"{url} cannot be read: {error}", hint="pip install 'neurofm[cloud]'"
        ) from None
    except ValueError as error:
        raise ConfigError(f"root {url!r}: {error}") from None
    return fs, str(base).rstrip("/")


def _known(path: Path) -> _Remote | None:
    """Return what a mirrored file is behind its URL; None for any other."""
    for folder in path.parents:
        manifest = folder / MANIFEST
        if manifest.is_file():
            told = _read(manifest, manifest.stat().st_mtime_ns)
            relative = path.relative_to(folder).as_posix()
            if relative not in told.files:
                return None
            return _Remote(told.url, relative, *told.files[relative], told.keep)
    return None


@lru_cache(maxsize=4)
def _read(manifest: Path, changed: int) -> _Manifest:
    return _Manifest(**json.loads(manifest.read_text(encoding="utf-8")))

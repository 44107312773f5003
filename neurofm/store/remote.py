"""Stores behind a URL: the few things a store asks of a path, said in range reads and puts.

Anything fsspec knows is a place for a store: ``s3://``, ``gs://``, ``memory://`` to read and
write, ``http(s)://`` to read. An object appears whole or not at all, there as here; what makes a
store appear whole is the order, the index last.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from neurofm.errors import StoreError

# An HTTP request that fails is made again after each of these; s3fs and its like do so themselves.
PAUSES_S = (0.2, 0.4, 0.8)
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

_MANGLED = re.compile(r"(s3|gs|gcs|abfs|az|https?|memory):/[^/]")

R = TypeVar("R")


class RemotePath:
    """A place behind a URL, with as much of `pathlib.Path` as a store needs.

    It goes to another process as its URL and options, and may be used by several threads and
    on both sides of a fork: every process opens connections of its own.

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/store``.
    **options
        What the file system is made with: ``endpoint_url``, ``key``, ``anon`` and the like;
        by default what fsspec and the provider read from the environment.

    Raises
    ------
    StoreError
        If fsspec, or the part of it that knows the protocol, is not installed.
    """

    __slots__ = ("_fs", "_options", "_pid", "_url")

    def __init__(self, url: str, **options: Any):
        protocol, _, rest = url.partition("://")
        self._url = f"{protocol}://{rest.rstrip('/')}"
        self._options = options
        self._fs: Any = None
        self._pid = -1

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
        return RemotePath(f"{self._url}/{name}", **self._options)

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:  # options may hold secrets
        return f"RemotePath({self._url!r})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RemotePath)
            and self._url == other._url
            and self._options == other._options
        )

    def __hash__(self) -> int:
        return hash(self._url)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self._url, self._options))

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return self._url.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """The place that holds this one."""
        return RemotePath(self._url.rpartition("/")[0], **self._options)

    def absolute(self) -> RemotePath:
        """Return itself: a URL is absolute."""
        return self

    # -----------------------------------------------------------------------------------
    # Reading

    def read_bytes(self) -> bytes:
        """Return the whole object.

        Raises
        ------
        OSError
            `FileNotFoundError` if there is none; others if it cannot be had after some tries.
        """
        data: bytes = self._try(lambda fs: fs.cat_file(self._url))
        return data

    def read_range(self, offset: int, n_bytes: int) -> bytes:
        """Return `n_bytes` from `offset` on, in one request.

        Raises
        ------
        OSError
            As `read_bytes`, or if the server sends something else than what was asked for.
        """
        data: bytes = self._try(
            lambda fs: fs.cat_file(self._url, start=offset, end=offset + n_bytes)
        )
        return self._of_size(data, n_bytes)

    def read_tail(self, n_bytes: int) -> bytes:
        """Return the last `n_bytes`, in one request where the server allows it.

        Raises
        ------
        OSError
            As `read_range`.
        """
        data: bytes = self._try(lambda fs: fs.cat_file(self._url, start=-n_bytes))
        return self._of_size(data, n_bytes)

    def _of_size(self, data: bytes, n_bytes: int) -> bytes:
        if len(data) > n_bytes:
            raise OSError(
                f"{len(data)} bytes came where {n_bytes} were asked for: "
                "the server does not answer range requests"
            )
        return data

    def is_file(self) -> bool:
        """Tell whether there is an object of this name, with anything in it.

        Raises
        ------
        OSError
            If the place cannot be reached.
        """
        try:
            # not `info`: over HTTP that says of a server which is down that there is no file
            self.read_range(0, 1)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> set[str]:
        """Return the first part of the name of everything below."""
        return {name.partition("/")[0] for name in self.files()}

    def files(self) -> dict[str, int]:
        """Return every object below: its name from here on, and its size in bytes.

        Raises
        ------
        OSError
            If the place cannot be listed: what an HTTP server shows of a folder is a page.
        """
        if self._url.startswith("http"):
            raise PermissionError(f"{self._url} cannot be listed over HTTP")

        def find(fs: Any) -> dict[str, Any]:
            fs.invalidate_cache()  # listings are remembered, and other processes write
            found: dict[str, Any] = fs.find(self._url, detail=True)
            return found

        root = self._path_of(self._filesystem()).rstrip("/") + "/"
        return {
            path[len(root) :]: int(about.get("size") or 0)
            for path, about in self._try(find).items()
            if path.startswith(root)
        }

    # -----------------------------------------------------------------------------------
    # Writing

    def write_bytes(self, data: bytes) -> None:
        """Replace the object in one step: a reader sees the old bytes or the new."""
        self._try(lambda fs: fs.pipe_file(self._url, data))

    def put(self, file: Path) -> None:
        """Upload a local file."""
        self._try(lambda fs: fs.put_file(str(file), self._url))

    def get(self, file: Path) -> None:
        """Download to a local file."""
        self._try(lambda fs: fs.get_file(self._url, str(file)))

    def remove(self, names: Iterable[str]) -> None:
        """Delete objects below; those that are gone already are no error."""
        for name in names:
            try:
                (self / name)._remove()
            except FileNotFoundError:
                continue

    def _remove(self) -> None:
        self._try(lambda fs: fs.rm_file(self._url))

    # -----------------------------------------------------------------------------------

    def _filesystem(self) -> Any:
        if self._fs is None or self._pid != os.getpid():
            self._fs, self._pid = _open(self._url, self._options), os.getpid()
        return self._fs

    def _path_of(self, fs: Any) -> str:
        return str(fs._strip_protocol(self._url))

    def _try(self, action: Callable[[Any], R]) -> R:
        """Act, again if need be; whatever a transport raises becomes an OSError."""
        fs = self._filesystem()
        pauses = iter(PAUSES_S if self._url.startswith("http") else ())
        while True:
            try:
                return action(fs)
            except FINAL:
                raise
            except NotImplementedError:
                raise PermissionError(f"{self._url} cannot be written or listed") from None
            except _transport_errors() as error:
                pause = next(pauses, None)
                if pause is None:
                    raise OSError(f"{type(error).__name__}: {error}") from None
            time.sleep(pause)


Location = Path | RemotePath


def location(path: str | Path | RemotePath) -> Location:
    """Return where a store lies: a `Path`, or a `RemotePath` if it is a URL.

    Parameters
    ----------
    path : str, Path or RemotePath
        A folder, ``~`` for the user's home, or a URL; ``file://`` is a folder.

    Raises
    ------
    StoreError
        If a URL was made a `Path`, which takes one of its slashes.
    """
    if isinstance(path, RemotePath):
        return path
    text = str(path)
    if isinstance(path, Path):
        if _MANGLED.match(text):
            raise StoreError(f"{text!r} is a URL that lost a slash as a Path; give it as text")
        return path
    protocol, separator, rest = text.partition("://")
    if not separator:
        return Path(text).expanduser()
    return Path(rest) if protocol in {"file", "local"} else RemotePath(text)


def _rebuild(url: str, options: dict[str, Any]) -> RemotePath:
    return RemotePath(url, **options)


def _open(url: str, options: dict[str, Any]) -> Any:
    protocol = url.partition("://")[0]
    try:
        import fsspec

        # fsspec keeps one file system a process and set of options, and drops them at a fork
        return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        raise StoreError(
            f"{url} cannot be opened: {error}",
            hint="pip install 'neurofm[cloud]'; gs:// needs gcsfs, abfs:// needs adlfs besides",
        ) from None
    except ValueError as error:
        raise StoreError(
            f"{url} cannot be opened: {error}",
            hint="s3://, gs://, abfs://, memory:// and http(s):// are known, and folders",
        ) from None


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return OSError, and what the transports in use raise instead."""
    known = (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
    )
    loaded = [getattr(sys.modules[module], name) for module, name in known if module in sys.modules]
    return (OSError, *loaded)

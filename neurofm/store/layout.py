"""Where everything in a store lies, and the Zarr v3 metadata that says so.

.. code-block:: text

    store/
      zarr.json                      root group: format, contract, chunk_s
      index.parquet                  one row a recording, the only list of what is complete
      recordings/zarr.json           a group of
        <recording_id>/zarr.json     groups: index row, entities, sensors, events, quality, ...
          signal/zarr.json           int16 array (C, T); its attributes hold scale and divisor
          signal/c/0/<n>             shards of about 31 MB
          codes-<identity>/          what a tokenizer made of it, if asked to (store/codes.py)
      .tmp-<random>/                 a recording being written, and beside it
      .tmp-<random>.lock             a file that its writer holds locked
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from neurofm.errors import StoreError
from neurofm.files import sync_folder
from neurofm.store.remote import Location, RemotePath

L = TypeVar("L", Path, RemotePath, Location)

FORMAT = 1
ROOT_KEY = "neurofm_store"
TEMPORARY = ".tmp-"
SHARD_BYTES = 31_250_000  # of int16 before compression: 64 channels x 20 min at 200 Hz

CHUNK_LEVEL = 9  # 3 % smaller than level 5, as fast to decode, a seventh slower to encode
# blosc lz4 + bitshuffle makes real EEG 3.3 times smaller than float32 and decodes at memory
# speed. The checksum after it is what tells a flipped bit from a brain signal.
CHUNK_CODECS: list[dict[str, Any]] = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {
        "name": "blosc",
        "configuration": {
            "typesize": 2,
            "cname": "lz4",
            "clevel": CHUNK_LEVEL,
            "shuffle": "bitshuffle",
            "blocksize": 0,
        },
    },
    {"name": "crc32c"},
]
INDEX_CODECS: list[dict[str, Any]] = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
]


@dataclass(frozen=True)
class ChunkGrid:
    """How an array (C, T) is cut: chunks of all channels, consecutive chunks in a shard."""

    n_channels: int
    n_times: int
    chunk_len: int
    chunks_per_shard: int

    @classmethod
    def plan(cls, n_channels: int, n_times: int, chunk_len: int) -> ChunkGrid:
        """Choose how many chunks make a shard of about 31 MB, or fewer for a short recording."""
        fitting = max(1, SHARD_BYTES // (n_channels * chunk_len * 2))
        return cls(n_channels, n_times, chunk_len, min(fitting, math.ceil(n_times / chunk_len)))

    @property
    def n_chunks(self) -> int:
        """Chunks that hold samples."""
        return math.ceil(self.n_times / self.chunk_len)

    @property
    def n_shards(self) -> int:
        """Shard files."""
        return math.ceil(self.n_chunks / self.chunks_per_shard)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one decoded chunk."""
        return self.n_channels * self.chunk_len * 2


def index_path(store: L) -> L:
    """Return where the index lies."""
    return store / "index.parquet"


def recording_path(store: L, recording_id: str) -> L:
    """Return the folder of a recording's group."""
    return store / "recordings" / recording_id


def shard_path(signal: L, number: int) -> L:
    """Return the file of one shard of an array."""
    return signal / "c" / "0" / str(number)


def group_metadata(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def array_metadata(grid: ChunkGrid, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``zarr.json`` of a signal array."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [grid.n_channels, grid.n_times],
        "data_type": "int16",
        "chunk_grid": {
            "name": "regular",
            "configuration": {
                "chunk_shape": [grid.n_channels, grid.chunk_len * grid.chunks_per_shard]
            },
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [grid.n_channels, grid.chunk_len],
                    "codecs": CHUNK_CODECS,
                    "index_codecs": INDEX_CODECS,
                    "index_location": "end",
                },
            }
        ],
        "dimension_names": ["channel", "time"],
        "attributes": dict(attributes),
        "storage_transformers": [],
    }


def plain(value: Any) -> Any:
    """Return `value` as what JSON can say: numpy becomes lists, not-a-number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def read_json(path: Location, where: str) -> dict[str, Any]:
    """Read one ``zarr.json``.

    Raises
    ------
    StoreError
        If it is missing or damaged; `where` says what it belongs to.
    """
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{where}: {path} is missing", hint=REPAIR) from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{where}: {path} cannot be read: {error}", hint=REPAIR) from None
    if not isinstance(table, dict):
        raise StoreError(f"{where}: {path} holds no metadata", hint=REPAIR)
    return table


REPAIR = (
    "`neurofm remove` it and preprocess the recording again; "
    "`neurofm inspect --verify` lists everything that is damaged"
)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_synced(path: Location, data: bytes) -> None:
    """Replace a file in one step: a reader sees the old bytes or the new, never a half."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # where the disk is full, room is what is missing
    sync_folder(path.parent)


def write_metadata(folder: Location, metadata: Mapping[str, Any]) -> None:
    """Write the ``zarr.json`` of a node."""
    path, data = folder / "zarr.json", json.dumps(metadata, allow_nan=False).encode()
    if isinstance(path, RemotePath):
        path.write_bytes(data)
    else:
        write_synced(path, data)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file, made if absent; it is dropped when the process dies.

    Yields whether the lock was taken, which is always True when `wait` is.
    """
    with ExitStack() as held:
        while True:
            file = held.enter_context(path.open("ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            if _is_at(path, file):
                yield True
                return
            held.close()  # whoever held it removed it: another process may lock a new one


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False

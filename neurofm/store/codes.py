"""Codes of a tokenizer beside the signal: an array for each recording, read like its samples.

.. code-block:: text

    recordings/<recording_id>/codes-<identity>/   int16 array (codes of a window, windows)

A chunk is a window. Which windows there are, and whose codes they are, the attributes say: `starts`
(first samples), ``token_shape`` (sites, patches, moments, levels), ``identity`` of the tokenizer.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofm.errors import StoreError, StoreUnwritable
from neurofm.files import sync_folder
from neurofm.store.array import SignalArray
from neurofm.store.layout import (
    ChunkGrid,
    array_metadata,
    read_json,
    recording_path,
    shard_path,
    write_metadata,
)
from neurofm.store.remote import Location, RemotePath, location
from neurofm.store.shard import write_shard
from neurofm.store.staging import staged_array
from neurofm.store.windows import ShardReader

if TYPE_CHECKING:
    from neurofm.store.reader import Store

PREFIX = "codes-"
KNOWN_ARRAYS = 4096  # some 2 kB each, and 100 bytes a window
MOST_CODES = np.iinfo(np.int16).max + 1  # of a level
AGAIN = "`neurofm codes TOKENIZER STORE` computes what is missing"


@dataclass(frozen=True, kw_only=True)
class CodesOf:
    """Whose codes: what an array of them says of its tokenizer.

    Attributes
    ----------
    identity : str
        Digest of architecture, contract and weights.
    about : mapping
        Plain values for people: the tokenizer's config, its weights' digest.
    n_times : int
        Samples of a window.
    """

    identity: str
    about: Mapping[str, Any]
    n_times: int

    def path(self, store: Location, recording_id: str) -> Location:
        """Return the folder of a recording's codes."""
        return recording_path(store, recording_id) / f"{PREFIX}{self.identity}"


class CodesArray(SignalArray):
    """The codes of one recording.

    Attributes
    ----------
    token_shape : tuple of int
        Sites, patches, moments and levels of a window.
    windows : dict of int to int
        First sample of each window, and its number.
    """

    @classmethod
    def of(cls, path: Location, recording_id: str) -> CodesArray:
        """Read the array's metadata from its folder."""
        return cls(path, read_json(path / "zarr.json", recording_id), recording_id)

    def _parse(self, metadata: dict[str, Any]) -> None:
        about = metadata["attributes"]
        n_codes = int(metadata["shape"][0])
        unit = {"scale": [1.0] * n_codes, "divisor": [1.0] * n_codes}
        super()._parse({**metadata, "attributes": unit})
        self.identity = str(about["identity"])
        self.n_times = int(about["n_times"])
        self.token_shape = tuple(int(n) for n in about["token_shape"])
        self.windows = {int(start): i for i, start in enumerate(about["starts"])}
        if np.prod(self.token_shape) != n_codes or len(self.windows) != self.grid.n_times:
            raise ValueError(f"{self.token_shape} codes of {len(self.windows)} windows")


class StoredCodes:
    """The codes of one tokenizer in a store.

    Parameters
    ----------
    store : Store
        Where they are.
    whose : CodesOf
        The tokenizer.
    """

    def __init__(self, store: Store, whose: CodesOf):
        self.store, self.whose = store, whose
        self._shards = ShardReader()
        self._array: Callable[[str], CodesArray] = lru_cache(KNOWN_ARRAYS)(self._load)

    def has(self, recording_id: str) -> bool:
        """Tell whether a recording has codes of this tokenizer."""
        return (self.whose.path(self.store.path, recording_id) / "zarr.json").is_file()

    def require(self, recording_ids: Iterable[str]) -> None:
        """Make sure that recordings have codes of this tokenizer.

        Raises
        ------
        StoreError
            If one has none; the message tells of which tokenizers there are.
        """
        absent = [name for name in recording_ids if not self.has(name)]
        if absent:
            raise self._absent(absent)

    def read_codes(self, recording_id: str, start: int) -> np.ndarray:
        """Return the codes of the window that begins at sample `start`.

        Returns
        -------
        ndarray of int16, shape (S, P, M, Q)
            Sites, patches, moments, levels.

        Raises
        ------
        StoreError
            If there are none, or they are damaged.
        """
        array = self._array(recording_id)
        window = array.windows.get(start)
        if window is None:
            raise StoreError(
                f"{recording_id}: no codes of the window from sample {start} on; there are "
                f"{len(array.windows)} windows, as a loader with cut: grid takes them",
                hint=AGAIN,
            )
        codes = np.empty((array.grid.n_channels, 1), np.int16)
        self._shards.counts_into(array, window, codes)
        return codes.reshape(array.token_shape)

    def _load(self, recording_id: str) -> CodesArray:
        path = self.whose.path(self.store.path, recording_id)
        if not (path / "zarr.json").is_file():
            raise self._absent([recording_id])
        array = CodesArray.of(path, recording_id)
        for what, found, wanted in (
            ("tokenizer", array.identity, self.whose.identity),
            ("samples a window", array.n_times, self.whose.n_times),
        ):
            if found != wanted:
                raise StoreError(
                    f"{recording_id}: {path} says of its codes {what} {found}, expected {wanted}",
                    hint=f"delete the folder; {AGAIN}",
                )
        return array

    def _absent(self, names: Sequence[str]) -> StoreError:
        others = sorted(identities(self.store.path, names[0]) - {self.whose.identity})
        there = f"; there are codes of {', '.join(others)}" if others else ""
        return StoreError(
            f"{self.store.path}: {len(names)} recording(s), such as {names[0]}, have no codes of "
            f"the tokenizer {self.whose.identity}{there}",
            hint=f"{AGAIN}; codes of another tokenizer, or under another contract, are not the same"
            if others
            else AGAIN,
        )


def codes_of_recording(store: Location, recording_id: str) -> dict[str, CodesArray]:
    """Return all arrays of codes of a recording, by their names.

    Raises
    ------
    StoreError
        If one is damaged.
    """
    folder = recording_path(store, recording_id)
    return {
        name: CodesArray.of(folder / name, recording_id)
        for identity in sorted(identities(store, recording_id))
        if (folder / (name := f"{PREFIX}{identity}") / "zarr.json").is_file()
    }


def identities(store: Location, recording_id: str) -> set[str]:
    """Return the tokenizers of which a recording has codes; none where nothing can be listed."""
    folder = recording_path(store, recording_id)
    try:
        names = (
            {name.partition("/")[0] for name in folder.files()}
            if isinstance(folder, RemotePath)
            else {p.name for p in folder.iterdir()}
        )
    except OSError:
        return set()
    return {name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)}


def write_codes(
    store: str | Location,
    recording_id: str,
    whose: CodesOf,
    starts: Sequence[int],
    codes: Iterable[np.ndarray],
) -> None:
    """Write the codes of a recording; they are there complete or not at all.

    Parameters
    ----------
    store : Path or RemotePath
        The store.
    recording_id : str
        A recording in it.
    whose : CodesOf
        The tokenizer.
    starts : sequence of int
        First sample of each window; one at least.
    codes : iterable of ndarray of int, shape (S, P, M, Q)
        Of each window in order, all of one shape. Drawn one at a time.

    Raises
    ------
    StoreError
        If a code is no number from 0 to 32767.
    StoreUnwritable
        If the store cannot be written.
    """
    name = f"{PREFIX}{whose.identity}"
    with staged_array(location(store), recording_id, name) as folder:
        drawn = iter(codes)
        first = next(drawn)
        shape = first.shape
        chunks = _columns(recording_id, itertools.chain([first], drawn), starts, shape)
        grid = ChunkGrid.plan(first.size, len(starts), 1)
        shard_path(folder, 0).parent.mkdir(parents=True)
        for number in range(grid.n_shards):
            part = itertools.islice(chunks, grid.chunks_per_shard)
            write_shard(shard_path(folder, number), part, grid.chunks_per_shard)
        attributes = {
            "identity": whose.identity,
            "tokenizer": dict(whose.about),
            "n_times": whose.n_times,
            "token_shape": list(shape),
            "starts": [int(start) for start in starts],
        }
        metadata = array_metadata(grid, attributes) | {"dimension_names": ["code", "window"]}
        write_metadata(folder, metadata)
        for changed in (folder / "c" / "0", folder / "c", folder):
            sync_folder(changed)


def _columns(
    recording_id: str, codes: Iterable[np.ndarray], starts: Sequence[int], shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Yield the codes of each window as a chunk, (n, 1)."""
    for window, _ in zip(codes, starts, strict=True):
        if window.shape != shape or window.min() < 0 or window.max() >= MOST_CODES:
            raise StoreError(
                f"{recording_id}: codes of shape {window.shape} from {window.min()} to "
                f"{window.max()}, expected {shape} from 0 to {MOST_CODES - 1}"
            )
        yield window.reshape(-1, 1).astype("<i2")


def drop_codes(store: Location, recording_id: str, identity: str) -> bool:
    """Delete the codes of one tokenizer of a recording; tell whether there were any.

    Raises
    ------
    StoreUnwritable
        If they cannot be deleted.
    """
    folder = recording_path(store, recording_id) / f"{PREFIX}{identity}"
    try:
        if isinstance(folder, RemotePath):
            files = folder.files()
            folder.remove([name for name in files if name == "zarr.json"])
            folder.remove([name for name in files if name != "zarr.json"])
            return bool(files)
        if not folder.exists():
            return False
        (folder / "zarr.json").unlink(missing_ok=True)  # then there are none
        shutil.rmtree(folder)
    except OSError as error:
        raise StoreUnwritable(
            f"codes of {recording_id} cannot be deleted from {store}: {error}",
            hint="is the store read-only?",
        ) from None
    return True

"""The array ``signal`` of one recording: its metadata, and chunks decoded."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from crc32c import crc32c
from numcodecs import blosc

from neurofm.errors import StoreError
from neurofm.store.factors import Factors
from neurofm.store.layout import REPAIR, ChunkGrid, read_json
from neurofm.store.remote import Location
from neurofm.store.shard import OpenShard, Scratch


class SignalArray:
    """The array ``signal`` of one recording, read without zarr-python.

    Parameters
    ----------
    path : Path or RemotePath
        Folder of the array.
    metadata : dict
        Its parsed ``zarr.json``.
    name : str
        The recording, for messages.

    Attributes
    ----------
    grid : ChunkGrid
        Shape and layout.
    scale, divisor : ndarray of float32, shape (C,)
        SI units per count, and per standard unit.
    to_si, to_standard : Factors
        What counts are multiplied by to become SI, and to become unitless.

    Raises
    ------
    StoreError
        If the array is laid out in a way that this reader does not know.
    """

    def __init__(self, path: Location, metadata: dict[str, Any], name: str):
        self.path = path
        self.name = name
        try:
            self._parse(metadata)
        except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
            raise StoreError(
                f"{name}: {path / 'zarr.json'} is not the int16 array neurofm writes "
                f"({type(error).__name__}: {error})",
                hint=REPAIR,
            ) from None

    @classmethod
    def load(cls, path: Location, name: str) -> SignalArray:
        """Read the array's metadata from its folder."""
        return cls(path, read_json(path / "zarr.json", name), name)

    def _parse(self, metadata: dict[str, Any]) -> None:
        (sharding,) = metadata["codecs"]
        sharded = sharding["configuration"]
        n_channels, n_times = metadata["shape"]
        _, shard_len = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        chunk_channels, chunk_len = sharded["chunk_shape"]
        codecs = [codec["name"] for codec in sharded["codecs"]]
        found = (sharding["name"], metadata["data_type"], chunk_channels, shard_len % chunk_len)
        if found != ("sharding_indexed", "int16", n_channels, 0):
            raise ValueError(f"layout {found}")
        if codecs not in (["bytes", "blosc"], ["bytes", "blosc", "crc32c"]) or any(
            codec["configuration"]["endian"] != "little"
            for codec in (sharded["codecs"][0], sharded["index_codecs"][0])
        ):
            raise ValueError(f"codecs {codecs}")
        if [codec["name"] for codec in sharded["index_codecs"]] != ["bytes", "crc32c"]:
            raise ValueError("index codecs")
        self.grid = ChunkGrid(n_channels, n_times, chunk_len, shard_len // chunk_len)
        self.checksummed = codecs[-1] == "crc32c"
        self.index_at_end = sharded["index_location"] == "end"
        self.scale, self.divisor = (
            np.asarray(metadata["attributes"][name], np.float32).reshape(n_channels)
            for name in ("scale", "divisor")
        )
        if not all((np.isfinite(x) & (x > 0)).all() for x in (self.scale, self.divisor)):
            raise ValueError("a scale or divisor is not a positive number")
        self.to_si, self.to_standard = Factors(self.scale), Factors(self.scale / self.divisor)

    def open_shard(self, number: int) -> OpenShard:
        """Open one shard."""
        return OpenShard(self.path, self.grid, number, self.index_at_end, self.name)

    def decode(self, shard: OpenShard, chunk: int, out: np.ndarray) -> None:
        """Read and decode one chunk into `out`, as `decode_read`."""
        slot = chunk % self.grid.chunks_per_shard
        try:
            data = shard.read_chunk(slot, Scratch())
        except OSError as error:
            raise self.damaged(shard, chunk, error) from None
        self.decode_read(shard, chunk, data, out)

    def decode_read(
        self, shard: OpenShard, chunk: int, data: memoryview | None, out: np.ndarray
    ) -> None:
        """Decode one chunk that was read into `out`.

        Parameters
        ----------
        shard : OpenShard
            The shard that holds it.
        chunk : int
            Number of the chunk in the array.
        data : memoryview or None
            What `OpenShard.read_chunk` returned of it.
        out : ndarray of int16, shape (C, L)
            Written over; contiguous.

        Raises
        ------
        StoreError
            If the chunk is damaged.
        """
        if data is None:
            out.fill(0)
            return
        slot = chunk % self.grid.chunks_per_shard
        n_encoded = len(data) - 4 if self.checksummed else len(data)
        try:
            if self.checksummed and not shard.verified[slot]:  # once for each time it is opened
                # a few microseconds: to get the interpreter back from another thread takes longer
                checksum = crc32c(data[:n_encoded], gil_release_mode=0)
                if struct.pack("<I", checksum) != data[n_encoded:]:
                    raise ValueError("its checksum does not match")
                shard.verified[slot] = True
            # a frame of another size would leave part of `out` as it was
            if struct.unpack_from("<I4xI", data, 4) != (self.grid.chunk_bytes, n_encoded):
                raise ValueError("its frame has the wrong size")
            blosc.decompress(data[:n_encoded], out)
        except (ValueError, RuntimeError, struct.error) as error:
            raise self.damaged(shard, chunk, error) from None

    def damaged(self, shard: OpenShard, chunk: int, error: Exception) -> StoreError:
        """Return the error that says so."""
        return StoreError(
            f"{self.name}: chunk {chunk} in shard {shard.path} is damaged: {error}", hint=REPAIR
        )

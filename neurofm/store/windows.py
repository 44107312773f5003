"""Stretches of samples out of signal arrays: which chunks, read at once, cut and scaled."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from neurofm.errors import StoreError
from neurofm.store.array import SignalArray
from neurofm.store.factors import Factors
from neurofm.store.shard import OpenShard, Scratch

MOST_COUNTS = 1 << 20  # of a stretch that is scaled at once; what a thread keeps is bounded by it
MOST_READ = 4_000_000  # bytes of decoded chunks that are read at once


def open_shards_allowed() -> int:
    """Return how many shards a store may hold open: a quarter of what the process may."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(16, min(4096, soft // 4))


def fits_memory(n_bytes: int) -> bool:
    """Return whether that many bytes of files take half of the memory that is free, or less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return False
    free = next((int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")), 0)
    return n_bytes <= free * 1024 // 2


class ShardReader:
    """Copies stretches of samples out of signal arrays, with a bounded set of open shards.

    Every thread has memory of its own to read and decode into, so that nothing is allocated
    for a window once the first has been read.

    Parameters
    ----------
    open_shards : int, optional
        Shards held open; by default a quarter of the files that the process may open.
    whole : bool
        Whether the first read that waits for a shard has all of it fetched: a disk reads a few
        long stretches faster than many short ones, and what follows is in memory by then.
    """

    def __init__(self, open_shards: int | None = None, *, whole: bool = False):
        self._whole = whole
        self._shard: Callable[[SignalArray, int], OpenShard] = lru_cache(
            open_shards_allowed() if open_shards is None else open_shards
        )(SignalArray.open_shard)
        self._local = threading.local()

    def expect(self, stretches: Iterable[tuple[SignalArray, int, int]]) -> None:
        """Be told what this thread is about to read.

        Nothing is done as long as what is read lies in memory. The first read that has to wait
        for the disk has the system begin with all the others.

        Parameters
        ----------
        stretches : iterable of (SignalArray, int, int)
            Arrays, first samples and the samples after the last. Gone through at the first
            read that waits, or never.
        """
        if hasattr(os, "posix_fadvise"):
            self._scratch().on_miss = partial(self._fetch_ahead, stretches)

    def _fetch_ahead(self, stretches: Iterable[tuple[SignalArray, int, int]]) -> None:
        try:
            for array, start, stop in stretches:
                grid = array.grid
                first, last = start // grid.chunk_len, -(-stop // grid.chunk_len)
                while first < last:
                    number, slot = divmod(first, grid.chunks_per_shard)
                    n = min(last - first, grid.chunks_per_shard - slot)
                    shard = self._shard(array, number)
                    shard.fetch_ahead(range(slot, slot + n), whole=self._whole)
                    first += n
        except (StoreError, OSError):  # raised again, and told of, where that window is read
            return

    def counts_into(self, array: SignalArray, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) with int16 counts from sample `start` on."""
        self._fill(array, start, out, self._scratch())

    def scaled_into(
        self,
        array: SignalArray,
        start: int,
        out: np.ndarray,
        factors: Factors,
        clip: float | None = None,
    ) -> None:
        """Fill `out` (C, n) float32 with counts times `factors`, held within plus and minus `clip`.

        Parameters
        ----------
        array : SignalArray
            What to read.
        start : int
            First sample.
        out : ndarray of float32, shape (C, n)
            Written over.
        factors : Factors
            Value of a count, by channel.
        clip : float, optional
            Largest magnitude.
        """
        scratch = self._scratch()
        n_rows, n_times = out.shape
        step = max(1, MOST_COUNTS // n_rows)
        for at in range(0, n_times, step):
            part = out[:, at : at + step]
            counts = scratch.window(n_rows, part.shape[1])
            self._fill(array, start + at, counts, scratch)
            factors.scale(counts, part, clip)

    def _scratch(self) -> Scratch:
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch()
        return scratch

    def _fill(self, array: SignalArray, start: int, out: np.ndarray, scratch: Scratch) -> None:
        length = array.grid.chunk_len
        stop = start + out.shape[1]
        if start % length == 0 and out.shape[1] == length and out.flags.c_contiguous:
            self._decode_whole(array, start // length, out, scratch)
            return
        for chunk, counts in self._chunks(array, start // length, -(-stop // length), scratch):
            first = chunk * length
            a, b = max(start, first), min(stop, first + length)
            out[:, a - start : b - start] = counts[:, a - first : b - first]

    def _decode_whole(
        self, array: SignalArray, chunk: int, out: np.ndarray, scratch: Scratch
    ) -> None:
        """Decode one chunk to where it is wanted, without a copy of it in between."""
        number, slot = divmod(chunk, array.grid.chunks_per_shard)
        shard = self._shard(array, number)
        try:
            data = shard.read_chunk(slot, scratch)
        except OSError as error:
            raise array.damaged(shard, chunk, error) from None
        array.decode_read(shard, chunk, data, out)

    def _chunks(
        self, array: SignalArray, first: int, last: int, scratch: Scratch
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield chunks `first` to `last` - 1, decoded; each is the caller's until the next."""
        grid = array.grid
        counts = scratch.counts(grid.n_channels, grid.chunk_len)
        if scratch.holds == (array, first):  # consecutive windows share one
            yield first, counts
            first += 1
        at_once = max(1, MOST_READ // grid.chunk_bytes)
        while first < last:
            number, slot = divmod(first, grid.chunks_per_shard)
            n = min(last - first, grid.chunks_per_shard - slot, at_once)
            shard = self._shard(array, number)
            try:
                encoded = shard.read_chunks(range(slot, slot + n), scratch)
            except OSError as error:
                raise array.damaged(shard, first, error) from None
            for chunk, data in enumerate(encoded, first):
                scratch.holds = None
                array.decode_read(shard, chunk, data, counts)
                scratch.holds = (array, chunk)
                yield chunk, counts
            first += n

"""Which windows, in which order: a pure function of (seed, epoch, step).

No array here is as long as the number of windows. A window is a number; where it lies follows
from cumulative counts over good spans, and shuffling is a permutation of numbers that is
computed where it is needed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from neurofm.config import Config
from neurofm.errors import ConfigError, SignalError

Cut = Literal["grid", "anywhere"]
Parallel = Literal["auto", "processes", "threads"]
_ROUNDS = 6
_FEW = 1024
_REMEMBERED = 65536  # a permutation of as many takes 10 ms and 512 kB


class LoaderConfig(Config):
    """How windows become batches.

    Parameters
    ----------
    token_budget : int
        Channels times patches in a batch, at most; a window is never split.
    workers : int
        Processes, or threads, that read and decode.
    parallel : "auto", "processes" or "threads"
        Which of the two. Processes wait for nobody, and are forked; ``auto`` takes them where
        that is safe: on Linux, for stores on a disk. Threads read over a network.
    prefetch : int
        Batches made ahead of the consumer.
    cut : "grid" or "anywhere"
        Where windows begin; see `WindowPlan`.
    """

    token_budget: int = Field(default=8192, ge=1)
    workers: int = Field(default=2, ge=1)
    parallel: Parallel = "auto"
    prefetch: int = Field(default=4, ge=1)
    cut: Cut = "grid"

    def plan(self, index: pd.DataFrame, *, n_times: int, patches: int, seed: int) -> WindowPlan:
        """Return the plan of windows that follows from these settings; see `WindowPlan`."""
        return WindowPlan(
            index,
            n_times=n_times,
            patches=patches,
            token_budget=self.token_budget,
            seed=seed,
            cut=self.cut,
        )

    def order(self) -> dict[str, Any]:
        """Return the settings that decide which windows a step holds; the others only how fast."""
        return self.model_dump(include={"token_budget", "cut"})


class WindowRef(NamedTuple):
    """One window: a recording, and the sample it starts at."""

    recording_id: str
    start: int


@dataclass(frozen=True, eq=False)
class _Bucket:
    """The spans of all recordings with one number of channels; arrays are (n_spans,)."""

    n_channels: int
    batch_size: int
    recording: np.ndarray  # row in the plan's recording_ids
    start: np.ndarray  # first sample of the span
    slack: np.ndarray  # samples left over when the span is full of windows
    stop: np.ndarray  # cumulative number of windows, this span included

    @property
    def name(self) -> str:
        return f"{self.n_channels} channels"

    @property
    def n_windows(self) -> int:
        return int(self.stop[-1])

    @property
    def n_batches(self) -> int:
        return -(-self.n_windows // self.batch_size)


class WindowPlan:
    """Every window of every good span once an epoch, shuffled, in batches of one montage size.

    Windows tile each span. On the ``grid`` they begin at whole multiples of their length in
    the recording, where the chunks of a store begin, wherever that costs no window; cut
    ``anywhere`` they begin at a phase drawn anew each epoch, so that over epochs a model sees
    a recording cut at every place: for small sets, as a window then takes two chunks. Batches of
    one bucket differ in size by at most one.

    Parameters
    ----------
    index : DataFrame
        The index of a store; needs recording_id, n_channels, n_times, sfreq and spans.
    n_times : int
        Samples in a window.
    patches : int
        Tokens a channel makes of a window.
    token_budget : int
        Channels times patches in a batch, at most; one window at least.
    seed : int
        Everything random follows from it.
    cut : "grid" or "anywhere"
        Where windows begin.

    Attributes
    ----------
    n_windows : int
        Windows in an epoch.
    steps_per_epoch : int
        Batches in an epoch.

    Raises
    ------
    ConfigError
        If a length is not positive.
    SignalError
        If no good span is as long as a window.
    """

    def __init__(
        self,
        index: pd.DataFrame,
        *,
        n_times: int,
        patches: int,
        token_budget: int,
        seed: int,
        cut: Cut = "grid",
    ):
        for name, value in (
            ("n_times", n_times),
            ("patches", patches),
            ("token_budget", token_budget),
        ):
            if value < 1:
                raise ConfigError(f"{name} must be positive, got {value}")
        self.n_times = n_times
        self.seed = seed
        self.cut = cut
        self._recording_ids, spans = _spans(index)
        fitting = spans[spans["stop"] - spans["start"] >= n_times]
        if fitting.empty:
            raise _no_window(spans, n_times)
        by_channels = {
            n: fitting[fitting["n_channels"] == n]
            for n in sorted(set(fitting["n_channels"].tolist()))
        }
        self._buckets = [
            _bucket(n, rows, n_times, max(1, token_budget // (n * patches)))
            for n, rows in by_channels.items()
        ]
        self.n_windows = sum(bucket.n_windows for bucket in self._buckets)
        self._batch_stop = np.cumsum([bucket.n_batches for bucket in self._buckets])
        self.steps_per_epoch = int(self._batch_stop[-1])

    def batch(self, step: int) -> tuple[WindowRef, ...]:
        """Return the windows of one global step.

        Parameters
        ----------
        step : int
            From zero on; the epoch is ``step // steps_per_epoch``.

        Returns
        -------
        tuple of WindowRef
            In order; all from recordings with the same number of channels.
        """
        if step < 0:
            raise ConfigError(f"step must not be negative, got {step}")
        epoch, step = divmod(step, self.steps_per_epoch)
        number = int(
            permute(np.array([step]), self.steps_per_epoch, f"{self.seed}/{epoch}/steps")[0]
        )
        which = int(np.searchsorted(self._batch_stop, number, side="right"))
        bucket = self._buckets[which]
        number -= int(self._batch_stop[which]) - bucket.n_batches
        # cut evenly: batches of a bucket differ by one window at most
        first, stop = (bucket.n_windows * n // bucket.n_batches for n in (number, number + 1))
        key = f"{self.seed}/{epoch}/{bucket.name}"
        windows = permute(np.arange(first, stop), bucket.n_windows, key)
        return self._locate(bucket, windows, epoch)

    def most_samples(self, world: int = 1) -> int:
        """Return how many samples, of all channels, a rank's part of a batch has at most."""
        return self.n_times * max(
            bucket.n_channels * math.ceil(math.ceil(bucket.n_windows / bucket.n_batches) / world)
            for bucket in self._buckets
        )

    def _locate(self, bucket: _Bucket, windows: np.ndarray, epoch: int) -> tuple[WindowRef, ...]:
        spans = np.searchsorted(bucket.stop, windows, side="right")
        within = windows - np.where(spans > 0, bucket.stop[spans - 1], 0)
        names = self._recording_ids.take(bucket.recording[spans]).to_pylist()
        starts, slack = bucket.start[spans], bucket.slack[spans]
        starts = starts + self._phase(names, starts, slack, epoch) + within * self.n_times
        return tuple(map(WindowRef, names, starts.tolist()))

    def _phase(
        self, names: Sequence[str], starts: np.ndarray, slack: np.ndarray, epoch: int
    ) -> np.ndarray:
        """Return how many samples of each span lie before its first window."""
        if self.cut == "anywhere":
            keys = (
                f"{self.seed}/{epoch}/{name}/{start}"
                for name, start in zip(names, starts, strict=True)
            )
            drawn = np.fromiter(map(_draw, keys), np.uint64, len(names))
            return (drawn % (slack + 1).astype(np.uint64)).astype(np.int64)
        to_grid = -starts % self.n_times
        return np.where(to_grid <= slack, to_grid, 0)


def _spans(index: pd.DataFrame) -> tuple[pa.Array, pd.DataFrame]:
    """Return the recordings by name, and all good spans in samples, those of one after another."""
    of_a_recording = ["sfreq", "n_times", "n_channels"]
    ordered = index[["recording_id", "spans", *of_a_recording]].sort_values("recording_id")
    schema = pa.schema([("recording_id", pa.string()), ("spans", pa.list_(pa.float64()))])
    columns = pa.Table.from_pandas(ordered, schema, preserve_index=False).columns
    ids, edges = (column.combine_chunks() for column in columns)
    recording = np.repeat(np.arange(len(ordered)), np.diff(edges.offsets) // 2)
    flat = edges.flatten().to_numpy().reshape(-1, 2)
    of_each = {name: ordered[name].to_numpy()[recording] for name in of_a_recording}
    # inwards to whole samples; a microsample of slack undoes the rounding of seconds
    start = np.ceil(flat[:, 0] * of_each["sfreq"] - 1e-6).astype(np.int64)
    stop = np.floor(flat[:, 1] * of_each["sfreq"] + 1e-6).astype(np.int64)
    table = {
        "recording": recording,
        "start": start,
        "stop": np.minimum(stop, of_each["n_times"]),
        "n_channels": of_each["n_channels"],
    }
    return ids, pd.DataFrame(table, dtype=np.int64)


def _bucket(n_channels: int, spans: pd.DataFrame, n_times: int, batch_size: int) -> _Bucket:
    length = (spans["stop"] - spans["start"]).to_numpy()
    return _Bucket(
        n_channels=n_channels,
        batch_size=batch_size,
        recording=spans["recording"].to_numpy(),
        start=spans["start"].to_numpy(),
        slack=length % n_times,
        stop=np.cumsum(length // n_times),
    )


def _no_window(spans: pd.DataFrame, n_times: int) -> SignalError:
    if spans.empty:
        return SignalError(
            "there is no good span to draw windows from",
            hint="the store is empty, or everything in it is marked BAD",
        )
    longest = int((spans["stop"] - spans["start"]).max())
    return SignalError(
        f"no good span holds a window of {n_times} samples; the longest has {longest}",
        hint="shorten window_s, or mark less as BAD",
    )


# ---------------------------------------------------------------------------------------
# Randomness without state


def _draw(key: str) -> int:
    """Return 64 bits that follow from the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def permute(numbers: np.ndarray | Sequence[int], n: int, key: str) -> np.ndarray:
    """Return the images of `numbers` under a permutation of 0..n-1 that `key` chooses.

    A Feistel network permutes the numbers of an even count of bits, whatever its round
    function; an image of n or more is permuted again until it falls below n. Of a few numbers
    it would prefer some orders, so a few are sorted by their hash instead.

    Parameters
    ----------
    numbers : array of int, shape (k,)
        Each from 0 to n - 1.
    n : int
        Size of what is permuted; beyond some size neither time nor memory depend on it.
    key : str
        Names the permutation.

    Returns
    -------
    ndarray of int64, shape (k,)
        Their places.
    """
    if n <= _REMEMBERED:
        return _whole(n, key)[numbers]
    return _permute(np.asarray(numbers), n, key)


@lru_cache(32)
def _whole(n: int, key: str) -> np.ndarray:
    """Return a whole permutation: looked up, a batch takes a twentieth of the time."""
    if n > _FEW:
        return _permute(np.arange(n), n, key)
    return np.argsort(_mix(np.arange(n, dtype=np.uint64) + np.uint64(_draw(key))))


def _permute(numbers: np.ndarray, n: int, key: str) -> np.ndarray:
    half = ((n - 1).bit_length() + 1) // 2
    keys = [np.uint64(_draw(f"{key}/{i}")) for i in range(_ROUNDS)]
    image = numbers.astype(np.uint64)
    todo = np.ones(image.shape, bool)
    while todo.any():
        image[todo] = _feistel(image[todo], keys, half)
        todo = image >= n
    return image.astype(np.int64)


def _feistel(numbers: np.ndarray, keys: Sequence[np.uint64], half: int) -> np.ndarray:
    shift, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = numbers >> shift, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """Scramble 64 bits (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

"""Who and what is in two stores at once: by names, by files, and by the signals themselves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from neurofm.store.fingerprint import (
    APART,
    BAND_HZ,
    FRAME_S,
    HOP_S,
    SHORTEST_S,
    Fingerprint,
    agreement,
    fingerprints,
)
from neurofm.store.reader import Store, open_store
from neurofm.store.remote import Location

# benchmarks/audit.py on real recordings: copies that were resampled, filtered, re-referenced,
# rounded or cut share 0.89 of the bits or more, 0.76 where half of the channels were dropped.
# Strangers reach 0.64 and 5.5 deviations, at the best of all shifts of 5700 pairs.
LEAST_SHARE = 0.7
LEAST_DEVIATIONS = 7.0  # one chance in 10^11 for each place compared
NARROWEST_HZ = 12.0  # sixteen bands of less than that are two bins each, or fewer
MOST_LIKELY = 8  # places two recordings are laid together at
LEAST_VOTES = 2
FEWEST_BITS = 18
TOO_COMMON = 100  # a word in so many places tells nothing


@dataclass(frozen=True, order=True)
class SignalMatch:
    """Two recordings that hold the same stretch of signal.

    Attributes
    ----------
    a, b : str
        Recording ids.
    start_a_s, start_b_s : float
        Where the stretch begins in each.
    duration_s : float
        How long it is.
    share : float
        Of fingerprint bits that are equal; strangers share one half.
    """

    a: str
    b: str
    start_a_s: float
    start_b_s: float
    duration_s: float
    share: float


@dataclass(frozen=True)
class Audit:
    """What two stores have in common.

    Attributes
    ----------
    a, b : str
        The stores.
    recordings : tuple of str
        Recording ids that are in both.
    sources : tuple of (str, str)
        Recordings made of files with the same bytes.
    people : tuple of (str, str)
        Subjects by dataset and name, in both stores' spelling.
    signals : tuple of SignalMatch
        Recordings with the same stretch of signal.
    not_compared : tuple of str
        What the search for signals had to leave out, and why.
    """

    a: str
    b: str
    recordings: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    people: tuple[tuple[str, str], ...] = ()
    signals: tuple[SignalMatch, ...] = ()
    not_compared: tuple[str, ...] = field(default=())

    @property
    def disjoint(self) -> bool:
        """Tell whether nothing was found in both."""
        return not (self.recordings or self.sources or self.people or self.signals)

    def summary(self, most: int = 20) -> str:
        """Return text for a terminal, with at most so many lines of each kind."""
        signals = [
            f"{m.a} from {m.start_a_s:.2f} s = {m.b} from {m.start_b_s:.2f} s, "
            f"{m.duration_s:.0f} s ({m.share:.0%} of bits)"
            for m in self.signals
        ]
        parts = [
            ("recording ids", list(self.recordings)),
            ("files with the same bytes", [_pair(*pair) for pair in self.sources]),
            ("people", [_pair(*pair) for pair in self.people]),
            ("signals", signals),
        ]
        lines = [f"{self.a} and {self.b} have in common:"]
        for title, found in parts:
            lines.append(f"{title}: {len(found) or 'none'}")
            lines += [f"  {line}" for line in found[:most]]
            if len(found) > most:
                lines.append(f"  and {len(found) - most} more")
        lines += [f"not compared: {why}" for why in self.not_compared]
        return "\n".join(lines)


def audit(
    a: str | Location | Store,
    b: str | Location | Store,
    *,
    signals: bool = True,
    threads: int | None = None,
) -> Audit:
    """Find the people, files and signals that are in both of two stores.

    Signals are compared by fingerprints that survive resampling, filtering, re-referencing,
    another unit or file format, and cutting. They are computed here, which reads both stores
    once. Of a copy, twenty seconds are enough; less than ten are not compared. A store may be
    compared with itself: then what it holds twice is found.

    Parameters
    ----------
    a, b : str, Path, RemotePath or Store
        The stores; their contracts may differ.
    signals : bool
        Whether to compare signals, not only names and hashes.
    threads : int, optional
        Recordings read at a time; by default one a core.

    Returns
    -------
    Audit
        What was found.

    Raises
    ------
    StoreError
        If a store is missing or damaged.
    """
    one, other = (s if isinstance(s, Store) else open_store(s) for s in (a, b))
    itself = one.path == other.path
    matches: list[SignalMatch] = []
    left_out: list[str] = []
    if signals:
        band = _common_band(one, other)
        if band is None:
            left_out.append("signals: the two stores share too narrow a band for fingerprints")
        else:
            matches, left_out = _signals(one, other, band, threads or os.cpu_count() or 1)
    return Audit(
        a=str(one.path),
        b=str(other.path),
        recordings=() if itself else tuple(sorted(_ids(one) & _ids(other))),
        sources=tuple(sorted(_same_sources(one.index, other.index, itself))),
        people=() if itself else tuple(sorted(_same_people(one.index, other.index))),
        signals=tuple(sorted(matches)),
        not_compared=tuple(left_out),
    )


def _pair(a: str, b: str) -> str:
    return a if a == b else f"{a} = {b}"


def _ids(store: Store) -> set[str]:
    return set(store.index["recording_id"])


def _same_sources(a: pd.DataFrame, b: pd.DataFrame, itself: bool) -> set[tuple[str, str]]:
    """Return pairs of recordings made of the same bytes."""
    columns = ["recording_id", "source_hash"]
    pairs = a.loc[a["source_hash"] != "", columns].merge(
        b.loc[b["source_hash"] != "", columns], on="source_hash"
    )
    found = zip(pairs["recording_id_x"], pairs["recording_id_y"], strict=True)
    return {(x, y) for x, y in found if not itself or x < y}


def _same_people(a: pd.DataFrame, b: pd.DataFrame) -> set[tuple[str, str]]:
    """Return subjects of one dataset, under whatever spelling of ``sub-01``, ``S1`` and ``1``."""
    here, there = _people(a), _people(b)
    return {
        (x, y) for person in here.keys() & there.keys() for x in here[person] for y in there[person]
    }


def _people(index: pd.DataFrame) -> dict[tuple[str, str], set[str]]:
    people: dict[tuple[str, str], set[str]] = {}
    names = index[["dataset", "subject"]].drop_duplicates()
    for dataset, subject in names.itertuples(index=False, name=None):
        bare = re.sub(r"^(subject|sub|s)[-_ ]?(?=\d)", "", subject.casefold()).lstrip("0")
        key = re.sub(r"[\W_]", "", dataset.casefold()), bare
        people.setdefault(key, set()).add(f"{dataset}/{subject}")
    return people


# ---------------------------------------------------------------------------------------
# Signals


@dataclass(frozen=True, eq=False)
class _Entry:
    """One kind of sensor in one recording."""

    recording_id: str
    fingerprint: Fingerprint


def _common_band(a: Store, b: Store) -> tuple[float, float] | None:
    low, high = BAND_HZ
    for contract in (a.contract, b.contract):
        low = max(low, contract.band_hz[0])
        high = min(high, contract.band_hz[1], 0.45 * contract.sfreq)
    return (low, high) if high - low >= NARROWEST_HZ else None


def _signals(
    a: Store, b: Store, band: tuple[float, float], threads: int
) -> tuple[list[SignalMatch], list[str]]:
    itself = a.path == b.path
    entries_a = _entries(a, band, threads)
    entries_b = entries_a if itself else _entries(b, band, threads)
    left_out = []
    for store in (a,) if itself else (a, b):
        short = int((store.index["duration_s"] < SHORTEST_S).sum())
        if short:
            left_out.append(
                f"signals of {short} recording(s) in {store.path} shorter than {SHORTEST_S:g} s"
            )
    best: dict[tuple[str, str], SignalMatch] = {}
    for x, y, lag in _likely(entries_a, entries_b):
        if itself and x.recording_id >= y.recording_id:
            continue
        match = _match(x, y, lag)
        if match is not None:
            pair = match.a, match.b
            if pair not in best or best[pair].duration_s < match.duration_s:
                best[pair] = match
    return list(best.values()), left_out


def _entries(store: Store, band: tuple[float, float], threads: int) -> list[_Entry]:
    sfreq = store.contract.sfreq

    def of(recording_id: str, n_times: int) -> list[_Entry]:
        kinds = store.sensors(recording_id).kind

        def read(start: int, stop: int) -> np.ndarray:
            out = np.empty((len(kinds), stop - start), np.float32)
            store.read_into(recording_id, start, out)
            return out

        found = fingerprints(read, n_times, sfreq, kinds, band)
        return [_Entry(recording_id, fingerprint) for fingerprint in found]

    names, lengths = store.index["recording_id"], store.index["n_times"]
    with ThreadPoolExecutor(threads) as pool:
        return [entry for found in pool.map(of, names, lengths) for entry in found]


def _likely(a: Sequence[_Entry], b: Sequence[_Entry]) -> Iterator[tuple[_Entry, _Entry, int]]:
    """Yield pairs that share words at one distance, and that distance in rows."""
    if not a:
        return
    parts = [entry.fingerprint.words() for entry in a]
    words = np.concatenate([part[0] for part in parts])
    mask = _mask(len(words))
    rows = np.concatenate([part[1] for part in parts])
    owners = np.repeat(np.arange(len(a)), [len(part[0]) for part in parts])
    order = np.argsort(words & mask, kind="stable")
    words, rows, owners = words[order] & mask, rows[order], owners[order]
    for entry in b:
        own, at = entry.fingerprint.words()
        left = np.searchsorted(words, own & mask, "left")
        counts = np.searchsorted(words, own & mask, "right") - left
        counts[counts > TOO_COMMON] = 0
        hits = np.repeat(left, counts) + _count_up(counts)
        lags = rows[hits] - np.repeat(at, counts)
        grouped = np.argsort(owners[hits], kind="stable")
        found, firsts = np.unique(owners[hits][grouped], return_index=True)
        for owner, own_lags in zip(found, np.split(lags[grouped], firsts)[1:], strict=True):
            for lag in _frequent(own_lags):
                yield a[owner], entry, lag


def _mask(n_words: int) -> int:
    """Choose which bits of a word to look up: the fewer, the more a copy may differ.

    Sixteen times as many words as there are keep those few that agree by chance.
    """
    n_bits = int(np.clip(np.ceil((np.log2(max(1, n_words)) + 4) / 2), FEWEST_BITS // 2, 15))
    half = (1 << n_bits) - 1
    return half << 15 | half


def _count_up(counts: np.ndarray) -> np.ndarray:
    """Return 0 .. n-1 for each n, end to end."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _frequent(lags: np.ndarray) -> list[int]:
    """Return the lags that come often, a quarter of a second more or less, best first."""
    found, counts = np.unique(lags, return_counts=True)
    near = np.abs(found[:, None] - found[None, :]) <= 1 if len(found) < 2000 else np.eye(len(found))
    votes = near @ counts
    chosen = np.argsort(-votes, kind="stable")[:MOST_LIKELY]
    return [int(found[i]) for i in chosen if votes[i] >= LEAST_VOTES]


def _match(x: _Entry, y: _Entry, lag: int) -> SignalMatch | None:
    """Compare all bits at a lag and its neighbours; None if they are strangers."""
    tried = [
        (agreement(x.fingerprint, y.fingerprint, near), near) for near in (lag - 1, lag, lag + 1)
    ]
    (share, deviations, n_rows), at = max(tried)
    if share < LEAST_SHARE or deviations < LEAST_DEVIATIONS:
        return None
    return SignalMatch(
        a=x.recording_id,
        b=y.recording_id,
        start_a_s=max(0, at) * HOP_S,
        start_b_s=max(0, -at) * HOP_S,
        duration_s=(n_rows + APART - 1) * HOP_S + FRAME_S,
        share=round(share, 3),
    )

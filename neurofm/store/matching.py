"""Stretches of signal that two stores share, found by their fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from neurofm.store.fingerprint import (
    APART,
    BAND_HZ,
    FRAME_S,
    HOP_S,
    N_BITS,
    SHORTEST_S,
    Fingerprint,
    agreement,
    fingerprints,
)
from neurofm.store.reader import Store

# benchmarks/audit.py on real recordings: copies that were resampled, filtered, re-referenced,
# rounded or cut share 0.89 of the bits or more, 0.72 where half of the channels were dropped.
# Strangers reach 0.64 and 5.5 deviations, at the best of all shifts of 5700 pairs.
LEAST_SHARE = 0.7
LEAST_DEVIATIONS = 7.0  # one chance in 10^11 for each place compared
NARROWEST_HZ = 12.0  # sixteen bands of less than that are two bins each, or fewer
MOST_LIKELY = 8  # places two recordings are laid together at
LEAST_VOTES = 2
FEWEST_BITS = 18
WORDS_AT_ONCE = 20_000_000  # 1400 hours, about 1 GB
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


@dataclass(frozen=True, eq=False)
class _Entry:
    """One kind of sensor in one recording."""

    recording_id: str
    fingerprint: Fingerprint


def common_band(a: Store, b: Store) -> tuple[float, float] | None:
    """Return what both contracts keep of the fingerprints' band; None if that is too little."""
    low, high = BAND_HZ
    for contract in (a.contract, b.contract):
        low = max(low, contract.band_hz[0])
        high = min(high, contract.band_hz[1], 0.45 * contract.sfreq)
    return (low, high) if high - low >= NARROWEST_HZ else None


def matching_signals(
    a: Store, b: Store, band: tuple[float, float], threads: int
) -> tuple[list[SignalMatch], list[str]]:
    """Find recordings that hold the same stretch of signal.

    Parameters
    ----------
    a, b : Store
        Two stores, or one and the same.
    band : (float, float)
        What `common_band` returned.
    threads : int
        Recordings read at a time.

    Returns
    -------
    matches : list of SignalMatch
        The longest stretch of each pair of recordings.
    left_out : list of str
        What was not compared, and why.
    """
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
    """Yield pairs that share words at one distance, and that distance in rows.

    The first store is gone through in parts, so that memory is needed for the words of a part.
    """
    rows = np.cumsum([len(entry.fingerprint) for entry in a])
    parts = rows // WORDS_AT_ONCE
    mask = _mask(min(WORDS_AT_ONCE, int(rows[-1])) if len(a) else 0)
    for number in np.unique(parts):
        yield from _likely_in([a[int(i)] for i in np.flatnonzero(parts == number)], b, mask)


def _likely_in(
    a: Sequence[_Entry], b: Sequence[_Entry], mask: int
) -> Iterator[tuple[_Entry, _Entry, int]]:
    parts = [entry.fingerprint.words() for entry in a]
    words = np.concatenate([part[0] for part in parts]) & mask
    rows = np.concatenate([part[1] for part in parts])
    owners = np.repeat(np.arange(len(a)), [len(part[0]) for part in parts])
    order = np.argsort(words, kind="stable")
    words, rows, owners = words[order], rows[order], owners[order]
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
    n_bits = int(np.clip(np.ceil((np.log2(max(1, n_words)) + 4) / 2), FEWEST_BITS // 2, N_BITS))
    half = (1 << n_bits) - 1
    return half << N_BITS | half


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

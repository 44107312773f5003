"""Who and what is in two stores at once: by names, by files, and by the signals themselves."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import pandas as pd

from neurofm.store.matching import SignalMatch, common_band, matching_signals
from neurofm.store.reader import Store, open_store
from neurofm.store.remote import Location


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
    not_compared: tuple[str, ...] = ()

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
        band = common_band(one, other)
        if band is None:
            left_out.append("signals: the two stores share too narrow a band for fingerprints")
        else:
            matches, left_out = matching_signals(one, other, band, threads or os.cpu_count() or 1)
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

"""Tables: a row a sample, as headbands and their apps write them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar, Literal

import mne
import numpy as np
import pandas as pd
from pydantic import Field

from neurofm.errors import SourceError, did_you_mean
from neurofm.preprocessing.lazy import (
    EDGE,
    VOLTS,
    ElectricKind,
    LazyRaw,
    Unit,
    annotate,
    find_gaps,
    make_info,
)
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import Reader

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class TableReader(Reader):
    """A CSV or TSV file with one row a sample; it is read as a whole.

    Lines that hold no numbers and rows that repeat an earlier one are left out and told. Gaps in
    time are joined and marked; without a column of time, so is what was left out.

    Parameters
    ----------
    sfreq : float
        Sampling rate in hertz.
    ch_names : tuple of str
        Columns that are channels, under the names they have in the file.
    unit : str
        What the numbers are in.
    kind : str
        The kind of the channels.
    time : str, optional
        Column of time stamps; without one, rows are taken to follow each other.
    time_unit : str
        What time stamps are in.
    markers : tuple of str
        Columns of triggers: each change to a number other than zero is an event.
    separator : str
        What stands between two columns.
    gap_s : float
        Time stamps further apart than this are a gap; what is shorter is jitter.
    bad_share : float
        The largest share of lines that may be left out.
    """

    name: Literal["table"]
    sfreq: float = Field(gt=0)
    ch_names: tuple[str, ...] = Field(min_length=1)
    unit: Unit
    kind: ElectricKind = "eeg"
    time: str | None = None
    time_unit: Literal["s", "ms", "us"] = "s"
    markers: tuple[str, ...] = ()
    separator: str = ","
    gap_s: float = Field(default=0.1, gt=0)
    bad_share: float = Field(default=0.1, ge=0, le=1)

    library: ClassVar[str] = "pandas"
    endings: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    def companions(self, path: Path) -> list[Path]:
        """Return nothing: a table is one file."""
        return []

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Read the table."""
        table = self._table(path, facts)
        # the table keeps the numbers of its rows: where one is missing, it was left out
        starts: list[int] = (np.flatnonzero(np.diff(table.index) > 1) + 1).tolist()
        if self.time is not None:
            times_s = table[self.time].to_numpy() * _SECONDS[self.time_unit]
            starts, notes = find_gaps(times_s, self.sfreq, self.gap_s, path)
            facts.notes += notes
        signal = table[list(self.ch_names)].to_numpy().T * VOLTS[self.unit]
        info = make_info(self.ch_names, self.sfreq, self.kind, path)
        raw = LazyRaw(path, info, signal.shape[1], lambda start, stop: signal[:, start:stop])
        events = [(start / self.sfreq, 0.0, EDGE) for start in starts]
        for column in self.markers:
            events += self._triggers(column, table[column].to_numpy())
        annotate(raw, events)
        return raw

    def _triggers(self, column: str, codes: np.ndarray) -> list[tuple[float, float, str]]:
        before = np.concatenate([[0.0], codes[:-1]])
        prefix = f"{column}/" if len(self.markers) > 1 else ""
        return [
            (at / self.sfreq, 0.0, f"{prefix}{codes[at]:g}")
            for at in np.flatnonzero((codes != before) & (codes != 0)).tolist()
        ]

    def _table(self, path: Path, facts: Facts) -> pd.DataFrame:
        """Return the wanted columns as numbers, without what is no sample."""
        wanted = [*([self.time] if self.time else []), *self.ch_names, *self.markers]
        try:
            numbers, n_odd = self._plain(path, wanted), 0
        except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning):
            numbers, n_odd = self._line_by_line(path, wanted)
        good = np.isfinite(numbers.to_numpy()).all(axis=1)
        again = numbers.duplicated().to_numpy() & good & (self.time is not None)
        n_odd, n_again, n_lines = n_odd + int((~good).sum()), int(again.sum()), len(numbers) + n_odd
        told = [f"{n_odd} lines that hold no numbers"] if n_odd else []
        told += [f"{n_again} rows that repeat an earlier one"] if n_again else []
        if n_odd + n_again > self.bad_share * n_lines or n_odd + n_again == n_lines:
            raise SourceError(
                f"{path}: {' and '.join(told) or 'no line'} of {n_lines} cannot be used",
                hint="look at the file; `bad_share` says how many lines may be left out",
            )
        if told:
            facts.notes.append(f"left out {' and '.join(told)} (of {n_lines})")
        return numbers[good & ~again]

    def _plain(self, path: Path, wanted: list[str]) -> pd.DataFrame:
        """Read a table in which nothing is odd, at the speed of pandas; raise if anything is."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path, sep=self.separator, usecols=list(dict.fromkeys(wanted)), dtype=np.float64,
                index_col=False, float_precision="round_trip",
            )[wanted]  # fmt: skip

    def _line_by_line(self, path: Path, wanted: list[str]) -> tuple[pd.DataFrame, int]:
        """Read what can be read, and count the lines that have too many cells."""
        odd: list[list[str]] = []
        try:
            text = pd.read_csv(
                path, sep=self.separator, dtype=str, on_bad_lines=odd.append, engine="python",
                encoding_errors="replace", index_col=False,
            )  # fmt: skip
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
            raise SourceError(f"{path}: not a table: {error}") from error
        for column in wanted:
            if column not in text.columns:
                raise SourceError(
                    f"{path}: no column {column!r}; found {', '.join(map(str, text.columns))}",
                    hint=did_you_mean(column, list(map(str, text.columns)))
                    or "correct the columns of the source's reader, or `separator`",
                )
        return text[wanted].apply(pd.to_numeric, errors="coerce").astype(float), len(odd)

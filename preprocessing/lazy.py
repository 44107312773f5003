"""Recordings that MNE has no reader for, as MNE recordings that read when they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import mne
import numpy as np

from neurofm.errors import SourceError

ElectricKind = Literal["eeg", "seeg", "ecog", "dbs"]
Unit = Literal["V", "mV", "uV", "nV"]
VOLTS: dict[str, float] = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9}
EDGE = "EDGE boundary"
Marked = tuple[float, float, str]  # onset and duration in seconds, description


class LazyRaw(mne.io.BaseRaw):
    """An MNE recording over a function that reads a stretch of samples.

    Parameters
    ----------
    path : Path
        The file, for messages and provenance.
    info : mne.Info
        The channels.
    n_times : int
        Number of samples.
    read : callable
        From first and last sample (exclusive) to an array (C, n) in SI units.
    """

    def __init__(
        self,
        path: Path,
        info: mne.Info,
        n_times: int,
        read: Callable[[int, int], np.ndarray],
    ) -> None:
        super().__init__(
            info,
            preload=False,
            last_samps=[n_times - 1],
            filenames=[path],
            # MNE hands its own reading method nothing else of what it is to read
            raw_extras=[{"read": read}],
            orig_format="double",
            verbose="error",
        )

    def _read_segment_file(
        self,
        data: np.ndarray,
        idx: Any,
        fi: int,
        start: int,
        stop: int,
        cals: np.ndarray,
        mult: np.ndarray | None,
    ) -> None:
        block = self._raw_extras[fi]["read"](start, stop)
        data[:] = mult @ block if mult is not None else block[idx] * cals


def make_info(ch_names: Sequence[str], sfreq: float, kind: str, path: Path) -> mne.Info:
    """Describe channels of one kind.

    Raises
    ------
    SourceError
        If a name is empty or occurs twice, or the sampling rate is not positive.
    """
    names = [str(name).strip() for name in ch_names]
    if twice := sorted({name for name in names if not name or names.count(name) > 1}):
        raise SourceError(
            f"{path}: channel names that are empty or occur more than once: "
            f"{', '.join(map(repr, twice))}",
            hint="give every channel a name of its own by `ch_names`",
        )
    if not sfreq > 0:
        raise SourceError(f"{path}: the sampling rate is {sfreq:g} Hz")
    return mne.create_info(names, sfreq, kind, verbose="error")


def annotate(raw: mne.io.BaseRaw, events: Sequence[Marked]) -> None:
    """Set events as annotations."""
    if events:
        onset, duration, description = zip(*events, strict=True)
        raw.set_annotations(mne.Annotations(onset, duration, description), verbose="error")


def find_gaps(
    times_s: np.ndarray, sfreq: float, gap_s: float, path: Path
) -> tuple[list[int], list[str]]:
    """Find where time stamps jump, and check that they agree with the sampling rate.

    Parameters
    ----------
    times_s : ndarray, shape (T,)
        When each sample was taken.
    sfreq : float
        The sampling rate that the samples are said to have.
    gap_s : float
        What is longer than this is a gap, and what is shorter is jitter.
    path : Path
        The file, for messages.

    Returns
    -------
    starts : list of int
        The first sample after each gap.
    notes : list of str
        What was found.

    Raises
    ------
    SourceError
        If time runs backwards by more than `gap_s`, or at another rate.
    """
    behind = np.maximum.accumulate(times_s) - times_s
    if behind.max(initial=0.0) > gap_s:
        row = int(np.argmax(behind > gap_s))
        raise SourceError(
            f"{path}: time runs backwards: sample {row} was taken {behind.max():.3g} s before "
            "one that precedes it",
            hint="put the samples in order of time, or exclude the file",
        )
    steps = np.diff(times_s)
    starts = (np.flatnonzero(steps > gap_s) + 1).tolist()
    covered = float(times_s[-1] - times_s[0] - steps[steps > gap_s].sum()) if len(times_s) else 0.0
    n_steps = len(times_s) - 1 - len(starts)
    notes = []
    if max(covered, n_steps / sfreq) > 1.0:
        rate = n_steps / covered if covered > 0 else np.inf
        if abs(rate / sfreq - 1) > 0.05:
            raise SourceError(
                f"{path}: the time stamps run at {rate:.4g} Hz, the sampling rate is said to be "
                f"{sfreq:g} Hz",
                hint="correct `sfreq`, or the unit of time, in the source's reader, or exclude the "
                "file",
            )
        if abs(rate / sfreq - 1) > 0.001:
            notes.append(f"the time stamps run at {rate:.6g} Hz, read as {sfreq:g} Hz")
    if starts:
        longest = float(steps.max())
        first = ", ".join(f"{start / sfreq:.3f} s" for start in starts[:3])
        notes.append(
            f"{len(starts)} gaps, the longest {longest:.3g} s: joined at {first}"
            f"{', …' if len(starts) > 3 else ''} and marked {EDGE!r}"
        )
    return starts, notes

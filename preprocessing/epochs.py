"""Epochs: windows that somebody cut before, one after another with an edge between them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import mne
import numpy as np

from neurofm.errors import SourceError
from neurofm.preprocessing.lazy import EDGE, Marked, annotate
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import Reader
from neurofm.preprocessing.roles import EPOCHS, not_its_own


class EpochsReader(Reader):
    """Windows of MNE (``-epo.fif``) or EEGLAB (``.set``), in memory.

    Each window is an event with the name of its class, at the window's time zero.
    """

    name: Literal["epochs"]

    def claims(self, inside: str) -> bool:
        """Tell whether a path is of a file of windows, where no glob says it."""
        return inside.lower().endswith((*EPOCHS, ".set"))

    def skips(self, path: Path) -> str:
        """Return why a file is no recording of its own; files of windows are."""
        return "" if path.name.lower().endswith(EPOCHS) else not_its_own(path)

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Read the windows and put them one after another."""
        if path.suffix.lower() == ".set":
            epochs = mne.io.read_epochs_eeglab(path, verbose="warning")
        else:
            epochs = mne.read_epochs(path, proj=False, preload=True, verbose="warning")
        raw, notes = continuous(epochs, str(path))
        facts.notes += notes
        return raw


def continuous(epochs: mne.BaseEpochs, where: str) -> tuple[mne.io.RawArray, list[str]]:
    """Put windows one after another, with an edge between them.

    Parameters
    ----------
    epochs : mne.BaseEpochs
        Not changed.
    where : str
        The file or the recording's name, for messages.

    Returns
    -------
    raw : mne.io.RawArray
        In memory. Each window is an event at its time zero, or at its start if that is not in it.
    notes : list of str
        What was done to the windows before, as far as MNE remembers.

    Raises
    ------
    SourceError
        If there is no window.
    """
    if not len(epochs):
        raise SourceError(f"{where}: it holds no epoch", hint="exclude it")
    data = epochs.get_data(copy=False)  # (window, channel, time)
    n_windows, _, n_times = data.shape
    raw = mne.io.RawArray(np.concatenate(list(data), axis=1), epochs.info, verbose="error")
    sfreq = float(epochs.info["sfreq"])
    names = {code: name for name, code in epochs.event_id.items()}
    at = int(np.argmin(np.abs(epochs.times))) if epochs.tmin <= 0 <= epochs.tmax else 0
    starts = np.arange(n_windows) * n_times
    marks: list[Marked] = [(start / sfreq, 0.0, EDGE) for start in starts[1:]]
    marks += [
        ((start + at) / sfreq, 0.0, names.get(code, str(code)))
        for start, code in zip(starts, epochs.events[:, 2].tolist(), strict=True)
    ]
    annotate(raw, marks)
    return raw, _notes(epochs, n_times)


def _notes(epochs: mne.BaseEpochs, n_times: int) -> list[str]:
    notes = [f"{len(epochs)} windows of {n_times / epochs.info['sfreq']:g} s, cut before"]
    if lost := sum(bool(why) and why != ("IGNORED",) for why in epochs.drop_log):
        notes.append(f"{lost} windows had been rejected")
    if epochs.baseline is not None:
        notes.append("their baselines had been subtracted")
    steps = np.diff(np.sort(epochs.events[:, 0]))
    if overlapping := int(np.sum((steps > 0) & (steps < n_times))):
        notes.append(f"{overlapping} windows overlap the one before: they share samples")
    return notes

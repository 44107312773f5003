"""Recordings without anything special about them, and stores of them."""

import mne
import numpy as np

from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities, Recording
from neurofm.store.writer import commit, create_store, write_recording


def recording_of(signal, ch_names, sfreq=64.0, *, kind="eeg", events=(), **entities):
    """A recording of a signal (C, T) from unplaced channels, of subject 1 of toy by default."""
    return Recording(
        signal=np.asarray(signal, np.float32),
        sfreq=sfreq,
        sensors=sensors_from_info(mne.create_info(list(ch_names), sfreq, kind)),
        entities=Entities(**{"dataset": "toy", "subject": "1", **entities}),
        events=tuple(events),
    )


def write_store(path, contract, *recordings):
    """Make a store of some recordings; return where it is."""
    create_store(path, contract)
    rows = [
        write_recording(path, r, quality={}, provenance={"source_hash": r.recording_id})
        for r in recordings
    ]
    commit(path, rows)
    return path

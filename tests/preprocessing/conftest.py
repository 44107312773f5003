"""Small recordings, made here, whose truth is known."""

import mne
import numpy as np
import pytest

from neurofm.contract import SignalContract
from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities, Recording

NAMES = ("Fp1", "Fz", "C3", "Cz", "C4", "Pz", "O1", "O2")


@pytest.fixture
def contract():
    return SignalContract(sfreq=128, band_hz=(0.5, 45.0), window_s=2.0)


@pytest.fixture
def make_signal():
    """Independent noise of 20 uV in volts, shape (C, T)."""

    def make(n_channels=8, duration_s=10.0, sfreq=256.0, seed=0):
        shape = (n_channels, int(duration_s * sfreq))
        return 20e-6 * np.random.default_rng(seed).standard_normal(shape)

    return make


@pytest.fixture
def make_raw(make_signal):
    """An MNE raw of noise; `first_samp`, names, types and samples can be chosen."""

    def make(
        names=NAMES, types="eeg", duration_s=10.0, sfreq=256.0, signal=None, first_samp=0, seed=0
    ):
        if signal is None:
            signal = make_signal(len(names), duration_s, sfreq, seed)
        info = mne.create_info(list(names), sfreq, types)
        return mne.io.RawArray(signal, info, first_samp=first_samp, verbose="error")

    return make


@pytest.fixture
def make_recording(make_signal):
    """A recording of noise, or of the samples given."""

    def make(signal=None, sfreq=256.0, names=NAMES, types="eeg", events=(), duration_s=10.0):
        if signal is None:
            signal = make_signal(len(names), duration_s, sfreq)
        sensors = sensors_from_info(mne.create_info(list(names), sfreq, types))
        return Recording(
            signal=signal.astype(np.float32),
            sfreq=sfreq,
            sensors=sensors,
            entities=Entities(dataset="made", subject="1"),
            events=tuple(events),
        )

    return make


@pytest.fixture
def write_edf(make_signal):
    """Write a small EDF; the file's folders are made."""
    import edfio

    def write(path, names=NAMES, duration_s=10, sfreq=256, signal=None, events=(), seed=0):
        if signal is None:
            signal = make_signal(len(names), duration_s, sfreq, seed)
        signals = [
            edfio.EdfSignal(row * 1e6, sfreq, label=name, physical_dimension="uV")
            for row, name in zip(signal, names, strict=True)
        ]
        notes = [edfio.EdfAnnotation(onset, duration, text) for onset, duration, text in events]
        path.parent.mkdir(parents=True, exist_ok=True)
        edfio.Edf(signals, annotations=notes or None).write(path)
        return path

    return write

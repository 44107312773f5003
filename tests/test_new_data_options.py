"""What the contract and the caller say of new data reaches whoever reads it."""

import mne
import numpy as np
import pytest

from neurofm import embedding
from neurofm.contract import SignalContract
from neurofm.embedding import windows_of

CONTRACT = SignalContract(sfreq=100, band_hz=(0.5, 40), window_s=1, ctf_grade=1)


@pytest.fixture
def raw():
    noise = 1e-5 * np.random.default_rng(0).standard_normal((4, 500))
    info = mne.create_info(["Fz", "Cz", "Pz", "Oz"], 100.0, "eeg")
    return mne.io.RawArray(noise, info, verbose="error")


@pytest.mark.parametrize("epoched", [False, True])
def test_options_and_the_compensation_grade_reach_the_reader(raw, epoched, monkeypatch):
    told = []
    real = embedding.recording_from_raw

    def noted(raw, entities, **reading):
        told.append(reading)
        return real(raw, entities, **reading)

    monkeypatch.setattr(embedding, "recording_from_raw", noted)
    source = raw
    if epoched:
        source = mne.make_fixed_length_epochs(raw, 1.0, preload=True, verbose="error")
    windows_of(source, CONTRACT, unit_scale=2.0, allow_unlocated=True)
    assert told == [{"unit_scale": 2.0, "allow_unlocated": True, "ctf_grade": 1}]

"""Spectra of the report: a channel without numbers has no part in them, and spoils none."""

import numpy as np
import pytest

from neurofm.preprocessing.spectrum import spectra, spectra_of


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_leave_spectra_finite(make_recording, make_signal, value):
    recording = make_recording()
    signal = make_signal()
    signal[3, ::500] = value

    def read(start, stop):
        return signal[:, start:stop]

    found = spectra(read, recording.n_times, recording.sfreq, recording.sensors)["eeg"]
    clean = spectra_of(recording)["eeg"]
    assert np.isfinite(list(found.values())).all()
    np.testing.assert_allclose(found["high"], clean["high"], rtol=0.5)


def test_damaged_samples_leave_numbers(make_recording):
    sensors = make_recording().sensors

    def read(start, stop):
        block = np.random.default_rng(start).standard_normal((8, stop - start))
        block[0, 0], block[1, 1], block[2, 2] = np.nan, np.inf, 1e300
        return block

    with np.errstate(all="ignore"):
        spectrum = spectra(read, 10_000, 256.0, sensors)["eeg"]
    assert np.isfinite([spectrum[name] for name in ("low", "median", "high")]).all()

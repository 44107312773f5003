import numpy as np
import pytest

from neurofm.preprocessing.spectrum import spectra, spectra_of


def density_at(spectrum, hz, which="median"):
    return np.interp(hz, spectrum["hz"], spectrum[which])


def test_the_integral_of_the_density_is_the_variance(make_recording, make_signal):
    signal = make_signal(8, 60.0)
    spectrum = spectra_of(make_recording(signal))["eeg"]
    variance = np.trapezoid(spectrum["median"], spectrum["hz"])
    assert variance == pytest.approx((20e-6) ** 2, rel=0.1)


def test_a_rhythm_stands_where_it_is(make_recording, make_signal):
    t = np.arange(int(60 * 256)) / 256
    signal = make_signal(8, 60.0) + 100e-6 * np.sin(2 * np.pi * 10 * t)
    spectrum = spectra_of(make_recording(signal))["eeg"]
    assert density_at(spectrum, 10) > 30 * density_at(spectrum, 20)


def test_one_loud_channel_is_seen_above_the_others_and_not_in_the_middle(
    make_recording, make_signal
):
    signal = make_signal(8, 30.0)
    signal[3] *= 100
    spectrum = spectra_of(make_recording(signal))["eeg"]
    assert density_at(spectrum, 20, "high") > 100 * density_at(spectrum, 20)
    assert density_at(spectrum, 20, "low") == pytest.approx(density_at(spectrum, 20), rel=0.7)


def test_kinds_are_apart_and_the_numbers_few(make_recording):
    types = ["eeg"] * 4 + ["seeg"] * 4
    found = spectra_of(make_recording(types=types))
    assert set(found) == {"eeg", "seeg"}
    assert all(len(row) <= 48 for spectrum in found.values() for row in spectrum.values())


def test_of_a_long_recording_a_few_seconds_are_read(make_recording):
    sensors, asked = make_recording().sensors, []

    def read(start, stop):
        asked.append(stop - start)
        return np.random.default_rng(start).standard_normal((8, stop - start))

    spectra(read, 10**9, 1000.0, sensors)
    assert sum(asked) == 16_000


def test_what_is_shorter_than_a_quarter_second_has_no_spectrum(make_recording, make_signal):
    assert spectra_of(make_recording(make_signal(8, 0.2))) == {}
    short = spectra_of(make_recording(make_signal(8, 0.5)))["eeg"]
    assert np.isfinite(short["median"]).all()

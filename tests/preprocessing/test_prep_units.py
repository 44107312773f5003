import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from neurofm.config import parse_config
from neurofm.errors import SignalError, SourceError
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.harmonise import harmonise, notes_of
from neurofm.preprocessing.run import CONFIG, run
from neurofm.preprocessing.sources import SourceConfig
from neurofm.preprocessing.units import PLAUSIBLE, check_amplitude, settle_units
from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities
from neurofm.store.reader import open_store

ME = Entities(dataset="d", subject="1")


def eeg(n=4, kind="eeg"):
    return sensors_from_info(mne.create_info([f"X{i}" for i in range(n)], 100.0, kind))


def noise(scale, n=4):
    return (scale * np.random.default_rng(0).standard_normal((n, 4000))).astype(np.float32)


def test_healthy_amplitudes_pass():
    check_amplitude(noise(10e-6), eeg(), "a.edf")
    check_amplitude(noise(60e-6), eeg(kind="seeg"), "a.edf")
    check_amplitude(noise(5e-13), eeg(kind="mag"), "a.fif")
    check_amplitude(noise(5e-12), eeg(kind="grad"), "a.fif")


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1e6, r"look like uV declared as V.*\n.*unit_scale: 1e-06"),
        (1e3, r"look like mV declared as V.*\n.*unit_scale: 0\.001"),
        (1e-3, r"1000 times too small.*\n.*unit_scale: 1000"),
        (1e-6, r"1e\+06 times too small.*\n.*unit_scale: 1e\+06"),
    ],
)
def test_unit_mistakes_are_refused_and_named(factor, said):
    with pytest.raises(
        SignalError,
        match=rf"(?s)a\.edf: eeg amplitude is .*plausible is 4e-07 to 0\.0003 V.*{said}",
    ):
        check_amplitude(noise(10e-6 * factor), eeg(), "a.edf")


def test_an_amplitude_no_factor_explains_is_refused_without_a_guess():
    with pytest.raises(SignalError, match=r"(?s)eeg amplitude is 0 V.*\n.*look at the signal"):
        check_amplitude(np.zeros((4, 100), np.float32), eeg(), "a.edf")


@given(st.sampled_from(sorted(PLAUSIBLE)), st.floats(0, 1), st.sampled_from([-6, -3, 3, 6]))
def test_no_healthy_amplitude_stays_plausible_when_off_by_a_thousand(kind, share, power):
    low, high = PLAUSIBLE[kind]
    found = low * (high / low) ** share * 10.0**power
    assert not low <= found <= high


def test_one_loud_channel_does_not_condemn_a_recording():
    signal = noise(10e-6)
    signal[0] *= 1e4
    check_amplitude(signal, eeg(), "a.edf")


def test_femtotesla_declared_as_tesla_are_named():
    with pytest.raises(SignalError, match=r"look like fT declared as T.*\n.*unit_scale: 1e-15"):
        check_amplitude(noise(200.0), eeg(kind="mag"), "a.fif")


@pytest.mark.parametrize(("scale", "wanted"), [(1e-3, "1e-06"), (1e3, "1")])
def test_the_hint_reckons_with_a_scale_that_is_set(scale, wanted):
    with pytest.raises(SignalError, match=rf"unit_scale: {wanted}`"):
        check_amplitude(noise(10e-3), eeg(), "a.edf", unit_scale=scale)


def two_kinds(make_recording, factor=1.0):
    """Four EEG channels of 20 uV times `factor` in volts, and four magnetometers of 0.5 pT."""
    names = [f"X{i}" for i in range(8)]
    scale = np.array([20e-6 * factor] * 4 + [5e-13] * 4)[:, None]
    signal = scale * np.random.default_rng(0).standard_normal((8, 2560))
    return make_recording(signal, names=names, types=["eeg"] * 4 + ["mag"] * 4)


def test_where_one_kind_is_wrong_the_hint_scales_that_kind_alone(make_recording):
    with pytest.raises(SignalError, match=r"unit_scale: \{eeg: 0\.001\}`"):
        settle_units(two_kinds(make_recording, 1e3), "check")
    scaled = two_kinds(make_recording, 1e3)
    scaled = scaled.evolve({"step": "read", "unit_scale": {"mag": 1e-12, "eeg": 1e3}})
    with pytest.raises(SignalError, match=r"unit_scale: \{mag: 1e-12\}`"):
        settle_units(scaled, "check")


def test_a_scale_by_kind_leaves_other_kinds_alone(make_raw):
    raw = make_raw(names=("Cz", "M1", "M2"), types=["eeg", "mag", "mag"])
    recording = recording_from_raw(raw, ME, unit_scale={"mag": 1e-9}, allow_unlocated=True)
    expected = raw.get_data() * np.array([[1], [1e-9], [1e-9]])
    np.testing.assert_allclose(recording.signal, expected, rtol=1e-6)
    assert recording.history[0]["unit_scale"] == {"mag": 1e-9}


@pytest.mark.parametrize("factor", [1e6, 1e3, 1e-3, 1e-6])
def test_units_are_repaired_only_where_asked_for_and_that_is_recorded(make_recording, factor):
    repaired = settle_units(two_kinds(make_recording, factor), "repair")
    healthy = two_kinds(make_recording)
    np.testing.assert_allclose(repaired.signal[:], healthy.signal, rtol=1e-5)
    assert repaired.history[-1]["factor"] == {"eeg": pytest.approx(1 / factor)}
    assert f"multiplied by {1 / factor:g}" in notes_of(repaired)[0]


def test_what_no_factor_explains_is_not_repaired(make_recording):
    # 1 mV is too much for EEG, and 1 uV so little that it is as likely no EEG
    with pytest.raises(SignalError, match=r"eeg amplitude is 0\.00.* V .*\n.*`units: trust`"):
        settle_units(two_kinds(make_recording, 50.0), "repair")


@pytest.mark.parametrize("units", ["check", "repair", "trust"])
def test_healthy_units_are_left_alone(make_recording, units):
    recording = two_kinds(make_recording)
    assert settle_units(recording, units) is recording


def test_a_repaired_recording_is_harmonised_like_a_healthy_one(make_recording, contract):
    broken = harmonise(two_kinds(make_recording, 1e6), contract, units="repair")
    healthy = harmonise(two_kinds(make_recording), contract)
    np.testing.assert_allclose(broken.signal, healthy.signal, rtol=1e-3, atol=1e-8)


def test_a_source_says_what_is_done_about_units():
    assert SourceConfig().units == "check"
    assert SourceConfig(unit_scale={"eeg": 1e-6}, units="repair").reading()["units"] == "repair"
    for wrong in ({"unit_scale": 0}, {"unit_scale": {"eeg": -1}}, {"units": "guess"}):
        with pytest.raises(ValidationError):
            SourceConfig(**wrong)


def test_units_no_longer_trusted_are_another_setting(tmp_path, write_edf, make_signal):
    write_edf(tmp_path / "raw" / "1.edf", signal=make_signal() * 50)

    def preprocess(**source):
        values = {
            "dataset": "d",
            "root": str(tmp_path / "raw"),
            "store": str(tmp_path / "store"),
            "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2},
            "sources": [{"subject": "1"} | source],
            "workers": 0,
        }
        return run(parse_config(CONFIG, values, where="test"))

    with pytest.raises(SourceError, match=r"eeg amplitude is 0\.00.* V"):
        preprocess()
    preprocess(units="trust")
    recording = open_store(tmp_path / "store").recording("d_sub-1")
    assert "trusted" in notes_of(recording)[-1]
    with pytest.raises(SourceError, match="made with other settings: units"):
        preprocess()

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from neurofm.contract import PLAUSIBLE, SignalContract, check_amplitude, robust_sd
from neurofm.errors import ContractError, SignalError
from neurofm.sensors import SensorKind, sensors_from_info


def contract(**changes):
    return SignalContract(**({"sfreq": 128, "band_hz": (0.5, 45), "window_s": 4} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"band_hz": (0, 45)}, "0 < high-pass < low-pass"),
        ({"band_hz": (50, 45)}, "0 < high-pass < low-pass, got 50 and 45"),
        ({"band_hz": (1, 70)}, "band_hz reaches 70 Hz, above the Nyquist frequency 64 Hz"),
        ({"window_s": 0.13}, r"window_s: 0\.13 s is 16\.64 samples at 128 Hz"),
        ({"kinds": ()}, "kinds is empty"),
        ({"line_hz": "maybe"}, "line_hz"),
    ],
)
def test_an_impossible_contract_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        contract(**changes)


def test_contracts_that_differ_are_named_field_by_field():
    contract().require_same(contract(), "store a", "checkpoint b")
    with pytest.raises(
        ContractError,
        match=r"store a and checkpoint b.*sfreq: 128.0 against 200.0; window_s: 4.0 against 2.0",
    ):
        contract().require_same(contract(sfreq=200, window_s=2), "store a", "checkpoint b")


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


def test_robust_sd_is_the_sd_of_gaussian_noise_and_ignores_bursts():
    signal = noise(3.0)
    np.testing.assert_allclose(robust_sd(signal), 3.0, rtol=0.06)
    signal[:, :40] = 1e6
    np.testing.assert_allclose(robust_sd(signal), 3.0, rtol=0.1)


def test_divisors_are_by_channel_or_shared_by_the_kind():
    signal = noise(1.0) * np.array([[1], [2], [3], [30]], np.float32)
    kind = np.array([SensorKind.EEG] * 3 + [SensorKind.MAG])
    by_channel = contract(normalisation="channel").divisor(signal, kind)
    np.testing.assert_allclose(by_channel, [1, 2, 3, 30], rtol=0.1)
    by_kind = contract(normalisation="kind").divisor(signal, kind)
    np.testing.assert_allclose(by_kind, [2, 2, 2, 30], rtol=0.1)


def test_a_contract_keeps_only_its_kinds():
    assert contract(kinds=("eeg",)).keeps(SensorKind.EEG)
    assert not contract(kinds=("eeg",)).keeps(SensorKind.MAG)
    assert not contract().keeps(SensorKind.REF_MEG)


def test_window_length_in_samples():
    assert contract().n_times == 512

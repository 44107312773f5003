import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from neurofm.contract import SignalContract, robust_sd
from neurofm.errors import ContractError
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


def rising(n=4):
    """Channels of 1, 2, … n units that all follow one wave as well."""
    own = noise(1.0, n) * np.arange(1, n + 1, dtype=np.float32)[:, None]
    return own + 100 * np.sin(np.arange(4000, dtype=np.float32) / 50)


def test_group_normalisation_keeps_what_channels_are_to_each_other():
    kind = np.array([SensorKind.EEG] * 3 + [SensorKind.MAG] * 3)
    signal = noise(1.0, 6) * np.array([[1], [2], [3], [10], [20], [30]], np.float32)
    found = contract(normalisation="group").divisor(signal, kind)
    for rows in (slice(0, 3), slice(3, 6)):
        np.testing.assert_allclose(found[rows], signal[rows].std(), rtol=1e-5)


def test_group_normalisation_asks_for_the_mean_across_channels_to_be_removed():
    group = contract(normalisation="group", kinds=("eeg", "mag"))
    assert group.references == {"eeg": "average", "mag": "average"}
    assert contract(reference={"eeg": "average", "mag": "as_recorded"}).references == {
        "eeg": "average"
    }


def test_quantile_normalisation_puts_that_share_of_samples_within_one():
    signal = rising()
    kind = np.full(4, SensorKind.EEG)
    for q in (0.5, 0.95):
        divisor = contract(normalisation="quantile", quantile=q).divisor(signal, kind)
        within = (np.abs(signal) <= divisor[:, None]).mean(axis=1)
        np.testing.assert_allclose(within, q, atol=2e-3)


def test_fixed_normalisation_divides_every_recording_by_the_same():
    fixed = contract(normalisation="fixed", kinds=("eeg", "mag"), scale={"eeg": 1e-4, "mag": 1e-12})
    kind = np.array([SensorKind.EEG, SensorKind.MAG, SensorKind.EEG])
    for loudness in (1.0, 5.0):
        divisor = fixed.divisor(noise(loudness, 3), kind)
        np.testing.assert_allclose(divisor, [1e-4, 1e-12, 1e-4], rtol=1e-6)


@pytest.mark.parametrize("how", ["channel", "kind", "group", "quantile"])
@given(factor=st.floats(1e-6, 1e6))
def test_scales_follow_the_unit(how, factor):
    kind = np.array([SensorKind.EEG] * 3 + [SensorKind.MAG])
    made = contract(normalisation=how)
    signal = rising()
    np.testing.assert_allclose(
        made.divisor((signal * factor).astype(np.float32), kind),
        factor * made.divisor(signal, kind),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": {"eeg": 1e-4}}, "scale is for normalisation fixed, not channel"),
        (
            {"normalisation": "fixed", "kinds": ("eeg", "mag"), "scale": {"eeg": 1e-4}},
            "normalisation fixed has no scale for mag",
        ),
        (
            {"normalisation": "group", "reference": {"eeg": "as_recorded"}},
            "group takes the mean across channels from every sample.*'eeg': 'as_recorded'",
        ),
        ({"normalisation": "quantile", "quantile": 0}, "greater than 0"),
        ({"normalisation": "fixed", "scale": {"eeg": 0}}, "greater than 0"),
    ],
)
def test_a_normalisation_that_cannot_be_carried_out_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        contract(**changes)


def test_a_contract_written_before_normalisations_were_many_is_the_same_contract():
    old = {k: v for k, v in contract().to_dict().items() if k not in ("quantile", "scale")}
    contract().require_same(SignalContract.model_validate(old), "ours", "theirs")

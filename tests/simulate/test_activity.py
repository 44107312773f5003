import numpy as np
import pytest
from scipy.signal import welch

from neurofm.simulate.activity import (
    coloured,
    make_activity,
    make_blinks,
    make_trials,
    relative_power,
)
from neurofm.simulate.anatomy import make_anatomy
from neurofm.simulate.config import SimulateConfig

CONFIG = SimulateConfig(trials_per_class=10)
SUBJECT = make_anatomy(CONFIG, "eeg_a", 1)
SFREQ = 200.0


def simulated(config=CONFIG, seed=0):
    rng = np.random.default_rng(seed)
    trials = make_trials(config, SUBJECT, rng)
    n_times = round((trials[-1].onset_s + 6) * SFREQ)
    blinks = make_blinks(n_times / SFREQ, rng)
    return trials, blinks, make_activity(SUBJECT, trials, blinks, n_times, SFREQ, rng)


def band_power(signal, low, high):
    frequency, power = welch(signal, SFREQ, nperseg=400, axis=-1)
    return power[..., (frequency >= low) & (frequency <= high)].mean()


def test_coloured_noise_has_the_asked_spectrum_and_unit_deviation():
    rng = np.random.default_rng(0)
    wave = coloured(rng, (20, 20_000), SFREQ, lambda f: np.exp(-0.5 * ((f - 20) / 2) ** 2))
    assert wave.std() == pytest.approx(1, rel=0.05)
    assert band_power(wave, 18, 22) > 100 * band_power(wave, 40, 90)
    assert np.abs(np.corrcoef(wave)[np.triu_indices(20, 1)]).max() < 0.2


def test_rhythms_sit_at_the_subjects_own_frequencies():
    _, _, moments = simulated()
    frequency, power = welch(moments, SFREQ, nperseg=1000, axis=1)
    for patch, expected in (("occipital_left", SUBJECT.alpha_hz), ("motor_right", SUBJECT.mu_hz)):
        peak = frequency[np.argmax(power[SUBJECT.of_patch(patch)].mean(axis=0))]
        assert peak == pytest.approx(expected, abs=0.6)
    beta = (frequency > 15) & (frequency < 30)
    peak = frequency[beta][np.argmax(power[SUBJECT.of_patch("motor_left")].mean(axis=0)[beta])]
    assert peak == pytest.approx(SUBJECT.beta_hz, abs=2)


def test_the_background_falls_with_frequency():
    _, _, moments = simulated()
    background = moments[SUBJECT.of_patch("background")]
    assert band_power(background, 2, 4) > 4 * band_power(background, 20, 25)


def test_each_block_holds_each_class_once_and_trials_do_not_overlap():
    trials, _, _ = simulated()
    labels = [trial.label for trial in trials]
    assert len(trials) == 30
    for block in range(10):
        assert sorted(labels[3 * block : 3 * block + 3]) == ["left", "rest", "right"]
    ends = [trial.onset_s + trial.duration_s for trial in trials]
    assert all(later.onset_s - end > 1.4 for end, later in zip(ends, trials[1:], strict=False))


def test_the_hand_that_moves_weakens_the_opposite_hemisphere_most():
    trials, _, moments = simulated()
    n_times = moments.shape[1]
    for patch, opposite in (("motor_left", "right"), ("motor_right", "left")):
        power = {label: [] for label in ("left", "right", "rest")}
        for trial in trials:
            start = round((trial.onset_s + 0.8) * SFREQ)
            stop = round((trial.onset_s + trial.duration_s) * SFREQ)
            found = (moments[SUBJECT.of_patch(patch), start:stop] ** 2).mean()
            power[trial.label].append(found / trial.power[patch])
            course = relative_power(patch, trials, n_times, SFREQ)[start + 50 : stop - 100]
            np.testing.assert_allclose(course, trial.power[patch], rtol=1e-2)
        # divided by the truth, no class is left in the power
        level = [np.mean(power[label]) for label in power]
        assert max(level) / min(level) < 1.6
        true = {k: np.mean([t.power[patch] for t in trials if t.label == k]) for k in power}
        assert true["rest"] == 1
        assert true[opposite] < 0.5 < min(v for k, v in true.items() if k != opposite)


def test_without_effect_the_classes_do_the_same():
    trials, _, _ = simulated(SimulateConfig(effect=0.0))
    assert {value for trial in trials for value in trial.power.values()} == {1.0}


def test_blinks_are_where_the_truth_says():
    _, blinks, moments = simulated()
    wave = moments[SUBJECT.of_patch("blink_left")[0]]
    assert len(blinks) > 10
    inside = [wave[round((b + 0.175) * SFREQ)] for b in blinks]
    assert min(inside) > 0.8 * SUBJECT.moment[SUBJECT.of_patch("blink_left")[0]]
    assert (wave[: round(blinks[0] * SFREQ)] == 0).all()


def test_snr_scales_rhythms_and_leaves_the_background():
    weak = make_anatomy(SimulateConfig(snr=0.5), "eeg_a", 1)
    ratio = weak.moment / SUBJECT.moment
    rhythm = np.array([name.startswith(("motor", "occipital")) for name in weak.patch])
    np.testing.assert_allclose(ratio[rhythm], 0.5)
    np.testing.assert_allclose(ratio[~rhythm], 1)

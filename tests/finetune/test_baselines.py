from dataclasses import replace

import numpy as np
import pytest
from pyriemann.tangentspace import TangentSpace

from neurofm.errors import ConfigError, ProtocolError
from neurofm.finetune.baselines import ChanceConfig, TangentSpaceConfig
from neurofm.finetune.cohort import Cohort
from neurofm.finetune.covariances import covariances, recentre, shared_channels
from neurofm.finetune.metrics import balanced_accuracy
from neurofm.finetune.protocols import LosoConfig
from neurofm.finetune.scoring import folds_of

BAND = ((2.0, 20.0),)


def folds_for(trials):
    return list(folds_of(LosoConfig().folds(trials)[0], trials))


@pytest.mark.parametrize("align", ["none", "recentred"])
def test_ts_lr_tells_rhythms_apart_in_people_it_never_saw(cohort, trials, align):
    model = TangentSpaceConfig(bands_hz=BAND, align=align).build(cohort, trials)
    assert model.name == ("ts_lr" if align == "none" else "ts_lr_recentred")
    assert model.transductive == (align == "recentred")
    for fold in folds_for(trials):
        prediction = model.fit_predict(fold, 0)
        assert balanced_accuracy(trials.y[fold.test], prediction.probabilities.argmax(1)) > 0.9
        assert prediction.n_train == 36  # validation subjects teach it too


def test_chance_says_what_is_most_frequent(trials):
    fold = folds_for(trials)[0]
    slow, fast = (fold.train[trials.y[fold.train] == code] for code in (0, 1))
    fold = replace(fold, train=fast[:3], validation=slow[:1])
    prediction = ChanceConfig().build().fit_predict(fold, 0)
    np.testing.assert_allclose(prediction.probabilities[0], [0.25, 0.75])


def test_the_window_of_the_baseline_is_its_own(trials):
    start, n_times = TangentSpaceConfig(start_s=0.25, stop_s=0.75).window(trials)
    assert n_times == 32
    assert (start - trials.table["start"]).unique().tolist() == [16]
    start, n_times = TangentSpaceConfig().window(trials)
    assert n_times == 64
    assert (start == trials.table["start"]).all()


def test_recordings_are_filtered_before_windows_are_cut(cohort, trials):
    """A rhythm outside the band, present throughout, leaves no trace, not even at edges."""
    windows = trials.table[["trial_id", "recording_id", "start"]]
    clean = covariances(cohort, windows, 64, bands_hz=BAND, where="t")

    class Humming(Cohort):
        def recording(self, recording_id):
            recording = super().recording(recording_id)
            t = np.arange(recording.n_times) / recording.sfreq
            hum = (2e-5 * np.sin(2 * np.pi * 31.0 * t)).astype(np.float32)
            return replace(recording, signal=recording.signal + hum)

    noisy = covariances(
        Humming([str(p) for p in {s.path for s in cohort._stores.values()}]),
        windows,
        64,
        bands_hz=BAND,
        where="t",
    )
    middle = windows["start"].between(64 * 3, 64 * 9)  # away from the recording's own ends
    scale = np.abs(clean[middle]).max()
    assert (
        np.abs(noisy[middle] / noisy[middle].max() - clean[middle] / clean[middle].max()).max()
        < 0.02
    )
    assert scale > 0


def test_channels_are_matched_by_name_not_by_place(cohort, trials):
    """Turning the order of one subject's channels round changes nothing."""

    class Turned(Cohort):
        def recording(self, recording_id):
            found = super().recording(recording_id)
            if "sub-02" not in recording_id:
                return found
            return replace(
                found, signal=found.signal[::-1].copy(), sensors=found.sensors.select([3, 2, 1, 0])
            )

        def sensors(self, recording_id):
            return self.recording(recording_id).sensors

    windows = trials.table[["trial_id", "recording_id", "start"]]
    path = [str(next(iter(cohort._stores.values())).path)]
    ours, theirs = (
        covariances(c, windows, 64, bands_hz=BAND, where="t") for c in (cohort, Turned(path))
    )
    np.testing.assert_allclose(ours, theirs)


def test_bands_are_stacked(cohort, trials):
    windows = trials.table[["trial_id", "recording_id", "start"]]
    found = covariances(cohort, windows, 64, bands_hz=((4.0, 6.0), (11.0, 13.0)), where="t")
    assert found.shape == (48, 8, 8)
    power = np.einsum("nii->ni", found).reshape(48, 2, 4)
    front = power[:, 0, :2].mean(1) / power[:, 1, 2:].mean(1)  # 5 Hz at the front, 12 at the back
    assert front[trials.y == 0].min() > front[trials.y == 1].max()


def test_recentred_covariances_have_the_identity_as_their_mean():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 3, 9))
    found = a @ a.transpose(0, 2, 1) * np.repeat([1.0, 50.0], 15)[:, None, None]
    groups = np.repeat(["p", "q"], 15)
    centred = recentre(found, groups)
    for group in ("p", "q"):
        mean = TangentSpace(metric="riemann").fit(centred[groups == group]).reference_
        np.testing.assert_allclose(mean, np.eye(3), atol=1e-5)


def test_recordings_without_a_shared_channel_are_refused_by_name():
    with pytest.raises(ProtocolError, match=r"no channel is in every one of 2 recordings.*Fz.*Oz"):
        shared_channels({"a": ("Fz", "Cz"), "b": ("Oz", "Pz")}, "ts_lr baseline")
    assert shared_channels({"a": ("Fz", "Cz", "Pz"), "b": ("Pz", "Fz")}, "t") == ["Fz", "Pz"]


def test_windows_past_the_end_are_refused_by_name(cohort, trials):
    with pytest.raises(ProtocolError, match="window of trial tiny_sub-01.* runs beyond"):
        TangentSpaceConfig(bands_hz=BAND, stop_s=4.0).build(cohort, trials)


def test_bands_are_checked(cohort, trials):
    with pytest.raises(ConfigError, match="band 4-40 Hz reaches the Nyquist frequency 32 Hz"):
        TangentSpaceConfig(bands_hz=((4.0, 40.0),)).build(cohort, trials)
    with pytest.raises(ValueError, match="30 Hz is not below 8 Hz"):
        TangentSpaceConfig(bands_hz=((30.0, 8.0),))
    with pytest.raises(ValueError, match="start_s 2 is not before stop_s 1"):
        TangentSpaceConfig(start_s=2.0, stop_s=1.0)

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from neurofm import checkpoint as checkpoints
from neurofm.checkpoint import weights_digest
from neurofm.errors import ProtocolError, TrainingError
from neurofm.finetune import features as features_module
from neurofm.finetune.bank import load_bank, rows_of
from neurofm.finetune.cohort import Cohort
from neurofm.finetune.encoders import EncoderSource, Frozen
from neurofm.finetune.full import FullConfig, FullFineTuning
from neurofm.finetune.models import HIDDEN
from neurofm.finetune.probe import LinearProbe, LinearProbeConfig, fit_probe, inner_splits
from neurofm.finetune.protocols import FewShotConfig, LosoConfig
from neurofm.finetune.scoring import folds_of
from neurofm.finetune.trials import find_trials

CPU = torch.device("cpu")
QUICK = FullConfig(epochs=3, patience=2, batch_size=8, lr=5e-3)


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return checkpoints.load(tiny_checkpoint)


@pytest.fixture
def source(loaded):
    encoder = copy.deepcopy(loaded.encoder)
    return EncoderSource("pretrained", loaded.config, loaded.contract, encoder)


def folds_for(trials, protocol=None):
    return list(folds_of((protocol or LosoConfig()).folds(trials)[0], trials))


def full(source, cohort, trials, config=QUICK):
    return FullFineTuning(config, source, cohort, trials, device=CPU)


def probe(source, cohort, trials, config=None, cache=None):
    return LinearProbe(
        config or LinearProbeConfig(), source, cohort, trials, device=CPU, cache=cache
    )


# ---------------------------------------------------------------------------------------
# What models are shown


def test_labels_of_test_trials_are_not_in_a_fold(trials):
    for fold in folds_for(trials):
        assert (fold.y[fold.test] == HIDDEN).all()
        assert (fold.y[fold.taught] == trials.y[fold.taught]).all()
        assert not set(fold.test) & set(fold.taught)


@pytest.mark.parametrize("build", [probe, full])
def test_turning_test_labels_round_changes_no_prediction(source, cohort, trials, build):
    tested = trials.table["subject"] == "03"
    table = trials.table.copy()
    table.loc[tested, "y"] = 1 - table.loc[tested, "y"]
    table["label"] = np.array(trials.classes)[table["y"]]
    turned = replace(trials, table=table)

    ours, theirs = (
        build(source, cohort, t).fit_predict(
            next(f for f in folds_for(t) if f.name == "tiny/03"), 0
        )
        for t in (trials, turned)
    )
    np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)


# ---------------------------------------------------------------------------------------
# Frozen encoders and their features


def test_features_leave_the_encoder_as_it_was(source, cohort, trials):
    before = weights_digest(source.pretrained)
    model = probe(source, cohort, trials)
    assert model.features(0).shape == (48, 16)
    assert weights_digest(source.pretrained) == before


@pytest.mark.parametrize("change", ["weight", "trainable"])
def test_a_frozen_encoder_that_moves_is_found(source, cohort, trials, change, monkeypatch):
    real = features_module._encode

    def meddling(encoder, *rest):
        with torch.no_grad():
            if change == "weight":
                next(encoder.parameters()).add_(1e-6)
            else:
                next(encoder.parameters()).requires_grad_(True)
        return real(encoder, *rest)

    monkeypatch.setattr(features_module, "_encode", meddling)
    message = "weights changed" if change == "weight" else "has 1 trainable parameters"
    with pytest.raises(TrainingError, match=f"frozen encoder.*{message}"):
        probe(source, cohort, trials).features(0)


def test_nothing_in_a_frozen_encoder_asks_for_a_gradient(source):
    encoder = source.fresh(0).train()
    with Frozen(encoder):
        assert not any(p.requires_grad for p in encoder.parameters())
        assert not encoder.training


def test_features_are_those_of_each_trial_alone(source, cohort, trials):
    found = probe(source, cohort, trials).features(0)
    bank = load_bank(cohort, trials, CPU)
    with torch.inference_mode():
        for i in (0, 17, 47):
            content = source.pretrained(rows_of(bank, np.array([i]))).content
            np.testing.assert_allclose(found[i], content.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_cached_features_are_used_again_only_for_the_same_weights_and_windows(
    source, cohort, trials, task, tmp_path, monkeypatch
):
    first = probe(source, cohort, trials, cache=tmp_path).features(0)
    (path,) = tmp_path.iterdir()
    np.save(path, first + 1, allow_pickle=False)
    assert (probe(source, cohort, trials, cache=tmp_path).features(0) == first + 1).all()

    other = EncoderSource("random_init", source.config, source.contract)
    assert not np.allclose(probe(other, cohort, trials, cache=tmp_path).features(0), first + 1)
    later = find_trials(cohort, task.model_copy(update={"start_s": 0.25}), sfreq=64.0, window_s=1.0)
    assert not np.allclose(probe(source, cohort, later, cache=tmp_path).features(0), first + 1)
    assert len(list(tmp_path.iterdir())) == 3


def test_pooling_by_channel_keeps_channels_apart_and_in_order(source, cohort, trials):
    found = probe(source, cohort, trials, LinearProbeConfig(pool="channels")).features(0)
    bank = load_bank(cohort, trials, CPU)
    with torch.inference_mode():
        content = source.pretrained(rows_of(bank, np.array([5]))).content
    np.testing.assert_allclose(found[5], content.mean(2).flatten(), rtol=1e-4, atol=1e-5)


def test_recentred_features_have_no_mean_by_subject(source, cohort, trials):
    model = probe(source, cohort, trials, LinearProbeConfig(align="recentred"))
    assert (model.transductive, model.adaptation) == (True, "linear_probe_recentred")
    found = model.features(0)
    for person in set(trials.persons):
        np.testing.assert_allclose(found[trials.persons == person].mean(0), 0, atol=1e-5)


def test_a_random_encoder_is_the_same_for_a_seed_and_another_for_another(source):
    other = EncoderSource("random_init", source.config, source.contract)
    torch.manual_seed(5)
    ours = weights_digest(other.fresh(1))
    state = torch.get_rng_state()
    assert ours == weights_digest(other.fresh(1)) != weights_digest(other.fresh(2))
    assert (torch.get_rng_state() == state).all()  # nobody else's draws are moved


# ---------------------------------------------------------------------------------------
# The probe


def test_the_scaler_knows_training_trials_only(source, cohort, trials, monkeypatch):
    """Whatever the test features are, what is fitted on the training side stays the same."""
    fitted = []
    monkeypatch.setattr(
        "neurofm.finetune.probe.fit_probe", lambda *a: fitted.append(fit_probe(*a)) or fitted[-1]
    )
    fold = folds_for(trials)[0]
    for shift in (0.0, 1000.0):
        model = probe(source, cohort, trials)
        model.features(0)[fold.test] += shift
        model.fit_predict(fold, 0)
    ours, theirs = (pipe["standardscaler"] for pipe in fitted)
    np.testing.assert_array_equal(ours.mean_, theirs.mean_)
    np.testing.assert_array_equal(ours.scale_, theirs.scale_)
    expected = probe(source, cohort, trials).features(0)[fold.taught].mean(0)
    np.testing.assert_allclose(ours.mean_, expected, rtol=1e-4, atol=1e-6)


def test_inner_folds_split_by_subject_where_there_are_several():
    y = np.tile([0, 1], 12)
    persons = np.repeat(["a", "b", "c"], 8)
    splits = inner_splits(y, persons, 5)
    assert len(splits) == 3
    assert all(not set(persons[rest]) & set(persons[held]) for rest, held in splits)


@pytest.mark.parametrize(("per_class", "n_splits"), [(1, 0), (2, 2), (9, 5)])
def test_inner_folds_within_a_subject_are_stratified_or_none(per_class, n_splits):
    y = np.repeat([0, 1], per_class)
    splits = inner_splits(y, np.full(len(y), "a"), 5)
    assert len(splits) == n_splits
    assert all(set(y[rest]) == set(y[held]) == {0, 1} for rest, held in splits)


def test_regularisation_is_chosen_by_what_generalises():
    rng = np.random.default_rng(0)
    persons = np.repeat([f"s{i}" for i in range(8)], 20)
    y = np.tile([0, 1], 80)
    x = rng.normal(size=(160, 60))
    x += 0.15 * (2 * y - 1)[:, None]  # a little everywhere: weights that differ are noise
    config = LinearProbeConfig(regularisations=(1e-3, 100.0))
    assert fit_probe(x, y, persons, config)["logisticregression"].C == 1e-3
    few = LinearProbeConfig(fallback=0.5)
    alone = fit_probe(x[:2], y[:2], persons[:2], few)
    assert alone["logisticregression"].C == 0.5


# ---------------------------------------------------------------------------------------
# Full fine-tuning


def test_full_fine_tuning_learns_and_leaves_the_source_alone(source, cohort, trials):
    before = weights_digest(source.pretrained)
    config = QUICK.model_copy(update={"epochs": 8, "patience": 8})
    fold = folds_for(trials)[1]
    prediction = full(source, cohort, trials, config).fit_predict(fold, 0)

    assert weights_digest(source.pretrained) == before
    losses = prediction.curves["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    assert (prediction.probabilities.argmax(1) == trials.y[fold.test]).mean() > 0.8
    np.testing.assert_allclose(prediction.probabilities.sum(1), 1)


def test_every_fold_starts_from_the_same_weights(source, cohort, trials):
    """A fold's result does not depend on which folds were trained before it."""
    folds = folds_for(trials)
    model = full(source, cohort, trials)
    model.fit_predict(folds[0], 0)
    after_another = model.fit_predict(folds[1], 0).probabilities
    alone = full(source, cohort, trials).fit_predict(folds[1], 0).probabilities
    np.testing.assert_array_equal(after_another, alone)


def test_a_fold_that_would_start_from_another_folds_weights_is_refused(source, cohort, trials):
    class Shared(EncoderSource):
        def fresh(self, seed):
            return self.pretrained

    leaky = Shared("pretrained", source.config, source.contract, source.pretrained)
    model = full(leaky, cohort, trials)
    folds = folds_for(trials)
    model.fit_predict(folds[0], 0)
    with pytest.raises(TrainingError, match="'tiny/02' would start from weights"):
        model.fit_predict(folds[1], 0)


def test_full_fine_tuning_that_moves_nothing_is_refused(source, cohort, trials, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: None)
    with pytest.raises(TrainingError, match="moved no weight of the encoder"):
        full(source, cohort, trials).fit_predict(folds_for(trials)[0], 0)


def test_every_encoder_weight_is_trained(source, cohort, trials, monkeypatch):
    trained = {}
    real = torch.nn.utils.clip_grad_norm_

    def spy(parameters, norm):
        parameters = list(parameters)
        trained["with_grad"] = sum(p.grad is not None and bool(p.grad.any()) for p in parameters)
        trained["of"] = len(parameters)
        return real(parameters, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    full(source, cohort, trials).fit_predict(folds_for(trials)[0], 0)
    unused = 1  # the mask token has no part in fine-tuning
    # a place encoding has tokens for unknown positions and orientations too
    assert trained["of"] - trained["with_grad"] <= unused + 4
    assert trained["with_grad"] >= 10


def test_the_best_epoch_on_validation_subjects_is_used(source, cohort, trials, monkeypatch):
    from neurofm.finetune import full as module

    scores = iter([(0.5, 1.0), (0.9, 0.5), (0.6, 0.6), (0.7, 0.6)])
    states = []

    def scripted(self):
        states.append(copy.deepcopy(self.model.state_dict()))
        return next(scores)

    monkeypatch.setattr(module._Trainer, "_validate", scripted)
    used = {}
    real = module._predict
    monkeypatch.setattr(
        module, "_predict", lambda m, *a: used.update(copy.deepcopy(m.state_dict())) or real(m, *a)
    )
    config = QUICK.model_copy(update={"epochs": 9})
    prediction = full(source, cohort, trials, config).fit_predict(folds_for(trials)[0], 0)

    assert len(prediction.curves) == 4  # two epochs of patience after the second
    assert all(torch.equal(used[k], states[1][k]) for k in used)


def test_without_validation_all_epochs_are_run(source, cohort, trials):
    fold = folds_for(trials, FewShotConfig(k=(2,)))[0]
    prediction = full(source, cohort, trials).fit_predict(fold, 0)
    assert len(prediction.curves) == QUICK.epochs
    assert "validation_loss" not in prediction.curves


def test_seeds_decide_the_result(source, cohort, trials):
    fold = folds_for(trials)[0]
    model = full(source, cohort, trials)
    one, again, two = (model.fit_predict(fold, seed).probabilities for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)


def test_trials_that_do_not_fit_into_memory_are_refused(cohort, trials):
    with pytest.raises(ProtocolError, match=r"keeps all 48 trials in memory: .* GiB, above"):
        load_bank(cohort, trials, CPU, limit=1000)


def test_a_diverging_loss_is_refused(source, cohort, trials):
    with torch.no_grad():
        for parameter in source.pretrained.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss of full fine-tuning is nan"):
        full(source, cohort, trials).fit_predict(folds_for(trials)[0], 0)


def test_narrow_montages_are_padded_and_not_seen(make_store, source, task):
    """A recording of three channels beside one of four scores as it would alone."""
    many = {"n_channels": 3, "n_trials": 64}  # fill a batch that no wider montage is in
    store = make_store(("01", "1", many), ("02", "1", {}))
    narrow = make_store(("01", "1", many), name="narrow")
    both, alone = Cohort([str(store)]), Cohort([str(narrow)])
    banks = [
        load_bank(c, find_trials(c, task, sfreq=64.0, window_s=1.0), CPU) for c in (both, alone)
    ]
    assert banks[0].signal.shape[1] == 4
    with torch.inference_mode():
        ours, theirs = (source.pretrained(rows_of(b, np.arange(6))) for b in banks)
    torch.testing.assert_close(ours.content[:, :3], theirs.content, rtol=1e-4, atol=1e-5)
    assert not ours.present[:, 3].any()

"""What a fold may see while it is trained, and what its scores may depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neurofm import checkpoint as checkpoints
from neurofm.errors import ProtocolError
from neurofm.finetune import full as full_module
from neurofm.finetune.bank import load_bank
from neurofm.finetune.baselines import TangentSpaceConfig
from neurofm.finetune.cohort import Cohort
from neurofm.finetune.covariances import covariances
from neurofm.finetune.encoders import EncoderSource
from neurofm.finetune.features import signals_digest
from neurofm.finetune.full import FullConfig, FullFineTuning
from neurofm.finetune.heads import Classifier, LinearHead
from neurofm.finetune.probe import LinearProbe, LinearProbeConfig, fit_probe
from neurofm.finetune.protocols import LosoConfig
from neurofm.finetune.scoring import folds_of

CPU = torch.device("cpu")
BAND = ((2.0, 20.0),)
QUICK = FullConfig(epochs=2, patience=2, batch_size=8, lr=5e-3)


@pytest.fixture(scope="module")
def fold(trials):
    return next(folds_of(LosoConfig().folds(trials)[0], trials))


@pytest.fixture
def source(tiny_checkpoint):
    loaded = checkpoints.load(tiny_checkpoint)
    return EncoderSource("pretrained", loaded.config, loaded.contract, loaded.encoder)


def full(source, cohort, trials, **changes):
    return FullFineTuning(QUICK.model_copy(update=changes), source, cohort, trials, device=CPU)


def probe(source, cohort, trials, cache=None, **config):
    return LinearProbe(LinearProbeConfig(**config), source, cohort, trials, device=CPU, cache=cache)


def ts_lr(source, cohort, trials, **config):
    return TangentSpaceConfig(bands_hz=BAND, **config).build(cohort, trials)


# ---------------------------------------------------------------------------------------
# Every model


@pytest.mark.parametrize("build", [probe, full, ts_lr])
def test_what_is_said_of_a_trial_does_not_depend_on_who_else_is_tested(
    source, cohort, trials, fold, build
):
    model = build(source, cohort, trials)
    assert not model.transductive
    among_others = model.fit_predict(fold, 0).probabilities[1]
    alone = model.fit_predict(replace(fold, test=fold.test[1:2]), 0).probabilities[0]
    np.testing.assert_allclose(alone, among_others, rtol=1e-4)


# ---------------------------------------------------------------------------------------
# Full fine-tuning


def test_weights_follow_training_trials_selection_validation_and_nothing_the_tested(
    source, cohort, trials, fold, monkeypatch
):
    read = []
    real, forward = full_module.rows_of, Classifier.forward

    def rows_of(bank, rows):
        read.append([np.asarray(rows), None])
        return real(bank, rows)

    def noted(self, batch):
        read[-1][1] = self.training
        return forward(self, batch)

    monkeypatch.setattr(full_module, "rows_of", rows_of)
    monkeypatch.setattr(Classifier, "forward", noted)
    full(source, cohort, trials).fit_predict(fold, 0)

    n = -(-len(fold.train) // QUICK.batch_size)
    epochs = [read[:n], read[n + 1 : 2 * n + 1]]
    orders = [np.concatenate([rows for rows, _ in epoch]) for epoch in epochs]
    assert all(training for epoch in epochs for _, training in epoch)
    for order in orders:
        assert np.array_equal(np.sort(order), fold.train)
        assert not np.array_equal(order, fold.train)  # anew in each epoch
    assert not np.array_equal(*orders)
    for at in (n, 2 * n + 1):
        rows, training = read[at]
        assert np.array_equal(rows, fold.validation)
        assert not training
    (rows, training), *more = read[2 * n + 2 :]
    assert np.array_equal(rows, fold.test)
    assert not training
    assert not more


def test_classes_weigh_the_same_however_many_trials_they_have(source, cohort, trials, fold):
    slow, fast = (fold.train[fold.y[fold.train] == code] for code in (0, 1))
    few = replace(fold, train=np.sort(np.concatenate([slow[:3], fast])))
    model = Classifier(source.fresh(0), LinearHead(16, 2, pool="mean", dropout=0.0))
    trainer = full_module._Trainer(QUICK, load_bank(cohort, trials, CPU), model, few)
    weight = trainer.criterion.weight
    assert weight[0] * 3 == pytest.approx(float(weight[1] * len(fast)))
    assert (3 * weight[0] + len(fast) * weight[1]) / len(few.train) == pytest.approx(1.0)


def test_a_head_drops_features_in_training_only(source, cohort, trials):
    grid = source.fresh(0)(load_bank(cohort, trials, CPU))
    head = LinearHead(16, 2, pool="mean", dropout=0.5)
    assert not torch.equal(head(grid), head(grid))
    assert torch.equal(head.eval()(grid), head(grid))


# ---------------------------------------------------------------------------------------
# The probe


def test_a_probe_leans_to_no_class_because_it_has_more_trials():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [270, 30])
    x = rng.normal(size=(300, 1)) + y[:, None]
    model = fit_probe(x, y, np.full(300, "a"), LinearProbeConfig(regularisations=(1.0,)))
    assert model.predict_proba([[0.5]])[0, 1] == pytest.approx(0.5, abs=0.1)


def test_features_that_are_no_numbers_are_refused(source, cohort, trials):
    with torch.no_grad():
        source.pretrained.backbone.norm.weight.fill_(torch.nan)
    with pytest.raises(ProtocolError, match=r"48 trials have features .* not finite\n.*--verify"):
        probe(source, cohort, trials).features(0)


def test_features_of_other_recordings_or_another_pool_are_not_taken_from_a_cache(
    source, cohort, trials, tmp_path
):
    first = probe(source, cohort, trials, cache=tmp_path).features(0)

    class Replaced(Cohort):
        """The same recordings by name, made of other files."""

        @property
        def index(self):
            return super().index.assign(source_hash="1")

    other = Replaced([str(next(iter(cohort._stores.values())).path)])
    probe(source, other, trials, cache=tmp_path).features(0)
    by_channel = probe(source, cohort, trials, cache=tmp_path, pool="channels").features(0)
    assert by_channel.shape != first.shape
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("column", ["n_times", "montage", "source_hash"])
def test_a_cache_knows_a_recording_by_length_montage_and_file(cohort, trials, column):
    def digest(index, contract=cohort.contract):
        class Reader:
            pass

        Reader.index = index
        return signals_digest(Reader, contract, trials)

    index = cohort.index
    changed = index.copy()
    changed.loc[3, column] = 7 if column == "n_times" else "other"
    unused = index.copy()
    unused.loc[len(unused)] = index.loc[0].to_dict() | {"recording_id": "not a trial of it"}
    assert digest(changed) != digest(index) == digest(unused) == digest(index[::-1])
    wider = cohort.contract.model_copy(update={"clip": 20.0})
    assert digest(index, wider) != digest(index)


# ---------------------------------------------------------------------------------------
# Tangent space


def test_covariances_of_fewer_samples_than_channels_can_be_inverted(cohort, trials):
    windows = trials.table[["trial_id", "recording_id", "start"]]
    found = covariances(cohort, windows, 3, bands_hz=BAND, where="t")
    assert np.linalg.eigvalsh(found).min() > 1e-6 * np.linalg.eigvalsh(found).max()


def test_a_subject_whose_signals_are_larger_has_larger_covariances(cohort, trials):
    class Louder(Cohort):
        def recording(self, recording_id):
            found = super().recording(recording_id)
            factor = np.float32(3.0 if "sub-03" in recording_id else 1.0)
            return replace(found, signal=found.signal * factor)

    windows = trials.table[["trial_id", "recording_id", "start"]]
    path = [str(next(iter(cohort._stores.values())).path)]
    ours, theirs = (
        np.trace(covariances(c, windows, 64, bands_hz=BAND, where="t"), axis1=1, axis2=2)
        for c in (cohort, Louder(path))
    )
    louder = trials.table["subject"].to_numpy() == "03"
    np.testing.assert_allclose(theirs, ours * np.where(louder, 9.0, 1.0), rtol=1e-4)


def test_regularisation_is_that_of_the_config(source, cohort, trials, fold):
    sure, unsure = (
        ts_lr(source, cohort, trials, regularisation=c).fit_predict(fold, 0).probabilities
        for c in (10.0, 1e-4)
    )
    assert np.abs(unsure - 0.5).max() < 0.1 < np.abs(sure - 0.5).mean()

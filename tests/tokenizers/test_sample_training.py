"""Fitting and training codes of samples: what a run makes of them, and that it can be resumed."""

import numpy as np
import pytest
import torch
from batches import plain_batch
from stores import recording_of, write_store

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import CheckpointError
from neurofm.store.reader import open_store
from neurofm.tokenizers.run import TokenizeConfig, run
from neurofm.tokenizers.samples import AnnealedSamplesConfig, MuLawConfig, QuantileConfig
from neurofm.tokenizers.saved import load_tokenizer, put_into

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
TOKENIZERS = {
    "mu_law": {"name": "mu_law_samples", "patch_s": 0.5},
    "quantile": {"name": "quantile_samples", "patch_s": 0.5, "n_codes": 20},
    "annealed": {
        "name": "annealed_samples", "patch_s": 0.5, "n_codes": 12, "inner": 8, "kernel": 4,
    },
}  # fmt: skip
SLOTS = {"mu_law": MuLawConfig, "quantile": QuantileConfig, "annealed": AnnealedSamplesConfig}
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    def made(subject):
        draw = np.random.default_rng(int(subject))
        rhythm = np.sin(2 * np.pi * 6 * np.arange(64 * 30) / 64 + draw.uniform(0, 6, (4, 1)))
        signal = 1e-5 * (rhythm + draw.standard_normal((4, 64 * 30)))
        return recording_of(signal, ["Fz", "Cz", "C3", "C4"], subject=subject)

    return write_store(tmp_path_factory.mktemp("data") / "store", CONTRACT, *map(made, "123"))


def make_config(store, folder, name, **changes):
    values = {
        "stores": [str(store)], "folder": str(folder), "held_out": ["toy_sub-3"],
        "tokenizer": TOKENIZERS[name], "loader": {"token_budget": 80},
        "optim": {"lr": 0.01, "warmup_steps": 2, "weight_decay": 0}, "steps": 12,
        "snapshot_every": 5, "accelerator": "cpu",
    }  # fmt: skip
    return parse_config(TokenizeConfig, values | changes, where="test")


@pytest.fixture(scope="module")
def results(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {name: run(make_config(store, folder / name, name)) for name in TOKENIZERS}


@every_tokenizer
def test_a_run_ends_in_a_tokenizer_and_a_report(results, name):
    result = results[name]
    assert [row["step"] for row in result.metrics] == list(range(12))
    assert {"loss", "explained", "perplexity"} <= set(result.metrics[0])
    saved = load_tokenizer(result.tokenizer)
    assert saved.config.name == TOKENIZERS[name]["name"]
    page = (result.folder / "report.html").read_text()
    assert "perplexity" in page
    assert "variance explained" in result.summary()
    assert set(result.quality.scores["channels"]) == {"seen"}


def test_levels_explain_the_signal_and_quantiles_fit_it_better_than_the_normal(results):
    explained = {
        name: results[name].quality.by_kind()["explained"].item() for name in ("mu_law", "quantile")
    }
    assert explained["mu_law"] > 0.999
    assert 0.98 < explained["quantile"] < explained["mu_law"]
    used = results["quantile"].quality.codes()
    assert used["perplexity"].item() > 19.5


def test_quantiles_are_those_of_what_was_trained_on(store, results):
    saved = load_tokenizer(results["quantile"].tokenizer)
    samples = np.concatenate([read_all(store, subject) for subject in ("1", "2")], axis=1)
    edges = np.quantile(samples, np.arange(1, 20) / 20)
    found = saved.parts.coder.edges.numpy()
    # 12 steps of five windows are two epochs of 30; a window's end may be left out
    assert np.abs(found - edges).max() < 0.05
    assert saved.parts.counts.sum() == 12 * 5 * 4 * 128


def read_all(path, subject):
    store = open_store(path)
    out = np.empty((4, 64 * 30), np.float32)
    store.read_standard_into(f"toy_sub-{subject}", 0, out)
    return out


def test_annealing_ends_in_hard_choices_and_codes_are_named_by_frequency(store, results):
    saved = load_tokenizer(results["annealed"].tokenizer)
    assert float(saved.parts.coder.choice.temperature) == 0
    assert int(saved.parts.taken) == 12
    windows = [read_all(store, subject)[:, : 14 * 128] for subject in ("1", "2")]
    batch = make_batch(np.stack(windows))
    counts = torch.bincount(saved.parts.codes_of(batch).flatten(), minlength=13)
    n_used = int(saved.parts.coder.names.max())
    assert counts[0] == 0
    assert (counts[1 : n_used + 1] > 0).all()
    assert (counts[1:].diff() <= 0).all()
    losses = [row["loss"] for row in results["annealed"].metrics]
    assert losses[-1] < losses[0]


def make_batch(signal):
    return plain_batch(torch.from_numpy(signal))


@pytest.mark.parametrize("name", ["quantile", "annealed"])
def test_a_run_that_is_continued_equals_one_that_never_stopped(
    store, results, tmp_path, name, interrupt
):
    interrupt(7, run, make_config(store, tmp_path / "run", name))
    again = run(make_config(store, tmp_path / "run", name))
    assert again.first_step == 5
    assert again.metrics == results[name].metrics
    digests = {load_tokenizer(r.tokenizer).digest for r in (again, results[name])}
    assert len(digests) == 1


@every_tokenizer
def test_a_slot_codes_as_what_was_trained(store, results, name):
    saved = load_tokenizer(results[name].tokenizer)
    config = SLOTS[name](**{**TOKENIZERS[name], "embed": 3})
    slot = config.build(CONTRACT, 16)
    put_into(slot, config, CONTRACT, saved)
    batch = make_batch(read_all(store, "3")[None, :, :128])
    assert torch.equal(slot.codes(batch), saved.parts.codes_of(batch))
    other = MuLawConfig(patch_s=0.5) if name != "mu_law" else QuantileConfig(patch_s=0.5)
    with pytest.raises(CheckpointError, match=r"not the one that was trained: name: '\w+' against"):
        put_into(other.build(CONTRACT, 16), other, CONTRACT, saved)


def test_what_codes_mean_is_told_by_architecture_signals_and_weights(results):
    saved = {name: load_tokenizer(results[name].tokenizer) for name in TOKENIZERS}
    assert len({s.identity for s in saved.values()}) == 3
    assert load_tokenizer(results["mu_law"].tokenizer).identity == saved["mu_law"].identity

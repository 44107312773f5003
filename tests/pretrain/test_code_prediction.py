"""Predicting the codes of a frozen tokenizer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stores import recording_of, write_store

from neurofm import checkpoint
from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, SignalError, StoreError, TrainingError
from neurofm.pretrain.code_prediction import CodePrediction, CodePredictionConfig
from neurofm.pretrain.run import PretrainConfig, run
from neurofm.store.reader import open_store
from neurofm.tokenizers.brain import BrainTokenizer
from neurofm.tokenizers.brain_parts import BrainEncoder
from neurofm.tokenizers.codes import compute_codes
from neurofm.tokenizers.run import TokenizeConfig
from neurofm.tokenizers.run import run as tokenize

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
TOKENIZER = {
    "name": "brain_tokenizer", "patch_s": 0.5, "ratios": [4, 4], "n_filters": 2, "inner": 8,
    "n_heads": 2, "n_sources": 4, "n_levels": 2, "n_codes": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    signal = 1e-5 * np.random.default_rng(0).standard_normal((5, 64 * 60))
    recording = recording_of(signal, ["Fz", "Cz", "Pz", "C3", "C4"])
    return write_store(tmp_path_factory.mktemp("data") / "store", CONTRACT, recording)


def trained(store, folder, seed=0):
    values = {
        "stores": [str(store)], "folder": str(folder), "tokenizer": TOKENIZER, "steps": 3,
        "loader": {"token_budget": 80}, "accelerator": "cpu", "seed": seed,
    }  # fmt: skip
    return tokenize(parse_config(TokenizeConfig, values, where="test")).tokenizer


@pytest.fixture(scope="module")
def tokenizer(store, tmp_path_factory):
    return trained(store, tmp_path_factory.mktemp("tokenizer") / "run")


def make_config(store, folder, tokenizer, **changes):
    slot = {**TOKENIZER, "discrete": True, "frozen": True, **changes.pop("slot", {})}
    values = {
        "stores": [str(store)], "folder": str(folder), "tokenizer_from": str(tokenizer),
        "encoder": {
            "width": 16, "tokenizer": slot,
            "backbone": {"name": "transformer", "depth": 1, "n_heads": 2},
        },
        "objective": {"name": "code_prediction"}, "loader": {"token_budget": 80},
        "optim": {"warmup_steps": 2}, "steps": 6, "snapshot_every": 3, "accelerator": "cpu",
    }  # fmt: skip
    return parse_config(PretrainConfig, values | changes, where="test")


def test_the_checkpoint_holds_the_tokenizer_as_it_was_trained(store, tokenizer, tmp_path):
    from neurofm.tokenizers.saved import load_tokenizer

    result = run(make_config(store, tmp_path / "run", tokenizer))
    saved = load_tokenizer(tokenizer).parts.state_dict()
    found = checkpoint.load(result.checkpoint).encoder.tokenizer.content.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in found.items())
    assert set(result.metrics[0]) == {"step", "loss", "accuracy", "hidden_share", "lr"}
    assert all(row["hidden_share"] == pytest.approx(0.5) for row in result.metrics)
    assert "hidden codes predicted" in result.summary()


def test_another_tokenizer_is_another_run(store, tokenizer, tmp_path):
    run(make_config(store, tmp_path / "run", tokenizer))
    other = trained(store, tmp_path / "other", seed=1)
    with pytest.raises(TrainingError, match="holds a run of another config"):
        run(make_config(store, tmp_path / "run", other))


def test_codes_that_move_cannot_be_predicted(store, tokenizer, tmp_path):
    config = make_config(store, tmp_path, tokenizer, slot={"frozen": False})
    with pytest.raises(ConfigError, match=r"tokenizer is brain_tokenizer, not frozen\n.*frozen: t"):
        run(config)


def test_a_tokenizer_for_an_encoder_of_another_kind_is_refused(store, tokenizer, tmp_path):
    encoder = {"width": 16, "tokenizer": {"name": "linear_patch", "patch_s": 0.5}}
    config = make_config(store, tmp_path, tokenizer, encoder=encoder)
    with pytest.raises(ConfigError, match="the encoder's tokenizer is linear_patch"):
        run(config)


def test_codes_of_sites_cannot_be_predicted_from_summary_tokens(store, tokenizer, tmp_path):
    config = make_config(store, tmp_path, tokenizer)
    values = config.to_dict()
    values["encoder"]["backbone"]["n_summary"] = 2
    with pytest.raises(ConfigError, match=r"gives summary tokens alone\n.*leave n_summary out"):
        run(parse_config(PretrainConfig, values, where="test"))


# ---------------------------------------------------------------------------------------
# Codes that were computed before

QUANTILES = {"name": "quantile_samples", "patch_s": 0.5, "n_codes": 9}


def metrics_of(result):
    return (result.folder / "metrics.csv").read_text()


@pytest.mark.parametrize("discrete", [True, False])
def test_stored_codes_give_the_same_losses_to_the_letter(
    store, tokenizer, tmp_path, monkeypatch, discrete
):
    slot = {"discrete": discrete}
    computed = run(make_config(store, tmp_path / "computed", tokenizer, slot=slot))
    compute_codes(tokenizer, [str(store)], device="cpu")

    def refuse(*_):
        raise AssertionError("the tokenizer was run")

    monkeypatch.setattr(BrainTokenizer, "codes", refuse)
    if discrete:  # nothing is left to encode while training
        features = BrainEncoder.features
        monkeypatch.setattr(
            BrainEncoder,
            "features",
            lambda self, x: refuse() if torch.is_grad_enabled() else features(self, x),
        )
    config = make_config(store, tmp_path / "stored", tokenizer, slot=slot, codes="stored")
    assert metrics_of(run(config)) == metrics_of(computed)
    state = [
        checkpoint.load(r).encoder.state_dict()
        for r in (computed.checkpoint, tmp_path / "stored" / "checkpoint")
    ]
    assert all(torch.equal(value, state[1][name]) for name, value in state[0].items())


def test_a_run_may_go_on_with_stored_codes(store, tokenizer, tmp_path):
    compute_codes(tokenizer, [str(store)], device="cpu")
    run(make_config(store, tmp_path / "run", tokenizer))
    again = run(make_config(store, tmp_path / "run", tokenizer, codes="stored"))
    assert again.first_step == 6


def test_codes_of_samples_are_predicted_stored_or_not(store, tmp_path):
    values = {
        "stores": [str(store)], "folder": str(tmp_path / "tokenizer"), "tokenizer": QUANTILES,
        "steps": 2, "loader": {"token_budget": 80}, "accelerator": "cpu",
    }  # fmt: skip
    made = tokenize(parse_config(TokenizeConfig, values, where="test")).tokenizer
    compute_codes(made, [str(store)], device="cpu")
    encoder = {
        "width": 16, "tokenizer": QUANTILES,
        "backbone": {"name": "transformer", "depth": 1, "n_heads": 2},
    }  # fmt: skip
    results = [
        run(make_config(store, tmp_path / codes, made, encoder=encoder, codes=codes))
        for codes in ("compute", "stored")
    ]
    assert metrics_of(results[0]) == metrics_of(results[1])
    assert results[0].metrics[-1]["loss"] < results[0].metrics[0]["loss"]


def test_codes_that_are_not_there_are_refused(store, tokenizer, tmp_path):
    other = trained(store, tmp_path / "other", seed=3)
    config = make_config(store, tmp_path / "run", other, codes="stored")
    with pytest.raises(StoreError, match="no codes of the tokenizer .*\n.*neurofm codes"):
        run(config)


def test_stored_codes_ask_for_a_frozen_tokenizer_and_the_grid(store, tokenizer, tmp_path):
    loader = {"token_budget": 80, "cut": "anywhere"}
    config = make_config(store, tmp_path, tokenizer, codes="stored", loader=loader)
    with pytest.raises(ConfigError, match=r"windows on the grid, and loader.cut is anywhere\n"):
        run(config)
    for changes in ({"slot": {"frozen": False}}, {"tokenizer_from": None}):
        config = make_config(store, tmp_path, tokenizer, codes="stored", **changes)
        with pytest.raises(ConfigError, match="what a frozen tokenizer has made: tokenizer_from"):
            run(config)


def test_codes_of_another_shape_are_refused(store, tokenizer):
    from neurofm.data.collate import collate
    from neurofm.data.plan import WindowRef
    from neurofm.tokenizers.brain import BrainTokenizerConfig

    batch = collate(open_store(store), [WindowRef("toy_sub-1", 0)], 128, sfreq=64.0)
    slot = BrainTokenizerConfig(**TOKENIZER, frozen=True, discrete=True).build(CONTRACT, 16)
    codes = slot.codes(batch).to(torch.int16)
    assert torch.equal(slot.stored(replace(batch, codes=codes)), slot.codes(batch))
    with pytest.raises(
        SignalError, match=r"codes have shape \(1, 3, 4, 2, 2\), .* \(1, 4, 4, 2, 2"
    ):
        slot(replace(batch, codes=codes[:, :3]))


def test_what_is_hidden_of_channels_is_never_padding():
    sites = torch.tensor([[True] * 4, [True, True, False, False]])
    objective = CodePrediction.__new__(CodePrediction)
    objective.config = CodePredictionConfig(ratio=0.5)
    for seed in range(20):
        hide = objective._hide(sites, 3, torch.Generator().manual_seed(seed))
        assert not hide[1, 2:].any()
        assert hide.sum((1, 2)).tolist() == [6, 3]

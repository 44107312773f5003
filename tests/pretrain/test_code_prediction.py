"""Predicting the codes of a frozen tokenizer."""

import mne
import numpy as np
import pytest
import torch

from neurofm import checkpoint
from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, TrainingError
from neurofm.pretrain.run import PretrainConfig, run
from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities, Recording
from neurofm.store.writer import commit, create_store, write_recording
from neurofm.tokenizers.run import TokenizeConfig
from neurofm.tokenizers.run import run as tokenize

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
TOKENIZER = {
    "name": "brain_tokenizer", "patch_s": 0.5, "ratios": [4, 4], "n_filters": 2, "inner": 8,
    "n_heads": 2, "n_sources": 4, "n_levels": 2, "n_codes": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "store"
    create_store(path, CONTRACT)
    draw = np.random.default_rng(0)
    recording = Recording(
        signal=(1e-5 * draw.standard_normal((5, 64 * 60))).astype(np.float32),
        sfreq=64.0,
        sensors=sensors_from_info(mne.create_info(["Fz", "Cz", "Pz", "C3", "C4"], 64.0, "eeg")),
        entities=Entities(dataset="toy", subject="1"),
    )
    row = write_recording(path, recording, quality={}, provenance={"source_hash": "1"})
    commit(path, [row])
    return path


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

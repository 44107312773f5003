"""Tokenizers of samples in the slot of an encoder: what their codes are, and what learns."""

from dataclasses import replace

import pytest
import torch
from batches import plain_batch

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.errors import ConfigError
from neurofm.tokenizers.samples import AnnealedSamplesConfig, MuLawConfig, QuantileConfig

CONTRACT = SignalContract(sfreq=50, band_hz=(0.5, 25), window_s=2)
CONFIGS = {
    "mu_law": MuLawConfig(patch_s=0.4),
    "quantile": QuantileConfig(patch_s=0.4, n_codes=16),
    "annealed": AnnealedSamplesConfig(patch_s=0.4, n_codes=8, inner=6, kernel=5, frozen=True),
}
every_coder = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def make_windows(seed=0):
    draw = torch.Generator().manual_seed(seed)
    signal = torch.randn(2, 3, 100, generator=draw)
    return plain_batch(signal, position=0.05 * torch.randn(2, 3, 3, generator=draw), sfreq=50.0)


def build(config):
    torch.manual_seed(0)
    return config.build(CONTRACT, 16)


@every_coder
def test_codes_are_those_of_each_patch_and_say_how_many_there_may_be(config):
    tokenizer, batch = build(config), make_windows()
    codes = tokenizer.codes(batch)
    n_moments, n_levels, n_codes = tokenizer.code_shape
    assert codes.shape == (2, 3, 5, n_moments, n_levels)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < n_codes
    later = replace(batch, signal=batch.signal.clone())
    later.signal[..., 40:] = 0.1
    assert torch.equal(tokenizer.codes(later)[:, :, :2], codes[:, :, :2])
    assert not torch.equal(tokenizer.codes(later), codes)


@every_coder
def test_tokens_follow_from_codes_alone(config):
    tokenizer, batch = build(config), make_windows()
    codes = tokenizer.codes(batch)
    expected = tokenizer(batch).content
    torch.testing.assert_close(tokenizer.content.of_codes(codes[..., 0]), expected)


@every_coder
def test_what_is_frozen_stays_and_what_looks_it_up_learns(config):
    tokenizer = build(config).train()
    learns = {name for name, p in tokenizer.named_parameters() if p.requires_grad}
    assert not any(name.startswith("content.coder") for name in learns)
    assert {"content.table.weight", "content.project.weight"} <= learns
    assert not tokenizer.content.coder.training


@pytest.mark.parametrize("name", ["mu_law", "quantile"])
def test_neighbouring_levels_start_out_alike_and_all_are_told_apart(name):
    table = build(CONFIGS[name]).content.table.weight.detach()
    distance = torch.cdist(table, table, compute_mode="donot_use_mm_for_euclid_dist")
    steps = distance.diagonal(1)
    apart = distance + 9 * torch.eye(len(table))
    torch.testing.assert_close(apart.min(), steps.min())
    assert steps.max() < 1.1 * steps.min()
    assert table.square().mean() == pytest.approx(1, abs=0.1)


def test_codes_that_learn_are_hard_in_training_and_after_it():
    config = CONFIGS["annealed"].model_copy(update={"frozen": False})
    tokenizer, batch = build(config), make_windows()
    trained = tokenizer.train()(batch).content
    trained.square().sum().backward()
    assert tokenizer.content.coder.choice.linear.weight.grad.any()
    torch.testing.assert_close(tokenizer.eval()(batch).content, trained)


def test_an_encoder_of_them_is_built_from_a_config():
    values = {
        "width": 16,
        "tokenizer": {"name": "quantile_samples", "patch_s": 0.4},
        "backbone": {"name": "transformer", "depth": 1, "n_heads": 2},
    }
    encoder = parse_config(EncoderConfig, values, where="test").build(CONTRACT)
    assert encoder(make_windows()).content.shape == (2, 3, 5, 16)


def test_a_kernel_longer_than_a_patch_is_refused():
    config = AnnealedSamplesConfig(patch_s=0.4, kernel=21)
    with pytest.raises(ConfigError, match=r"kernel of 21 samples reaches beyond a patch of 20\n"):
        config.build_parts(CONTRACT)

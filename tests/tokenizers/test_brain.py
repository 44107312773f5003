"""Latent sources as tokens."""

from dataclasses import replace

import pytest
import torch
from batches import plain_batch
from hypothesis import given
from hypothesis import strategies as st

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.tokenizers.brain import BrainTokenizerConfig, strides_of

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)


def make_batch(n_channels=5, n_windows=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (n_windows, n_channels)
    signal = torch.randn(*shape, 128, generator=draw)
    return plain_batch(signal, position=0.06 * torch.randn(*shape, 3, generator=draw))


def build(**changes):
    torch.manual_seed(0)
    values = {"patch_s": 0.5, "inner": 16, "n_codes": 8, "n_levels": 2, "n_sources": 6, **changes}
    return BrainTokenizerConfig(**values).build(CONTRACT, 24)


@given(st.integers(1, 5000))
def test_strides_multiply_to_their_number_and_are_steep_for_large_primes_only(n):
    strides = strides_of(n)
    assert torch.tensor(strides).prod() == n
    assert all(s <= 8 or all(s % k for k in range(2, s)) for s in strides)


def test_the_grid_has_a_site_a_source_whatever_the_montage():
    tokenizer = build()
    for n_channels in (1, 3, 9):
        grid = tokenizer(make_batch(n_channels))
        assert grid.content.shape == (2, 6, 4, 24)
        assert grid.place.shape == (2, 6, 1, 24)
        assert grid.position.shape == (2, 6, 3)
        assert grid.located.all()


def test_a_source_lies_among_the_channels_that_are_located():
    batch = make_batch()
    known = batch.located.clone()
    known[:, 3:] = False
    grid = build()(replace(batch, located=known))
    low, high = batch.position[:, :3].min(1).values, batch.position[:, :3].max(1).values
    assert (grid.position >= low[:, None] - 1e-6).all()
    assert (grid.position <= high[:, None] + 1e-6).all()
    nowhere = build()(replace(batch, located=torch.zeros_like(known)))
    assert not nowhere.located.any()
    assert not nowhere.position.any()


def test_places_do_not_know_the_signal():
    batch = make_batch()
    loud = replace(batch, signal=5 * batch.signal + 1)
    tokenizer = build()
    assert torch.equal(tokenizer(batch).place, tokenizer(loud).place)
    assert torch.equal(tokenizer(batch).position, tokenizer(loud).position)


def test_tokens_of_codes_are_a_function_of_the_codes():
    tokenizer = build(discrete=True).eval()
    batch = make_batch()
    codes = tokenizer.codes(batch)
    assert codes.shape == (2, 6, 4, 4, 2)
    expected = tokenizer.project(tokenizer.content.codes.lookup(codes).flatten(3))
    torch.testing.assert_close(tokenizer(batch).content, expected)


def test_what_is_frozen_neither_learns_nor_follows():
    tokenizer = build(discrete=True, frozen=True).train()
    before = {name: value.clone() for name, value in tokenizer.content.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in tokenizer.parameters() if p.requires_grad], lr=0.1)
    tokenizer(make_batch()).content.square().sum().backward()
    optimiser.step()
    after = tokenizer.content.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert tokenizer.project.weight.grad.any()
    assert not tokenizer.content.training


def test_what_is_not_frozen_follows_in_training():
    tokenizer = build(discrete=True).train()
    before = tokenizer.content.codes.levels[0].vectors.clone()
    tokenizer(make_batch())
    assert not torch.equal(before, tokenizer.content.codes.levels[0].vectors)


def test_moments_that_do_not_fill_a_patch_are_refused():
    with pytest.raises(ConfigError, match=r"a window of 32 samples is 2\.66667 moments of 12"):
        build(ratios=(4, 3))
    with pytest.raises(ConfigError, match="width 16 cannot be split into 3 heads"):
        build(n_heads=3)
    with pytest.raises(ConfigError, match="ratios must be 1 or more"):
        build(ratios=(0, 3))


def test_a_patch_of_one_sample_cannot_be_trained():
    config = BrainTokenizerConfig(patch_s=1 / 64)
    with pytest.raises(ConfigError, match="one sample has no standard deviation"):
        config.build_parts(CONTRACT)


def test_a_fresh_encoder_hears_the_signal_and_tells_places_apart():
    tokenizer = build(inner=64, n_sources=16)
    one, two = make_batch(9), replace(make_batch(9), signal=make_batch(9, seed=1).signal)
    a, b = (tokenizer(batch).content for batch in (one, two))
    assert (a - b).std() > 0.3 * a.std()
    # were attention even over channels, all sources would be one
    assert a.std(1).mean() > 0.3 * a.std()


def test_codes_that_serve_few_tokens_are_kept_as_the_config_says():
    tokenizer = build(revive_below=0.25)
    assert {level.revive_below for level in tokenizer.content.codes.levels} == {0.25}

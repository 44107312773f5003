"""Levels of amplitude: mu-law and quantiles, there and back."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.nn.levels import FINE_BINS, MuLaw, Quantiles, histogram


@settings(max_examples=50)
@given(st.integers(2, 300), st.floats(0.5, 50), st.integers(0, 2**31))
def test_levels_of_mu_law_stand_for_what_they_decode_to(n_codes, peak, seed):
    levels = MuLaw(n_codes, peak)
    codes = torch.arange(n_codes)
    assert torch.equal(levels.encode(levels.decode(codes)), codes)
    draw = torch.Generator().manual_seed(seed)
    signal = (2 * torch.rand(200, generator=draw) - 1) * 2 * peak
    found = levels.encode(signal)
    assert found.min() >= 0
    assert found.max() < n_codes
    assert (found[signal.argsort()].diff() >= 0).all()
    assert (levels.decode(found).abs() <= peak * (1 + 1e-5)).all()


def test_mu_law_is_the_formula_of_telephones():
    signal = torch.linspace(-15, 15, 1001)
    x = signal.double().numpy() / 15
    pressed = np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)
    expected = np.round((pressed + 1) / 2 * 255).astype(int)
    # rounding in single precision may go the other way where the formula is on the edge
    assert np.abs(MuLaw(256, 15.0).encode(signal).numpy() - expected).max() <= 1
    assert (MuLaw(256, 15.0).encode(signal).numpy() == expected).mean() > 0.99


def test_mu_law_is_fine_about_zero():
    levels = MuLaw(256, 15.0)
    for size, step in ((0.01, 0.005), (1.0, 0.06), (10.0, 0.5)):
        signal = torch.full((1,), size)
        assert (levels.decode(levels.encode(signal)) - signal).abs() < step


@settings(max_examples=30)
@given(st.integers(2, 60), st.sampled_from(["normal", "skewed", "ties", "one"]), st.integers(0, 99))
def test_fitted_quantiles_are_equally_frequent_where_values_are_apart(n_codes, shape, seed):
    draw = np.random.default_rng(seed)
    values = {
        "normal": draw.standard_normal(20_000),
        "skewed": draw.exponential(1.5, 20_000) - 1,
        "ties": draw.integers(-3, 4, 20_000) * 55 / 256,
        "one": np.full(100, 0.5),
    }[shape]
    signal = torch.from_numpy(np.clip(values, -15, 15)).float()
    levels = Quantiles(n_codes)
    levels.fit(histogram(signal, 15.0), 15.0)
    codes = levels.encode(signal)
    counts = torch.bincount(codes, minlength=n_codes)
    assert counts.sum() == len(signal)
    assert levels.edges.isfinite().all()
    assert levels.levels.isfinite().all()
    assert (levels.edges.diff() >= 0).all()
    assert (levels.levels.diff() >= -1e-6).all()
    bin_width = 30 / FINE_BINS
    if shape in ("normal", "skewed"):
        expected = len(signal) / n_codes
        assert (counts - expected).abs().max() <= 5 + 0.05 * expected
        for code in range(n_codes):  # a level is the mean of what it stands for
            mean = signal[codes == code].mean()
            assert (levels.levels[code] - mean).abs() < 0.01
    elif n_codes > 14:  # two for each value
        assert (levels.decode(codes) - signal).abs().max() <= bin_width


def test_fresh_quantiles_are_those_of_the_normal_distribution():
    levels = Quantiles(4)
    expected = [-0.6745, 0.0, 0.6745]
    torch.testing.assert_close(levels.edges, torch.tensor(expected), atol=1e-3, rtol=0)
    assert torch.equal(levels.encode(levels.decode(torch.arange(4))), torch.arange(4))


def test_a_histogram_counts_every_sample_once_whatever_its_size():
    signal = torch.tensor([-math.inf, -9.0, -8.0, -1e-4, 1e-4, 8.0, 9.0, math.inf])
    counts = histogram(signal, 8.0, 4)
    assert counts.tolist() == [3, 1, 1, 3]


@pytest.mark.parametrize("n_codes", [2, 5])
def test_more_samples_change_the_fit_as_if_all_had_come_at_once(n_codes):
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3000, generator=draw)
    at_once, apart = Quantiles(n_codes), Quantiles(n_codes)
    at_once.fit(histogram(torch.cat((a, b)), 8.0), 8.0)
    apart.fit(histogram(a, 8.0) + histogram(b, 8.0), 8.0)
    assert torch.equal(at_once.edges, apart.edges)

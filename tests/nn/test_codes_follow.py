"""Codes are the means of what they stand for, whatever happened to them; attention is what it says."""

import pytest
import torch

from neurofm.nn.codebook import Codebook
from neurofm.nn.latent_sources import SensorsToSources
from neurofm.nn.mamba1 import Mamba1Config
from neurofm.nn.selective_scan import selective_scan


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("revive_below", [0.0, 3.0])
def test_vectors_are_the_means_of_their_tokens_also_after_a_code_came_back(normalise, revive_below):
    torch.manual_seed(0)
    book = Codebook(8, 4, normalise=normalise, revive_below=revive_below, decay=0.5, kmeans=False)
    tokens = torch.randn(3, 4)  # eight codes for three tokens: most of them die
    for _ in range(6):
        book.train()(tokens.repeat(5, 1))
        mean = book.total / book.count[:, None].clamp_min(1e-5)
        expected = torch.nn.functional.normalize(mean, dim=-1) if normalise else mean
        torch.testing.assert_close(book.vectors, expected, atol=1e-4, rtol=1e-4)
        if normalise:
            torch.testing.assert_close(book.vectors.norm(dim=-1), torch.ones(8))
    alive = book.count >= 1.0
    assert bool(alive.all()) == (revive_below > 0)
    if revive_below:  # every code is a token, or between what it was and one
        unit = torch.nn.functional.normalize(tokens, dim=-1) if normalise else tokens
        assert torch.cdist(book.vectors, unit).min(1).values.max() < 0.2


def test_a_source_looks_where_its_attention_goes():
    torch.manual_seed(0)
    layer = SensorsToSources(8, 1, 3)
    x, sensors = torch.randn(2, 5, 4, 8), torch.randn(2, 5, 8)
    present = torch.ones(2, 5, dtype=torch.bool)
    present[0, 3:] = False
    looks = layer.weights(x[:, :, :1], sensors, present)  # of the first moment
    found = layer(x[:, :, :1], sensors, present)[:, :, 0]
    expected = layer.project_out(looks @ layer.value(x[:, :, 0]))
    torch.testing.assert_close(found, expected)
    assert not looks[0, :, 3:].any()


def test_a_fresh_mamba_decays_at_whole_rates_from_one_on():
    mixer = Mamba1Config(d_state=5).build(8)
    torch.testing.assert_close(mixer.A_log.exp(), torch.arange(1.0, 6.0).expand(16, 5))


@pytest.mark.parametrize("n_steps", [1, 16, 17, 300])
def test_a_compiler_is_told_the_shapes_that_a_scan_has(n_steps):
    from torch._subclasses.fake_tensor import FakeTensorMode

    def operands(new):
        return (
            new(2, 6, n_steps), new(2, 6, n_steps), -new(6, 3).abs(), new(2, 3, n_steps),
            new(2, 3, n_steps),
        )  # fmt: skip

    real = [t.requires_grad_() for t in operands(torch.randn)]
    y, last = selective_scan(*real)
    with FakeTensorMode():
        fake_y, fake_last = selective_scan(*operands(torch.randn))
        kept = torch.ops.neurofm.selective_scan(
            torch.randn(2, n_steps, 6), torch.randn(2, n_steps, 6), torch.randn(6, 3),
            torch.randn(2, n_steps, 1, 3), torch.randn(2, n_steps, 1, 3), torch.randn(2, 6, 3),
        )[2]  # fmt: skip
    saved = y.grad_fn
    while "selective_scan" not in saved.name():
        saved = saved.next_functions[0][0]
    assert fake_y.shape == y.shape
    assert fake_last.shape == last.shape
    states = [t for t in saved.saved_tensors if t.ndim == 5]
    assert [t.shape for t in states] == [kept.shape]

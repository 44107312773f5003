"""Tokens that gather from others, octaves of positions, and spectra as features."""

import math

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.nn.cross_attention import CrossAttention, CrossBlock
from neurofm.nn.magnitude_phase import MagnitudePhase
from neurofm.nn.octaves import octaves, to_unit_box
from neurofm.nn.polar import magnitude, polar


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("one_for_all", [False, True])
def test_cross_attention_is_that_of_torch(n, one_for_all):
    torch.manual_seed(0)
    ours = CrossAttention(12, 3)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    maps = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([m.weight for m in maps]))
        theirs.in_proj_bias.copy_(torch.cat([m.bias for m in maps]))
    theirs.out_proj.load_state_dict(ours.project_out.state_dict())
    q, k, v = torch.randn(2, n, 12), torch.randn(2, 9, 12), torch.randn(2, 9, 12)
    present = torch.ones(2, 9, dtype=torch.bool)
    present[1, 2:7] = False
    if one_for_all:
        q = q[:1]
    out, weights = theirs(q.expand(2, -1, -1), k, v, key_padding_mask=~present)
    torch.testing.assert_close(ours(q, k, v, present), out)
    torch.testing.assert_close(ours.weights(q, k, present), weights.expand(2, -1, -1))


@pytest.mark.parametrize("n", [1, 7])
def test_few_queries_and_many_gather_the_same(n):
    """Maps go to the side where there is less to map; here both sides are tried."""
    torch.manual_seed(0)
    layer = CrossAttention(12, 3)
    q, k, v = (torch.randn(3, length, 12) for length in (n, 9, 9))
    present = torch.rand(3, 9) < 0.5
    present[1] = False
    found = []
    for few in (True, False):
        layer._few = lambda n, m, few=few: few
        layer.zero_grad()
        out = layer(q, k, v, present)
        out.square().sum().backward()
        found.append([out, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    assert all(grad.isfinite().all() for grad in found[0])


def test_maps_are_on_the_side_where_there_is_less_to_do():
    layer = CrossAttention(64, 2)
    assert layer._few(4, 64)
    assert layer._few(1, 50)
    assert not layer._few(64, 4)
    assert not layer._few(64, 64)


def test_heads_that_do_not_share_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"width 12 cannot be split into 5 heads(.|\n)*1, 2, 3"):
        CrossAttention(12, 5)


def test_what_is_gathered_from_may_stand_in_any_order():
    torch.manual_seed(0)
    block = CrossBlock(8, 2, 16)
    x, others = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    torch.testing.assert_close(block(x, others), block(x, others.flip(1)))
    torch.testing.assert_close(block(x.flip(1), others).flip(1), block(x, others))


def test_octaves_double_their_frequency_and_end_in_zeros():
    waves = octaves(torch.tensor([0.1, 0.2, 0.3]), 16)
    expected = [math.sin(0.1), math.cos(0.1), math.sin(0.2), math.cos(0.2)]
    torch.testing.assert_close(waves[:4], torch.tensor(expected))
    torch.testing.assert_close(waves[6:8], torch.tensor([math.sin(0.2), math.cos(0.2)]))
    assert (waves[12:] == 0).all()


def test_a_layout_in_a_box_knows_no_unit():
    position = torch.randn(2, 5, 3)
    boxed = to_unit_box(position)
    assert boxed.amin() == 0
    assert boxed.amax() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(to_unit_box(1000 * position + 7), boxed, rtol=1e-3, atol=1e-4)


def test_magnitude_and_phase_tell_a_shift_of_a_sine():
    torch.manual_seed(0)
    features = MagnitudePhase(40, 8)
    t = 2 * math.pi * torch.arange(40) / 10
    assert features(t.sin()).shape == (8,)
    assert (features(t.sin()) - features(t.cos())).abs().max() > 1e-3


@pytest.mark.parametrize("n", [1, 7])
def test_tokens_normalised_for_keys_and_values_apart_are_normalised_once(n):
    torch.manual_seed(0)
    layer, norms = CrossAttention(12, 3), [torch.nn.LayerNorm(12) for _ in range(2)]
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    query, tokens = torch.randn(2, n, 12), torch.randn(2, 9, 12, requires_grad=True)
    present = torch.rand(2, 9) < 0.7
    parameters = [tokens, *layer.parameters(), *norms[0].parameters(), *norms[1].parameters()]
    found = []
    for out in (
        layer.normed(query, tokens, *norms, present),
        layer(query, norms[0](tokens), norms[1](tokens), present),
    ):
        found.append([out, *torch.autograd.grad(out.square().sum(), parameters)])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("asks", [False, True])
def test_magnitudes_and_phases_are_those_of_complex_numbers(asks):
    torch.manual_seed(0)
    spectrum = torch.randn(7, 5, dtype=torch.complex64).requires_grad_(asks)
    size, phase = polar(spectrum).chunk(2, dim=1)
    torch.testing.assert_close(size, spectrum.abs())
    torch.testing.assert_close(magnitude(spectrum), spectrum.abs())
    torch.testing.assert_close(phase, spectrum.angle())


def test_a_spectrum_of_nothing_has_gradients():
    silence = torch.zeros(3, 10, requires_grad=True)
    spectrum = torch.fft.rfft(silence)
    (polar(spectrum).sum() + magnitude(spectrum).sum()).backward()
    assert silence.grad.isfinite().all()

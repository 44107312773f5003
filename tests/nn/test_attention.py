"""Attention, against itself written out, and against padding."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.nn.attention import (
    ATTENTIONS,
    AttentionStyle,
    CrissCrossAttention,
    FullAttention,
    attend,
)
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.cross_attention import CrossAttention
from neurofm.nn.linear_attention import LinearAttention
from neurofm.nn.pool import AttentionPool
from neurofm.nn.rotary import Rotary, rotate
from neurofm.published.biot import BIOTConfig
from neurofm.tokenizers.brain_parts import BrainPartsConfig


def spell_out(q, k, v, present):
    """Softmax over the present keys, row by row."""
    out = torch.zeros_like(q)
    for n in range(len(q)):
        keys = present[n].nonzero()[:, 0]
        if len(keys):
            score = q[n] @ k[n][:, keys].transpose(-1, -2) / q.shape[-1] ** 0.5
            out[n] = score.softmax(-1) @ v[n][:, keys]
    return out


def test_attend_is_a_softmax_over_present_keys_and_zero_without_any():
    q, k, v = torch.randn(3, 4, 2, 6, 8).unbind(0)
    present = torch.rand(4, 6) < 0.6
    present[1] = False
    torch.testing.assert_close(attend(q, k, v, present), spell_out(q, k, v, present))
    everything = torch.ones(4, 6, dtype=torch.bool)
    torch.testing.assert_close(attend(q, k, v, None), spell_out(q, k, v, everything))


def test_rows_without_any_key_have_a_finite_gradient():
    q, k, v = (torch.randn(2, 1, 3, 4, requires_grad=True) for _ in range(3))
    present = torch.tensor([[False] * 3, [True] * 3])
    attend(q, k, v, present).sum().backward()
    assert all(t.grad.isfinite().all() and not t.grad[0].any() for t in (q, k, v))


def grid_tokens(n_sites=4, n_patches=3, width=16):
    return torch.randn(2, n_sites, n_patches, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_saying_that_all_are_present_changes_nothing(name):
    layer, x = ATTENTIONS[name](16, 4), grid_tokens()
    turn = Rotary(4)(3, x)
    present = torch.ones(2, 4, 3, dtype=torch.bool)
    torch.testing.assert_close(layer(x, None, turn), layer(x, present, turn))


def test_full_attention_reaches_every_token_and_criss_cross_its_row_and_column():
    x = grid_tokens()
    turn = Rotary(4)(3, x)
    other = x.clone()
    other[:, 1, 2] += 1
    for layer, crossed in ((FullAttention(16, 4), False), (CrissCrossAttention(16, 4), True)):
        changed = (layer(x, None, turn) - layer(other, None, turn)).abs().amax((0, -1)) > 1e-6
        expected = torch.ones(4, 3, dtype=torch.bool)
        if crossed:
            expected[:] = False
            expected[1, :] = expected[:, 2] = True
        assert torch.equal(changed, expected)


def test_criss_cross_is_two_attentions_written_out():
    torch.manual_seed(0)
    layer, x = CrissCrossAttention(16, 4), grid_tokens()
    turn = Rotary(4)(3, x)
    q, k, v = layer.heads(x)  # (B, S, P, H, E)
    gathered = torch.zeros_like(q)
    for patch in range(3):
        a, b, c = (t[:, :, patch, :2].transpose(1, 2) for t in (q, k, v))
        weights = (a @ b.transpose(-1, -2) / 2).softmax(-1)
        gathered[:, :, patch, :2] = (weights @ c).transpose(1, 2)
    q, k = rotate(q, turn), rotate(k, turn)
    for site in range(4):
        a, b, c = (t[:, site, :, 2:].transpose(1, 2) for t in (q, k, v))
        weights = (a @ b.transpose(-1, -2) / 2).softmax(-1)
        gathered[:, site, :, 2:] = (weights @ c).transpose(1, 2)
    torch.testing.assert_close(layer(x, None, turn), layer.project_out(gathered.flatten(-2)))


@pytest.mark.parametrize(("width", "n_heads"), [(16, 3), (12, 8)])
def test_heads_that_do_not_fit_the_width_are_refused(width, n_heads):
    with pytest.raises(ConfigError, match=rf"width {width} cannot be split into {n_heads} heads"):
        FullAttention(width, n_heads)


@pytest.mark.parametrize(
    "build",
    [
        FullAttention,
        CrossAttention,
        LinearAttention,
        AttentionPool,
        lambda width, n_heads: BIOTConfig(width=width, n_heads=n_heads).build(),
        lambda width, n_heads: BrainPartsConfig(width=width, n_heads=n_heads).build(),
    ],
)
def test_the_hint_lists_the_heads_that_fit(build):
    with pytest.raises(ConfigError, match=r"into 5 heads\n.*n_heads may be 1, 2, 3, 4, 6, 12$"):
        build(12, 5)


def test_rotary_refuses_heads_of_an_odd_number_of_features():
    with pytest.raises(
        ConfigError, match=r"pairs of features, and a head has 3\n.*n_heads so that"
    ):
        Rotary(3)


def test_criss_cross_needs_an_even_number_of_heads():
    with pytest.raises(ConfigError, match=r"halves its heads, and n_heads is 3\n.*n_heads to 4"):
        CrissCrossAttention(12, 3)


@pytest.mark.parametrize(
    "style",
    [
        BlockStyle(),
        BlockStyle(norm_place="post", layer_scale=0.3, attention=AttentionStyle(bias=False)),
        BlockStyle(attention=AttentionStyle(qk_norm="rms", head_width=6), norm_hidden=True),
    ],
)
def test_some_tokens_after_a_block_are_as_if_all_had_been_computed(style):
    torch.manual_seed(0)
    block, x = Block(16, 4, attention="full", hidden=20, style=style), torch.randn(3, 7, 16)
    whole = block(x[:, None], None, None)[:, 0]
    torch.testing.assert_close(block.some(x[:, -2:], x), whole[:, -2:])
    torch.testing.assert_close(block.some(x, x), whole)


@pytest.mark.parametrize("n", [5, 15])  # tokens, fewer than features or more
def test_linear_attention_is_one_matrix_a_head_that_queries_read(n):
    torch.manual_seed(0)
    layer, x = LinearAttention(12, 3), torch.randn(3, n, 12)
    present = torch.stack((torch.ones(n), torch.arange(n) % 3 != 1, torch.zeros(n))).bool()
    x[~present] = 1e6
    found = layer(x, present)
    for window in range(3):
        seen = x[window][present[window]]
        q, k, v = layer.project_in(seen).unflatten(-1, (3, 3, 4)).unbind(1)  # (N, H, E)
        if len(seen):
            matrices = [k[:, h].softmax(0).T @ v[:, h] for h in range(3)]
            read = [q[:, h].softmax(-1) / 2 @ matrix for h, matrix in enumerate(matrices)]
            expected = layer.project_out(torch.cat(read, dim=-1))
            torch.testing.assert_close(found[window][present[window]], expected)
    assert found.isfinite().all()
    alone = layer(x[1:2][:, present[1]])
    torch.testing.assert_close(found[1:2][:, present[1]], alone)


def test_linear_attention_writes_out_few_tokens_and_maps_what_is_gathered_of_many():
    torch.manual_seed(0)
    layer, found = LinearAttention(12, 3), []
    x, present = torch.randn(2, 12, 12), torch.rand(2, 12) < 0.6
    assert layer._few(11)
    assert not layer._few(12)
    for few in (True, False):
        layer._few = lambda n, few=few: few
        layer.zero_grad()
        out = layer(x, present)
        out[present].square().sum().backward()
        found.append([out[present], *(p.grad for p in layer.parameters())])
        holes = torch.where(present[..., None], x, torch.nan)
        torch.testing.assert_close(layer(holes, present)[present], out[present])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("pairs", ["halves", "adjacent"])
def test_rotation_keeps_lengths_and_sees_only_differences_in_time(pairs):
    q, k = torch.randn(2, 8)
    many = torch.ones(40, 1, 1)
    turned = [rotate(t * many, Rotary(8, pairs=pairs)(40, q))[:, 0] for t in (q, k)]
    scores = turned[0] @ turned[1].T  # (40, 40)
    for lag in (-7, 0, 1, 12):
        along = scores.diagonal(lag)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    assert (scores.diagonal(1)[0] - scores.diagonal(5)[0]).abs() > 1e-3
    torch.testing.assert_close(turned[0].norm(dim=-1), q.norm().expand(40))


def test_adjacent_pairs_are_the_halves_in_another_order():
    x = torch.randn(5, 2, 8)
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    halves = rotate(x[..., order], Rotary(8)(5, x))
    adjacent = rotate(x, Rotary(8, pairs="adjacent")(5, x))
    torch.testing.assert_close(adjacent[..., order], halves)


def test_frequencies_spread_over_heads_are_those_of_one_wide_head():
    x = torch.randn(5, 3, 8)
    spread = rotate(x, Rotary(8, pairs="adjacent", spread_over=3)(5, x))
    wide = rotate(x.reshape(5, 1, 24), Rotary(24, pairs="adjacent")(5, x))
    torch.testing.assert_close(spread.reshape(5, 1, 24), wide)


@pytest.mark.parametrize("pairs", ["halves", "adjacent"])
def test_features_beyond_those_that_turn_stay(pairs):
    x = torch.randn(5, 2, 8)
    turn = Rotary(4, pairs=pairs)(5, x)
    turned = rotate(x, turn)
    torch.testing.assert_close(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(turned[..., :4], rotate(x[..., :4], turn))


@pytest.mark.parametrize("pairs", ["halves", "adjacent"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_features_turn_as_spelt_out_wherever_they_lie_in_memory(pairs, dtype):
    cos, sin, _ = turn = Rotary(4, pairs=pairs)(5, torch.zeros((), dtype=torch.float64))
    wide = torch.randn(5, 3, 9, dtype=torch.float64).to(dtype)
    for x in (wide[..., :4], wide[..., 1:5], wide[..., 3:], wide.transpose(0, 2)[:5, :, :5]):
        y = x.to(torch.float64)
        a, b = (y[..., :2], y[..., 2:4]) if pairs == "halves" else (y[..., :4:2], y[..., 1:4:2])
        parts = a * cos - b * sin, a * sin + b * cos
        spelt = torch.cat(parts, -1) if pairs == "halves" else torch.stack(parts, -1).flatten(-2)
        near = {"atol": 0.03, "rtol": 0.03} if dtype == torch.bfloat16 else {}
        for angles in (turn, (cos.to(dtype), sin.to(dtype), pairs)):
            turned = rotate(x, angles).to(torch.float64)
            torch.testing.assert_close(turned[..., :4], spelt, check_dtype=False, **near)
            torch.testing.assert_close(turned[..., 4:], y[..., 4:])


def test_times_may_be_given_and_need_not_be_whole():
    x = torch.randn(4, 1, 8)
    rotary = Rotary(8)
    cos, sin, _ = rotary.at(torch.tensor([0.0, 1.0, 2.0, 3.0]), x)
    torch.testing.assert_close(cos, rotary(4, x)[0])
    half = rotary.at(torch.tensor([0.5]), x)[1]
    assert not torch.allclose(half, sin[:1]) and not torch.allclose(half, sin[1:2])

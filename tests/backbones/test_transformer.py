"""The transformer backbone: its initial weights, its cost, and the place of its tokens."""

import pytest
import torch
from pydantic import ValidationError

from neurofm.backbones.transformer import TransformerConfig
from neurofm.nn.attention import (
    AttentionStyle,
    FullAttention,
    SplitHalvesAttention,
    SwappedHalvesAttention,
)
from neurofm.nn.block import drop_path
from neurofm.nn.feedforward import FeedForward
from neurofm.nn.rotary import Rotary
from neurofm.signals import Grid


def random_grid(n_sites=3, n_patches=4, width=32):
    draw = torch.Generator().manual_seed(0)
    return Grid(
        content=torch.randn(2, n_sites, n_patches, width, generator=draw),
        place=torch.randn(2, n_sites, 1, width, generator=draw),
        present=torch.ones(2, n_sites, n_patches, dtype=torch.bool),
    )


@pytest.mark.parametrize("width", [64, 256])
def test_weights_keep_the_scale_and_what_is_added_shrinks_with_depth(width):
    backbone = TransformerConfig(depth=8, n_heads=4).build(width)
    weights = {name: p for name, p in backbone.named_parameters() if p.ndim == 2}
    assert len(weights) == 8 * 4
    for name, weight in weights.items():
        last = name.endswith(("project_out.weight", "narrow.weight"))
        expected = weight.shape[1] ** -0.5 * (0.25 if last else 1)
        assert float(weight.detach().std()) == pytest.approx(expected, rel=0.05), name


def test_place_is_added_before_the_first_block_and_kept():
    backbone, grid = TransformerConfig(depth=1, n_heads=4).build(32).eval(), random_grid()
    merged = grid.evolve(content=grid.tokens, place=torch.zeros_like(grid.place))
    torch.testing.assert_close(backbone(grid).content, backbone(merged).content)
    assert backbone(grid).place is grid.place


def test_the_output_is_normalised():
    content = TransformerConfig(depth=2, n_heads=4).build(32)(random_grid()).content
    torch.testing.assert_close(content.mean(-1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(content.square().mean(-1), torch.ones(2, 3, 4), atol=1e-2, rtol=0)


@pytest.mark.parametrize("attention", ["full", "criss_cross"])
def test_the_size_of_the_grid_adds_no_parameters(attention):
    backbone = TransformerConfig(depth=1, n_heads=4, attention=attention).build(32)
    assert backbone(random_grid(7, 2)).content.shape == (2, 7, 2, 32)
    assert backbone(random_grid(1, 1)).content.shape == (2, 1, 1, 32)
    assert sum(p.numel() for p in backbone.parameters()) == 4 * 32 * 33 + 8 * 32 * 32 + 5 * 32 + 192


def reach(**values):
    """Which tokens change, (S, P), when the one at site 1, patch 2 does."""
    torch.manual_seed(0)
    backbone, grid = TransformerConfig(n_heads=4, **values).build(32).eval(), random_grid()
    other = grid.content.clone()
    other[:, 1, 2] += torch.linspace(-1, 1, 32)
    changed = backbone(grid).content - backbone(grid.evolve(content=other)).content
    return changed.abs().amax((0, -1)) > 1e-6


@pytest.mark.parametrize("attention", ["full", "criss_cross", "split_halves", "factorised"])
@pytest.mark.parametrize("norm_place", ["pre", "post"])
def test_two_blocks_of_every_mix_reach_every_token(attention, norm_place):
    assert reach(depth=2, attention=attention, norm_place=norm_place).all()


@pytest.mark.parametrize(("attention", "row"), [("sites", False), ("patches", True)])
def test_attention_along_one_axis_stays_on_it(attention, row):
    changed = reach(depth=2, attention=attention)
    expected = torch.zeros(3, 4, dtype=torch.bool)
    if row:
        expected[1] = True
    else:
        expected[:, 2] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize(
    "attention", ["full", "criss_cross", "split_halves", "factorised", "patches"]
)
def test_a_causal_backbone_does_not_see_what_comes_later(attention):
    changed = reach(depth=2, attention=attention, causal=True)
    assert not changed[:, :2].any()
    assert changed[1, 2:].all()


def test_factorised_blocks_alternate_between_sites_and_patches():
    config = TransformerConfig(depth=4, attention="factorised")
    assert [config.attention_of(i) for i in range(4)] == ["sites", "patches"] * 2


def test_split_halves_is_two_attentions_of_half_the_width():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 16)
    layer = SplitHalvesAttention(16, 4)
    swapped = SwappedHalvesAttention(16, 4)
    swapped.load_state_dict(layer.state_dict())
    turn = Rotary(4)(4, x)
    space = layer.across_sites(x[..., :8], None, None)
    time = layer.across_patches(x[..., 8:], None, turn)
    torch.testing.assert_close(layer(x, None, turn), torch.cat((space, time), -1))
    halves = torch.cat((x[..., 8:], x[..., :8]), -1)
    torch.testing.assert_close(swapped(halves, None, turn), layer(x, None, turn))


@pytest.mark.parametrize("qk_norm", ["layer", "rms"])
def test_normalised_queries_and_keys_forget_their_length(qk_norm):
    torch.manual_seed(0)
    layer, x = (
        FullAttention(16, 4, AttentionStyle(qk_norm=qk_norm, bias=False)),
        torch.randn(2, 3, 4, 16),
    )
    q, k, v = layer.heads(100 * x)
    longer = layer.heads(300 * x)
    torch.testing.assert_close(longer[0], q, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(longer[1], k, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(longer[2], 3 * v, atol=1e-2, rtol=1e-4)


def test_layer_scale_near_zero_leaves_the_stream_as_it_is():
    backbone = TransformerConfig(depth=3, n_heads=4, layer_scale=1e-8).build(32)
    grid = random_grid()
    torch.testing.assert_close(backbone(grid).content, backbone.norm(grid.tokens))


def test_drop_path_skips_whole_windows_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(20_000, 2, 3)
    dropped = drop_path(x, 0.25)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped.amax((1, 2)), dropped.amin((1, 2)))
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    config = TransformerConfig(depth=3, drop_path=0.2)
    assert [config.style(i).drop_path for i in range(3)] == pytest.approx([0, 0.1, 0.2])


def test_paths_are_dropped_in_training_only():
    torch.manual_seed(0)
    backbone, grid = TransformerConfig(depth=2, n_heads=4, drop_path=0.9).build(32), random_grid()
    assert not torch.equal(backbone(grid).content, backbone(grid).content)
    backbone.eval()
    assert torch.equal(backbone(grid).content, backbone(grid).content)


@pytest.mark.parametrize("activation", ["geglu", "swiglu"])
def test_gated_layers_multiply_by_their_bent_other_half(activation):
    torch.manual_seed(0)
    layer, x = FeedForward(6, 5, activation=activation), torch.randn(7, 6)
    value, gate = layer.widen(x).chunk(2, -1)
    bend = torch.nn.functional.gelu if activation == "geglu" else torch.nn.functional.silu
    torch.testing.assert_close(layer(x), layer.narrow(value * bend(gate)))


def test_rms_norm_leaves_the_mean():
    content = TransformerConfig(depth=1, n_heads=4, norm="rms").build(32)(random_grid()).content
    torch.testing.assert_close(content.square().mean(-1), torch.ones(2, 3, 4), atol=1e-2, rtol=0)
    assert content.mean(-1).abs().max() > 1e-2


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"dropout": 1.0}, {"attention": "sparse"}, {"n_head": 4}]
)
def test_values_out_of_range_are_refused_where_they_are_written(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TransformerConfig(**wrong)

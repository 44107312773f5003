"""The transformer backbone: its initial weights, its cost, and the place of its tokens."""

import pytest
import torch
from pydantic import ValidationError

from neurofm.backbones.transformer import TransformerConfig
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


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"dropout": 1.0}, {"attention": "sparse"}, {"n_head": 4}]
)
def test_values_out_of_range_are_refused_where_they_are_written(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TransformerConfig(**wrong)

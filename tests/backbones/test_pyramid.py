"""The pyramid over the past: who sees whom, padding, and MEG-GPT as one of its rows."""

import pytest
import torch
from pydantic import ValidationError

from neurofm.backbones.pyramid import LAYERS, PyramidConfig, PyramidLayerConfig
from neurofm.errors import ConfigError
from neurofm.nn.rotary import Rotary
from neurofm.published.meg_gpt import LayerConfig, LookupConfig, MEGGPTConfig
from neurofm.signals import Grid

WIDTH = 16


def build(*layers, **values):
    torch.manual_seed(0)
    layers = layers or ({"group": 2, "near": 2},)
    return PyramidConfig(layers=layers, **{"n_heads": 2, **values}).build(WIDTH).eval()


def random_grid(n_patches=10, n_sites=3):
    draw = torch.Generator().manual_seed(0)
    return Grid(
        content=torch.randn(2, n_sites, n_patches, WIDTH, generator=draw),
        place=torch.randn(2, n_sites, 1, WIDTH, generator=draw),
        present=torch.ones(2, n_sites, n_patches, dtype=torch.bool),
    )


@torch.no_grad()
def reach(backbone, grid, patch):
    """Which tokens (S, P) change when that at site 1 and `patch` does."""
    other = grid.content.clone()
    other[:, 1, patch] += torch.linspace(-1, 1, WIDTH)
    gap = backbone(grid).content - backbone(grid.evolve(content=other)).content
    return gap.abs().amax((0, -1)) > 1e-6


@pytest.mark.parametrize("patch", range(10))
def test_a_group_is_seen_once_it_is_over_and_what_is_near_at_once(patch):
    changed = reach(build({"group": 4, "near": 2}), random_grid(), patch)
    assert not changed[0].any() and not changed[2].any()  # sites are apart
    over = next(last for last in (1, 5, 9) if patch <= last)  # counted back from the last
    expected = {patch, patch + 1, *range(over, 10)} & set(range(10))
    assert set(changed[1].nonzero()[:, 0].tolist()) == expected


def test_by_default_every_token_knows_all_of_its_past_and_nothing_later():
    backbone, grid = build(*LAYERS), random_grid(20)
    for patch in (0, 7, 13, 19):
        changed = reach(backbone, grid, patch)
        assert changed[:, patch:].all() and not changed[:, :patch].any()


def test_without_causality_groups_and_neighbours_on_both_sides_are_seen():
    changed = reach(build({"group": 4}, causal=False), random_grid(), 6)
    assert changed[1].all()
    beside = reach(build({"group": 16, "near": 2}, causal=False), random_grid(15), 6)
    assert beside[1].all()  # one group is all of the window


def test_sites_attend_to_each_other_where_a_layer_says_so():
    changed = reach(build({"sites": True}), random_grid(), 4)
    assert changed[:, 4:].all() and not changed[:, :4].any()


def test_patches_that_do_not_go_on_are_absent_and_zero():
    backbone, grid = build({"n_out": 7}, {"group": 3, "n_out": 4}), random_grid()
    found = backbone(grid)
    assert found.content.shape == grid.content.shape
    assert found.present[..., 6:].all() and not found.present[..., :6].any()
    assert not found.content[:, :, :6].any() and found.content[:, :, 6:].any(-1).all()
    short = backbone(random_grid(3))
    assert short.present.all()


@pytest.mark.parametrize("n_patches", [1, 5, 6, 7, 8])
def test_a_window_that_is_no_whole_number_of_groups_is_as_if_nothing_came_before(n_patches):
    backbone, grid = build({"group": 4, "near": 3}, {"group": 2}), random_grid(8)
    present = grid.present.clone()
    present[:, :, : 8 - n_patches] = False
    content = grid.content.masked_fill(~present[..., None], float("nan"))
    last = grid.evolve(
        content=grid.content[:, :, 8 - n_patches :], present=present[:, :, 8 - n_patches :]
    )
    with torch.no_grad():
        padded = backbone(grid.evolve(content=content, present=present)).content
        alone = backbone(last).content
    torch.testing.assert_close(padded[:, :, 8 - n_patches :], alone, atol=1e-5, rtol=1e-5)
    assert not padded[:, :, : 8 - n_patches].any()


def test_groups_know_when_they_were():
    """Two groups that change places are not the same past."""
    grid = random_grid(9)
    swapped = grid.content.clone()
    swapped[:, :, 1:5], swapped[:, :, 5:9] = grid.content[:, :, 5:9], grid.content[:, :, 1:5]
    for rotary, same in ((True, False), (False, True)):
        backbone = build({"group": 4, "n_out": 1}, rotary=rotary)
        layer = backbone.layers[0]
        turn = backbone.rotary
        assert (turn is None) == same and (same or isinstance(turn, Rotary))
        normed = layer.norm_time(grid.tokens).flatten(0, 1)
        other = layer.norm_time(swapped + grid.place).flatten(0, 1)
        view = layer.view(grid.tokens, turn)
        fill = (0, 0, view.fill, 0)
        found = [
            layer.time(normed, torch.nn.functional.pad(x, fill), view.sees, turns=view.turns)
            for x in (normed, other)
        ]
        assert torch.allclose(*found, atol=1e-6) == same


def test_the_layers_of_meg_gpt_are_a_row():
    """Same weights, same numbers, where the window is as long as it is made for."""
    groups = ((1, 20, 20), (4, 5, 16), (4, 4, 16), (8, 2, 5))
    torch.manual_seed(0)
    published = MEGGPTConfig(
        times=LookupConfig(n_rows=20),
        channels=LookupConfig(n_rows=3),
        lookup_width=WIDTH,
        width=WIDTH,
        n_heads=2,
        hidden=32,
        layers=tuple(
            LayerConfig(n_patches=n, patch_len=length, n_out=out) for length, n, out in groups
        ),
    ).build()
    layers = [{"group": length, "n_out": out} for length, _, out in groups]
    row = build(*layers, rotary=False, mlp_ratio=2)
    weights = {
        name: value
        for name, value in published.state_dict().items()
        if name.startswith("layers.") and not name.endswith(".sees")
    }
    assert set(weights) == {name for name in row.state_dict() if name.startswith("layers.")}
    row.load_state_dict(weights, strict=False)
    x = torch.randn(2, 3, 20, WIDTH)
    with torch.no_grad():
        expected = x
        for layer in published.layers:
            expected = layer(expected)
        torch.testing.assert_close(row.mix(x, None), expected)


def test_a_pyramid_refuses_to_step():
    with pytest.raises(ConfigError, match=r"one patch after the other.*\n.*causal transformer"):
        build().step(random_grid())


@pytest.mark.parametrize(
    "wrong", [{"layers": []}, {"layers": [{"group": 0}]}, {"layers": [{"near": -1}]}, {"n_head": 1}]
)
def test_values_out_of_range_are_refused_where_they_are_written(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PyramidConfig(**wrong)


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="width 16 cannot be split into 3 heads"):
        build(n_heads=3)
    assert PyramidConfig(layers=[PyramidLayerConfig()] * 3).depth == 3


def test_a_group_is_as_old_as_its_last_patch():
    backbone = build({"group": 4, "near": 2})
    queries, keys = backbone.layers[0].view(random_grid().content, backbone.rotary).turns
    at = {name: turn[0][:, 0] for name, turn in (("query", queries), ("key", keys))}
    # ten patches filled up to twelve; the groups end with the second, the sixth and the last
    torch.testing.assert_close(at["key"][:3], at["query"][[1, 5, 9]])
    torch.testing.assert_close(at["key"][5:], at["query"])

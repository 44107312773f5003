"""The Mamba backbone: order of the scan, both directions, padding, and what it shares."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from neurofm.backbones.mamba import MambaConfig
from neurofm.backbones.transformer import TransformerConfig
from neurofm.config import parse_config
from neurofm.encoder import EncoderConfig
from neurofm.errors import ConfigError
from neurofm.nn.mamba1 import Mamba1Config
from neurofm.nn.mamba2 import Mamba2Config
from neurofm.nn.scan_order import sequences, site_order
from neurofm.signals import Grid

ORDERS = ("time_within_site", "site_within_time", "per_site")
every_order = pytest.mark.parametrize("scan", ORDERS)
MIXER = Mamba2Config(d_state=4, headdim=8)


def random_grid(n_sites=4, n_patches=5, width=16, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Grid(
        content=torch.randn(2, n_sites, n_patches, width, generator=draw),
        place=torch.randn(2, n_sites, 1, width, generator=draw),
        present=torch.ones(2, n_sites, n_patches, dtype=torch.bool),
        position=0.06 * torch.randn(2, n_sites, 3, generator=draw),
        located=torch.ones(2, n_sites, dtype=torch.bool),
    )


def build(**values):
    torch.manual_seed(0)
    return MambaConfig(**{"depth": 1, "mixer": MIXER, **values}).build(16).eval()


def encode(backbone, grid):
    with torch.no_grad():
        return backbone(grid).content


def numbered(grid):
    """The sequences of a grid whose tokens carry their own site and patch."""
    _, n_sites, n_patches = grid.present.shape
    sites = torch.arange(n_sites)[:, None].expand(n_sites, n_patches)
    patches = torch.arange(n_patches).expand(n_sites, n_patches)
    return torch.stack((sites, patches), -1).expand(2, -1, -1, -1).double()


def test_patches_run_within_sites_or_sites_within_patches_or_each_site_alone():
    grid = random_grid()
    walk = site_order(grid)[0].tolist()
    first = {order: sequences(grid, order).take(numbered(grid)) for order in ORDERS}
    along = [(s, p) for s in walk for p in range(5)]
    assert [tuple(t) for t in first["time_within_site"][0].tolist()] == along
    across = [(s, p) for p in range(5) for s in walk]
    assert [tuple(t) for t in first["site_within_time"][0].tolist()] == across
    assert first["per_site"].shape == (8, 5, 2)
    assert [tuple(t) for t in first["per_site"][1].tolist()] == [(1, p) for p in range(5)]


@every_order
def test_a_grid_comes_back_as_it_was_and_twice_reversed_is_not_reversed(scan):
    grid = random_grid()
    grid = grid.evolve(
        present=torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(3)) > 0.4
    )
    order, x = sequences(grid, scan), grid.content
    torch.testing.assert_close(order.put(order.take(x), x), x)
    inside = order.take(x)
    torch.testing.assert_close(order.reverse(order.reverse(inside)), inside)


@every_order
def test_tokens_that_are_absent_come_last_in_both_directions(scan):
    grid = random_grid()
    present = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(3)) > 0.4
    order = sequences(grid.evolve(present=present), scan)
    here = order.take(present[..., None].float())
    for seen in (here, order.reverse(here)):
        assert (seen.diff(dim=1) <= 0).all()


def test_the_walk_follows_positions_and_passes_neighbours():
    axis = torch.linspace(-0.08, 0.08, 8)
    position = torch.stack(torch.meshgrid(axis, axis, axis[:1], indexing="ij"), -1).reshape(
        1, -1, 3
    )
    grid = random_grid(64)
    grid = replace(
        grid, position=position.expand(2, -1, -1), located=torch.ones(2, 64, dtype=torch.bool)
    )
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    walk = site_order(grid.evolve(position=grid.position[:, shuffled]))[0]
    step = position[0, shuffled][walk].diff(dim=0).norm(dim=-1)
    assert step.median() < 1.1 * (axis[1] - axis[0])
    torch.testing.assert_close(shuffled[walk], site_order(grid)[0])


def test_coils_at_one_point_and_sites_without_a_point_are_sorted_by_what_else_is_known():
    grid = random_grid(6)
    located = torch.tensor([True, True, True, False, False, False]).expand(2, -1)
    grid = grid.evolve(position=torch.zeros(2, 6, 3), located=located)
    order = torch.tensor([5, 1, 3, 0, 4, 2])
    mixed = grid.evolve(place=grid.place[:, order], located=located[:, order])
    torch.testing.assert_close(order[site_order(mixed)[0]], site_order(grid)[0])


def test_latent_sources_keep_their_order():
    grid = random_grid().evolve(position=None, located=None)
    assert site_order(grid).tolist() == [[0, 1, 2, 3]] * 2


@every_order
def test_padding_inside_a_sequence_is_as_if_it_were_not_there(scan):
    grid = random_grid(n_sites=5, n_patches=6)
    present = grid.present.clone()
    present[:, 2], present[:, :, 0], present[:, :, 3] = False, False, False
    content = grid.content.clone()
    content[~present] = float("nan")
    sites, patches = torch.tensor([0, 1, 3, 4]), torch.tensor([1, 2, 4, 5])
    alone = Grid(
        content=grid.content[:, sites][:, :, patches],
        place=grid.place[:, sites],
        present=torch.ones(2, 4, 4, dtype=torch.bool),
        position=grid.position[:, sites],
        located=grid.located[:, sites],
    )
    backbone = build(scan=scan, depth=2)
    padded = encode(backbone, grid.evolve(content=content, present=present))
    torch.testing.assert_close(
        padded[:, sites][:, :, patches], encode(backbone, alone), atol=1e-5, rtol=1e-5
    )
    assert not padded[~present].any()


def reach(backbone, grid):
    """Which patches (rows) a change of patch 2 (of 5) reaches, at its own site and another."""
    changed = grid.content.clone()
    changed[:, 1, 2] = changed[:, 1, 2].flip(-1)
    gap = (encode(backbone, grid.evolve(content=changed)) - encode(backbone, grid)).abs().amax(-1)
    return gap[0, 1] > 1e-5, gap[0, 0] > 1e-5


def test_without_the_second_direction_nothing_is_known_of_the_future():
    causal = build(bidirectional=False, scan="per_site")
    assert reach(causal, random_grid())[0].tolist() == [False, False, True, True, True]
    both = build(scan="per_site")
    assert reach(both, random_grid())[0].all()


@pytest.mark.parametrize(("every", "mixes"), [(None, False), (2, True)])
def test_sites_scanned_alone_mix_in_blocks_of_attention_only(every, mixes):
    backbone = build(scan="per_site", depth=2, attention_every=every, n_heads=4)
    assert bool(reach(backbone, random_grid())[1].any()) == mixes


def test_directions_and_blocks_have_weights_of_their_own():
    backbone = build(depth=2)
    count = sum(p.numel() for p in MIXER.build(16).parameters())
    assert sum(p.numel() for p in backbone.parameters()) == 2 * (2 * count + 32) + 32
    draws = [b.forwards.in_proj.weight for b in backbone.blocks]
    draws += [b.backwards.in_proj.weight for b in backbone.blocks]
    assert len({float(w.detach().sum()) for w in draws}) == 4


@pytest.mark.parametrize("mixer", [Mamba1Config(d_state=4), MIXER], ids=["mamba1", "mamba2"])
def test_what_is_added_shrinks_with_depth_and_directions(mixer):
    backbone = MambaConfig(depth=8, mixer=mixer).build(64)
    for block in backbone.blocks:
        weight = block.forwards.out_proj.weight
        expected = weight.shape[1] ** -0.5 / 4
        assert float(weight.detach().std()) == pytest.approx(expected, rel=0.05)


def test_post_norm_normalises_each_block_and_needs_no_last_norm():
    backbone = build(norm_place="post", depth=2)
    assert not list(backbone.norm.parameters())
    content = encode(backbone, random_grid())
    torch.testing.assert_close(content.mean(-1), torch.zeros(2, 4, 5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrong", [{"scan": "zigzag"}, {"depth": 0}, {"attention_every": 0}])
def test_values_out_of_range_are_refused_where_they_are_written(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MambaConfig(**wrong)


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="32 inner channels do not split into heads of 7"):
        build(mixer=Mamba2Config(headdim=7))


def test_settings_without_a_name_are_those_of_a_transformer():
    config = parse_config(EncoderConfig, {"backbone": {"depth": 3}}, where="x.yaml")
    assert config.backbone == TransformerConfig(depth=3)
    values = EncoderConfig(backbone=MambaConfig(depth=3, mixer=MIXER)).to_dict()
    assert parse_config(EncoderConfig, values, where="x.yaml").backbone.mixer == MIXER


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "manba"}, r"backbone\.name: unknown name 'manba'; known: .*\n.*'mamba'"),
        ({"name": "mamba", "mixer": {"name": "mamba3"}}, r"mixer\.name: unknown name 'mamba3'"),
        ({"name": "mamba", "mixer": {"name": "mamba1", "d_stat": 4}}, r"d_stat.*\n.*'d_state'"),
        ({"name": "mamba", "n_layers": 2}, r"backbone\.n_layers"),
    ],
)
def test_what_is_misspelt_in_a_config_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(EncoderConfig, {"backbone": values}, where="x.yaml")

"""Patches that come one after the other are encoded as if they had come at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.backbones.mamba import MambaConfig
from neurofm.backbones.transformer import TransformerConfig
from neurofm.errors import ConfigError, SignalError
from neurofm.nn.mamba1 import Mamba1Config
from neurofm.nn.mamba2 import Mamba2Config
from neurofm.signals import Grid

WIDTH, N_PATCHES = 16, 7
SMALL = {"depth": 2, "n_heads": 2}
CAUSAL = {**SMALL, "causal": True}
FORWARDS = {"bidirectional": False, "mixer": Mamba2Config(d_state=4, headdim=8)}
BACKBONES = {
    **{
        name: TransformerConfig(**CAUSAL, attention=name)
        for name in ("full", "criss_cross", "split_halves", "swapped_halves", "factorised")
    },
    "patches": TransformerConfig(**CAUSAL, attention="patches", norm_place="post"),
    "sites": TransformerConfig(**SMALL, attention="sites"),
    "mamba_1": MambaConfig(
        depth=2, bidirectional=False, mixer=Mamba1Config(d_state=4), scan="per_site"
    ),
    "mamba_2": MambaConfig(depth=2, **FORWARDS, scan="site_within_time", norm_place="post"),
    "hybrid": MambaConfig(**SMALL, **FORWARDS, scan="per_site", attention_every=2),
}
every_backbone = pytest.mark.parametrize("name", BACKBONES)


def build(name):
    torch.manual_seed(0)
    return BACKBONES[name].build(WIDTH).eval()


def random_grid(n_sites=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (2, n_sites, N_PATCHES)
    return Grid(
        content=torch.randn(*shape, WIDTH, generator=draw),
        place=torch.randn(2, n_sites, 1, WIDTH, generator=draw),
        present=torch.ones(shape, dtype=torch.bool),
        position=0.06 * torch.randn(2, n_sites, 3, generator=draw),
        located=torch.ones(2, n_sites, dtype=torch.bool),
    )


def patches(grid, start, stop):
    return grid.evolve(
        content=grid.content[:, :, start:stop], present=grid.present[:, :, start:stop]
    )


@torch.no_grad()
def in_steps(backbone, grid, lengths):
    found, state, start = [], None, 0
    for length in lengths:
        step, state = backbone.step(patches(grid, start, start + length), state)
        found.append(step.content)
        start += length
    assert state.n_patches == start
    return torch.cat(found, dim=2)


@every_backbone
@settings(max_examples=8)
@given(cuts=st.sets(st.integers(1, N_PATCHES - 1)), absent=st.sampled_from(["none", "site", "any"]))
def test_any_cut_into_steps_gives_what_all_patches_at_once_give(name, cuts, absent):
    backbone, grid = build(name), random_grid()
    present = grid.present.clone()
    if absent == "site":
        present[0, 1] = False
    elif absent == "any":
        draw = torch.Generator().manual_seed(len(cuts))
        present = torch.rand(present.shape, generator=draw) < 0.7
    content = grid.content.masked_fill(~present[..., None], float("nan"))
    grid = grid.evolve(content=content, present=present)
    edges = [0, *sorted(cuts), N_PATCHES]
    lengths = [b - a for a, b in zip(edges, edges[1:], strict=False)]
    with torch.no_grad():
        expected = backbone(grid).content
    torch.testing.assert_close(in_steps(backbone, grid, lengths), expected, atol=1e-5, rtol=1e-5)


@every_backbone
@torch.no_grad()
def test_two_streams_may_go_on_from_one_state(name):
    backbone, grid, other = build(name), random_grid(), random_grid(seed=1)
    other = other.evolve(place=grid.place, position=grid.position)
    _, state = backbone.step(patches(grid, 0, 4))
    first, _ = backbone.step(patches(grid, 4, 7), state)
    second, _ = backbone.step(patches(other, 4, 7), state)
    again, _ = backbone.step(patches(grid, 4, 7), state)
    assert torch.equal(first.content, again.content)
    assert not torch.allclose(first.content, second.content)


@every_backbone
def test_a_stream_of_other_windows_or_sites_is_refused(name):
    backbone = build(name)
    _, state = backbone.step(random_grid())
    with pytest.raises(
        SignalError, match=r"stream is of 2 windows of 3 sites.*2 windows of 4 sites\n.*no state"
    ):
        backbone.step(random_grid(n_sites=4), state)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TransformerConfig(**SMALL), r"transformer.* later patches.*\n.*backbone.causal: true"),
        (MambaConfig(**SMALL), r"Mamba cannot.*\n.*bidirectional: false and backbone.scan"),
        (
            MambaConfig(**SMALL, **FORWARDS, scan="time_within_site"),
            r"Mamba cannot.*\n.*per_site or site_within_time",
        ),
    ],
)
def test_backbones_that_look_ahead_refuse_to_step(config, message):
    with pytest.raises(ConfigError, match=message):
        config.build(WIDTH).step(random_grid())


def test_attention_between_mamba_that_reads_forwards_looks_at_no_later_patch():
    config = MambaConfig(**SMALL, **FORWARDS, scan="per_site", attention_every=2, attention="full")
    torch.manual_seed(0)
    backbone, grid = config.build(WIDTH).eval(), random_grid()
    changed = grid.content.clone()
    changed[:, :, 4] += torch.linspace(-1, 1, WIDTH)
    with torch.no_grad():
        gap = backbone(grid).content - backbone(grid.evolve(content=changed)).content
    assert not gap[:, :, :4].abs().max() > 1e-6
    assert (gap[:, :, 4:].abs().amax(-1) > 1e-6).all()

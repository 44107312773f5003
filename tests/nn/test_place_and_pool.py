"""Places and pooling."""

import math

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.nn.place import MAX_KINDS, WAVE_NUMBERS, PlaceEncoding
from neurofm.nn.pool import AttentionPool, MeanPool
from neurofm.sensors import SensorKind
from neurofm.signals import Grid


def encode_places(layer, position, located=True, oriented=False, orientation=None):
    shape = position.shape[:-1]
    yes = torch.ones(shape, dtype=torch.bool)
    return layer(
        position,
        torch.zeros(*shape, 3) if orientation is None else orientation,
        torch.zeros(shape, dtype=torch.int64),
        located=yes & located,
        oriented=yes & oriented,
    )


def test_wavelengths_reach_from_neighbouring_sensors_to_the_whole_head():
    wavelengths = [1 / n for n in WAVE_NUMBERS]
    assert min(wavelengths) < 0.02
    assert max(wavelengths) > 0.2
    assert all(math.log2(n).is_integer() for n in WAVE_NUMBERS)  # exact in half precision


def test_kinds_can_be_appended():
    assert max(SensorKind) < MAX_KINDS


def test_the_origin_an_unknown_place_and_an_unknown_normal_all_differ():
    layer, origin = PlaceEncoding(16), torch.zeros(1, 3)
    codes = [
        encode_places(layer, origin),
        encode_places(layer, origin, located=False),
        encode_places(layer, origin, oriented=True),
    ]
    assert all((a - b).abs().max() > 1e-3 for a in codes for b in codes if a is not b)


def test_nearby_sensors_have_nearby_codes():
    torch.manual_seed(0)
    layer = PlaceEncoding(64)
    steps = torch.tensor([0.0, 0.001, 0.004, 0.02])
    line = torch.tensor([0.02, -0.03, 0.08]) + steps[:, None] * torch.tensor([1.0, 0, 0])
    codes = encode_places(layer, line)
    distance = (codes - codes[0]).norm(dim=-1)
    assert (distance.diff() > 0).all()


def test_half_precision_weights_still_tell_sensors_a_centimetre_apart():
    torch.manual_seed(0)
    layer = PlaceEncoding(64)
    line = torch.arange(10)[:, None] * torch.tensor([0.01, 0.0, 0.0])
    single = encode_places(layer, line)
    waves = layer._waves(line)
    half = encode_places(layer.to(torch.bfloat16), line).float()
    assert torch.equal(layer._waves(line), waves)
    assert (half - single).norm() < 0.02 * single.norm()


def make_grid(width=8):
    draw = torch.Generator().manual_seed(0)
    present = torch.rand(3, 4, 2, generator=draw) < 0.6
    present[0] = True
    present[2] = False
    return Grid(
        content=torch.randn(3, 4, 2, width, generator=draw),
        place=torch.zeros(3, 4, 1, width),
        present=present,
    )


def test_the_mean_is_over_present_tokens():
    grid = make_grid()
    pooled = MeanPool()(grid)
    for window in (0, 1):
        expected = grid.content[window][grid.present[window]].mean(0)
        torch.testing.assert_close(pooled[window], expected)
    assert not pooled[2].any()


@pytest.mark.parametrize("pool", [MeanPool(), AttentionPool(8, 2)], ids=["mean", "attention"])
def test_absent_tokens_have_no_say_and_order_does_not_matter(pool):
    grid = make_grid()
    loud = torch.where(grid.present[..., None], grid.content, torch.tensor(1e5))
    order = torch.tensor([2, 0, 3, 1])
    expected = pool(grid)
    assert expected.shape == (3, 8)
    assert expected.isfinite().all()
    torch.testing.assert_close(pool(grid.evolve(content=loud)), expected)
    shuffled = grid.evolve(content=grid.content[:, order], present=grid.present[:, order])
    torch.testing.assert_close(pool(shuffled), expected)


def test_attention_pooling_prefers_some_tokens():
    torch.manual_seed(0)
    grid = make_grid()
    content = torch.randn_like(grid.content, requires_grad=True)
    AttentionPool(8, 2)(grid.evolve(content=content))[0].square().sum().backward()
    norms = content.grad[0].norm(dim=-1).flatten()
    assert norms.min() > 0
    assert norms.max() > 1.05 * norms.min()


def test_attention_pooling_needs_heads_that_fit():
    with pytest.raises(ConfigError, match="width 8 cannot be split into 3 heads"):
        AttentionPool(8, 3)

"""What a BrainTokenizer is before it has learnt anything."""

import pytest
import torch

from neurofm.contract import SignalContract
from neurofm.nn.latent_sources import SourcesToSensors
from neurofm.nn.place import HEAD_M
from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.brain_parts import BrainPartsConfig
from neurofm.tokenizers.brain_start import on_the_head, start_sources

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)


@pytest.fixture
def coder():
    torch.manual_seed(0)
    config = BrainTokenizerConfig(patch_s=0.5, inner=64, n_codes=8, n_levels=2, n_sources=16)
    return config.build_parts(CONTRACT).eval()


def embedded(coder, points):
    geometry = torch.cat((points / HEAD_M, torch.zeros_like(points)), -1)[None]
    return coder.sensors(geometry, torch.zeros(1, len(points), dtype=torch.int64))


@torch.no_grad()
def test_a_source_begins_by_looking_at_the_sensors_around_it(coder):
    sensors = on_the_head(60)
    silent = torch.zeros(1, 60, 1, 64)
    looks = coder.to_sources.weights(silent, embedded(coder, sensors))[0]
    distance = torch.cdist(on_the_head(16), sensors)
    seen_from = (looks * distance).sum(1)
    assert (seen_from < 0.75 * distance.mean(1)).all()


@torch.no_grad()
def test_a_sensor_begins_by_listening_to_the_sources_around_it(coder):
    sensors, sources = on_the_head(60), on_the_head(16)
    said = torch.zeros(1, 16, 1, 64)
    keys = coder.to_sensors.names.unflatten(-1, (4, 16)).transpose(0, 1)
    asked = embedded(coder, sensors)[0].unflatten(-1, (4, 16)).transpose(0, 1)
    heard = (asked @ keys.transpose(-1, -2) / 4).softmax(-1).mean(0)
    distance = torch.cdist(sensors, sources)
    assert ((heard * distance).sum(1) < 0.75 * distance.mean(1)).all()
    assert coder.to_sensors(said, embedded(coder, sensors)).shape == (1, 60, 1, 64)


@torch.no_grad()
def test_sources_can_begin_at_any_sensors(coder):
    row = embedded(coder, on_the_head(40))[0, 7]
    start_sources(coder, row.expand(16, -1))
    looks = coder.to_sources.weights(torch.zeros(1, 40, 1, 64), embedded(coder, on_the_head(40)))
    assert (looks[0].argmax(1) == 7).all()


@torch.no_grad()
def test_a_fresh_patch_loses_nothing_on_the_straight_way_and_convolutions_add_little(coder):
    windows = torch.randn(2, 3, 4, coder.config.window_len)
    features = coder.features(windows)
    straight = coder.straight_in(windows).unflatten(-1, (coder.config.n_moments, -1)).flatten(2, 3)
    aside = (features - straight).square().mean()
    assert 0 < aside < 0.05 * straight.square().mean()
    seen = coder.straight_in.weight
    alike = seen.T @ seen
    torch.testing.assert_close(alike, alike[0, 0] * torch.eye(len(alike)), atol=1e-4, rtol=1e-4)
    said = torch.randn(2, 16, 4, coder.config.n_moments, 64)
    sensors = embedded(coder, on_the_head(6)).expand(2, -1, -1)
    straight = coder.straight_out(
        coder.to_sensors(said.flatten(2, 3), sensors).unflatten(2, (4, -1)).flatten(3)
    )
    out = coder.decode(said, sensors)
    assert 0 < (out - straight).square().mean() < 0.05 * straight.square().mean()


def test_the_published_form_has_no_straight_way():
    straight, published = (
        set(BrainTokenizerConfig(patch_s=0.5, straight=s).build_parts(CONTRACT).state_dict())
        for s in (True, False)
    )
    added = {"straight_in.weight", "straight_in.bias", "straight_out.weight", "straight_out.bias"}
    assert straight - published == added
    assert published < straight
    assert not BrainPartsConfig().straight


def test_points_of_the_head_lie_on_it():
    points = on_the_head(200)
    radius = (points - torch.tensor([0.0, 0.0, 0.04])).norm(dim=-1)
    torch.testing.assert_close(radius, torch.full((200,), 0.095))
    assert points[:, 2].min() > 0.0


def test_sources_that_say_the_same_are_told_apart_by_their_names_alone():
    torch.manual_seed(0)
    said, sensors = torch.randn(2, 1, 3, 8).expand(-1, 5, -1, -1), torch.randn(2, 4, 8)
    named, plain = SourcesToSensors(8, 2, n_sources=5), SourcesToSensors(8, 2)
    plain.load_state_dict({k: v for k, v in named.state_dict().items() if k != "names"})
    torch.testing.assert_close(named(said, sensors), plain(said, sensors))
    unlike = said + torch.randn(2, 5, 3, 8)
    assert not torch.allclose(named(unlike, sensors), plain(unlike, sensors))
    order = torch.tensor([3, 1, 0, 4, 2])
    assert not torch.allclose(named(unlike[:, order], sensors), named(unlike, sensors))
    torch.testing.assert_close(plain(unlike[:, order], sensors), plain(unlike, sensors))


@torch.no_grad()
def test_codes_know_how_strong_a_source_is(coder):
    coder.codes.levels[0].vectors.mul_(torch.linspace(0.1, 3, 8)[:, None])
    sources = torch.randn(1, 16, 2, 2, 64)
    assert not torch.equal(coder.quantise(sources).codes, coder.quantise(9 * sources).codes)
    plain = coder.config.model_copy(update={"strength": False}).build().eval()
    assert torch.equal(plain.quantise(sources).codes, plain.quantise(9 * sources).codes)

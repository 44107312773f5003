"""What a BrainTokenizer is before it has learnt anything."""

import pytest
import torch

from neurofm.contract import SignalContract
from neurofm.nn.latent_sources import SourcesToSensors
from neurofm.nn.place import HEAD_M
from neurofm.tokenizers.brain import BrainTokenizerConfig
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

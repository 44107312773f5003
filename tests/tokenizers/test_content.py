"""Convolutions and spectra of patches: equal to the published ones where they claim to be."""

from dataclasses import replace

import pytest
import torch
from batches import plain_batch

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.published.cbramod import CBraModConfig
from neurofm.published.labram import LaBraMConfig
from neurofm.published.luna import LUNAConfig
from neurofm.tokenizers.convs import CbramodConvConfig, LabramConvConfig, StridedConvConfig
from neurofm.tokenizers.luna import LunaConfig
from neurofm.tokenizers.spectra import Magnitudes, MultiScaleSpectraConfig, StftConfig

CONTRACT = SignalContract(sfreq=200, band_hz=(0.5, 75), window_s=3)
FORMS = [LabramConvConfig(norm_over="window"), CbramodConvConfig(norm_over="window")]


def make_content_batch(n_channels=3, n_windows=2):
    torch.manual_seed(0)
    signal = torch.randn(n_windows, n_channels, CONTRACT.n_times)
    nowhere = torch.zeros(signal.shape[:2], dtype=torch.bool)
    return plain_batch(signal, located=nowhere, sfreq=200.0)


def test_normed_over_the_window_tokens_are_those_of_labram():
    torch.manual_seed(1)
    published = LaBraMConfig(depth=1).build()
    tokenizer = LabramConvConfig(norm_over="window").build(CONTRACT, 200)
    tokenizer.content.convs.load_state_dict(published.convs.state_dict())
    batch = make_content_batch()
    tokens = published.embed(tokenizer.patches(batch.signal))
    torch.testing.assert_close(tokenizer(batch).content.flatten(1, 2), tokens)


def test_normed_over_the_window_tokens_are_those_of_cbramod_before_its_place():
    torch.manual_seed(1)
    published = CBraModConfig(depth=1).build()
    tokenizer = CbramodConvConfig(norm_over="window").build(CONTRACT, 200)
    tokenizer.content.convs.load_state_dict(published.convs.state_dict())
    tokenizer.content.spectrum.load_state_dict(published.spectrum.state_dict())
    torch.nn.init.zeros_(published.place.weight)
    torch.nn.init.zeros_(published.place.bias)
    batch = make_content_batch()
    tokens = published.embed(tokenizer.patches(batch.signal))
    torch.testing.assert_close(tokenizer(batch).content, tokens)


@torch.no_grad()
def test_normed_over_the_window_tokens_are_those_of_luna():
    torch.manual_seed(1)
    published = LUNAConfig(depth=1).build()
    contract = SignalContract(sfreq=256, band_hz=(0.5, 75), window_s=1.25)
    config = LunaConfig(
        patch_s=40 / 256, inner=64, n_queries=4, n_filters=16, norm_over="window"
    )  # fmt: skip
    tokenizer = config.build(contract, 256)
    assert isinstance(tokenizer.project, torch.nn.Identity)
    for part in ("spectrum", "unify"):
        getattr(tokenizer, part).load_state_dict(getattr(published, part).state_dict())
    tokenizer.content.convs.load_state_dict(published.convs.state_dict())
    batch = make_content_batch()
    batch = replace(batch, signal=torch.randn(2, 3, 320), sfreq=256.0)
    place = torch.randn(2, 3, 64)
    tokenizer.place.of = lambda *_: place[:, :, None]
    expected = (
        published.unify(published.tokens(batch.signal, place)).flatten(1).unflatten(0, (2, 8))
    )
    for given in (batch, batch.to("cpu")):
        torch.testing.assert_close(tokenizer(given).content[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_the_token_of_all_channels_knows_neither_their_order_nor_padding():
    torch.manual_seed(1)
    contract = SignalContract(sfreq=200, band_hz=(0.5, 75), window_s=3)
    tokenizer, batch = LunaConfig().build(contract, 24).eval(), make_content_batch(n_channels=4)
    batch.position[:] = 0.1 * torch.randn(2, 4, 3)
    batch.located[:] = True
    order = torch.tensor([2, 0, 3, 1])
    turned = replace(
        batch, **{k: v[:, order] for k, v in vars(batch).items() if torch.is_tensor(v)}
    )
    plain = tokenizer(batch)
    torch.testing.assert_close(tokenizer(turned).content, plain.content, atol=1e-5, rtol=1e-5)
    assert plain.content.shape == (2, 1, 3, 24)
    moved = replace(batch, position=batch.position.flip(0))
    assert (tokenizer(moved).content - plain.content).abs().max() > 1e-3


@pytest.mark.parametrize("config", FORMS, ids=lambda c: c.name)
@pytest.mark.parametrize("width", [200, 24])
def test_padding_has_no_say_in_norms_over_the_window(config, width):
    tokenizer, batch = config.build(CONTRACT, width), make_content_batch(n_channels=4)
    alone = replace(batch, **{k: v[:, :3] for k, v in vars(batch).items() if torch.is_tensor(v)})
    batch.signal[:, 3] = 1e5
    batch.present[:, 3] = False
    padded = tokenizer(batch).content
    torch.testing.assert_close(padded[:, :3], tokenizer(alone).content, atol=1e-5, rtol=1e-5)
    assert not padded[:, 3].any()


@pytest.mark.parametrize("config", FORMS, ids=lambda c: c.name)
def test_a_token_depends_on_other_patches_only_if_norms_run_over_the_window(config):
    batch = make_content_batch()
    louder = replace(batch, signal=batch.signal.clone())
    louder.signal[:, 0, :200] *= 5
    for form, depends in (
        (config, True),
        (config.model_copy(update={"norm_over": "patch"}), False),
    ):
        tokenizer = form.build(CONTRACT, 32)
        change = tokenizer(louder).content - tokenizer(batch).content
        assert bool(change[:, 0, 0].any())
        assert bool(change[:, 1:].any()) == depends


@pytest.mark.parametrize("hann", [False, True])
def test_white_noise_has_power_near_one_at_every_frequency(hann):
    noise = torch.randn(4000, 200, generator=torch.Generator().manual_seed(0))
    power = Magnitudes(200, 50, 25, hann=hann)(noise).square().unflatten(-1, (7, 26))
    inside = power[..., 2:-2].mean(0)
    torch.testing.assert_close(inside, torch.ones_like(inside), atol=0.1, rtol=0)


def test_a_rhythm_is_seen_at_its_frequency_and_frame():
    t = torch.arange(200) / 200
    wave = torch.sin(2 * torch.pi * 20 * t)
    wave[:100] = 0
    spectrum = Magnitudes(200, 100, 50)(wave).unflatten(-1, (3, 51))
    assert spectrum.argmax(-1)[1:].tolist() == [10, 10]  # of 2 Hz each
    assert not spectrum[0].any()
    assert spectrum[2, 10] > 1.9 * spectrum[1, 10]


@pytest.mark.parametrize(("n_fft", "hop", "n_frames"), [(200, 100, 1), (64, 32, 6), (30, 7, 26)])
def test_frames_reach_the_last_sample(n_fft, hop, n_frames):
    layer = Magnitudes(200, n_fft, hop)
    last = torch.zeros(200)
    last[-1] = 1
    assert layer.n_frames == n_frames
    assert layer(last).shape == (layer.n_features,)
    assert layer(last).any()


def test_each_scale_divides_a_patch_into_twice_as_many_frames():
    scales = MultiScaleSpectraConfig(n_scales=4).build(CONTRACT, 16).content.scales
    assert [(s.n_fft, s.n_frames) for s in scales] == [(200, 1), (100, 2), (50, 4), (25, 8)]


def test_frames_longer_than_a_patch_are_refused():
    with pytest.raises(
        ConfigError, match=r"frames of 2 s do not fit into patches of 1 s\n.*most 1"
    ):
        StftConfig(frame_s=2).build(CONTRACT, 16)


def test_as_many_strides_as_kernels_are_asked_for():
    with pytest.raises(ConfigError, match=r"strided_conv: 4 kernels and 1 strides\n.*one of each"):
        StridedConvConfig(strides=(2,)).build(CONTRACT, 16)

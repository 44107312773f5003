import dataclasses

import pytest
import torch

from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.errors import ConfigError
from neurofm.pretrain.jitter import jittered
from neurofm.pretrain.masked_reconstruction import MaskedReconstructionConfig
from neurofm.pretrain.masks import MASKS, RandomMaskConfig
from neurofm.sensors import text_code
from neurofm.signals import Batch
from neurofm.tokenizers.table import TOKENIZERS

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
ENCODER = EncoderConfig.model_validate(
    {
        "width": 16,
        "tokenizer": {"name": "linear_patch", "patch_s": 0.5},
        "backbone": {"name": "transformer", "depth": 1, "n_heads": 2, "dropout": 0.0},
    }
)


def make_batch(n_channels=5, n_padding=0, n_windows=2, signal=None):
    draw = torch.Generator().manual_seed(0)
    shape = (n_windows, n_channels)
    present = torch.ones(shape, dtype=torch.bool)
    present[:, n_channels - n_padding :] = False
    return Batch(
        signal=torch.randn(*shape, 128, generator=draw) if signal is None else signal,
        position=0.1 * torch.randn(*shape, 3, generator=draw),
        orientation=torch.zeros(*shape, 3),
        kind=torch.zeros(shape, dtype=torch.long),
        located=present, oriented=torch.zeros_like(present), present=present, sfreq=64.0,
    )  # fmt: skip


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return MaskedReconstructionConfig().build(ENCODER.build(CONTRACT), CONTRACT)


def loss(objective, batch, seed=1):
    return objective(batch, torch.Generator().manual_seed(seed))


def test_same_generator_same_loss(objective):
    assert loss(objective, make_batch()).total == loss(objective, make_batch()).total
    assert loss(objective, make_batch()).total != loss(objective, make_batch(), seed=2).total


def test_what_padding_holds_does_not_move_the_loss(objective):
    batch = make_batch(n_channels=6, n_padding=2)
    louder = batch.signal.clone()
    louder[:, -2:] = 1e6
    noisy = dataclasses.replace(batch, signal=louder)
    torch.testing.assert_close(loss(objective, batch).total, loss(objective, noisy).total)


@pytest.mark.parametrize("mask", MASKS)
def test_the_prediction_never_sees_what_is_hidden(objective, mask):
    """Only the target may depend on hidden samples: with targets' weights at zero, nothing does."""
    config = MaskedReconstructionConfig(mask=MASKS[mask]())
    seeing = config.build(objective.encoder, CONTRACT)
    batch = make_batch()
    batch.signal.requires_grad_()
    patches = seeing.encoder.tokenizer.patches(batch.signal)
    hide = config.mask(batch, patches.shape[2], torch.Generator().manual_seed(3))
    seeing.encoder(batch, hide).content[hide].square().sum().backward()
    touched = seeing.encoder.tokenizer.patches(batch.signal.grad).abs().sum(-1) > 0
    assert not (touched & hide).any()
    assert touched.any()


def test_gradients_reach_every_parameter(objective):
    loss(objective, make_batch()).total.backward()
    silent = [name for name, p in objective.named_parameters() if p.grad is None]
    assert not [name for name in silent if "orientation" not in name]


def test_predicting_zero_explains_nothing(objective):
    for head in (objective.predict_signal, objective.predict_spectrum):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    assert abs(loss(objective, make_batch()).terms["signal_explained"]) < 1e-6


def test_weights_of_the_terms_add_up(objective):
    result = loss(objective, make_batch())
    terms = result.terms
    torch.testing.assert_close(
        result.total, terms["signal"] + terms["spectrum"] + 0.5 * terms["visible"]
    )
    only = MaskedReconstructionConfig(spectrum=0.0, visible=0.0).build(objective.encoder, CONTRACT)
    only.load_state_dict(objective.state_dict())
    torch.testing.assert_close(loss(only, make_batch()).total, result.terms["signal"])


def test_sensors_are_moved_a_little_and_only_those_that_are_somewhere():
    batch = make_batch()
    batch.located[0, 2] = False
    moved = jittered(batch, 0.01, torch.Generator().manual_seed(0)).position - batch.position
    assert not moved[0, 2].any()
    assert 0.005 < float(moved[batch.located].std()) < 0.02
    again = jittered(batch, 0.01, torch.Generator().manual_seed(0))
    assert torch.equal(again.position - batch.position, moved)
    assert jittered(batch, 0.0, torch.Generator()) is batch


def test_noise_of_places_is_drawn_after_the_mask_and_reaches_the_encoder(objective):
    noisy = MaskedReconstructionConfig(place_noise_m=0.02).build(objective.encoder, CONTRACT)
    noisy.load_state_dict(objective.state_dict())
    plain, moved = (loss(o, make_batch()) for o in (objective, noisy))
    assert plain.terms["hidden_share"] == moved.terms["hidden_share"]
    assert plain.total != moved.total
    assert loss(noisy, make_batch()).total == moved.total


def test_log_power_finds_the_frequency_of_a_sine(objective):
    t = torch.arange(32) / 64
    for hz in (4, 8, 20):
        power = objective.log_power(torch.sin(2 * torch.pi * hz * t))
        assert power.shape == (15,)  # 2 to 30 Hz: the band, in steps of 2 Hz
        assert power.argmax() == hz // 2 - 1


def test_what_the_visible_channels_determine_is_learnt(objective):
    config = MaskedReconstructionConfig(mask=RandomMaskConfig(ratio=0.3), spectrum=0.0, visible=0.0)
    learner = config.build(objective.encoder, CONTRACT)
    optimiser = torch.optim.Adam(learner.parameters(), lr=5e-3)
    t = torch.arange(128) / 64
    for step in range(120):
        phase = torch.rand(32, 1, 1, generator=torch.Generator().manual_seed(step)) * 6.28
        wave = torch.sin(2 * torch.pi * 4 * t + phase).expand(32, 5, 128)
        result = loss(learner, make_batch(n_windows=32, signal=wave), seed=step)
        optimiser.zero_grad()
        result.total.backward()
        optimiser.step()
    assert result.terms["signal_explained"] > 0.5


def test_predicting_the_mean_spectrum_scores_one(objective):
    torch.nn.init.zeros_(objective.predict_spectrum.weight)
    torch.nn.init.zeros_(objective.predict_spectrum.bias)
    terms = loss(objective, make_batch(n_windows=64)).terms
    share = terms["hidden_share"]
    assert share * terms["spectrum"] + (1 - share) * terms["visible"] == pytest.approx(
        1.0, abs=1e-4
    )


def test_patches_too_short_for_the_band_are_refused():
    contract = SignalContract(sfreq=64, band_hz=(0.5, 1.5), window_s=2)
    with pytest.raises(
        ConfigError, match=r"patches of 0.5 s resolve no frequency between 0.5 and 1.5 Hz"
    ):
        MaskedReconstructionConfig().build(ENCODER.build(contract), contract)


# ---------------------------------------------------------------------------------------
# Tokens of several channels


SEVERAL = {
    "plane_patch": {},
    "merged_patch": {"n_virtual": 5, "n_waves": 4},
    "luna": {"inner": 16},
    "brain_tokenizer": {"inner": 16, "n_filters": 4, "n_sources": 5},
    "du_in": {"per": "montage", "channels": {"anyone": [f"c{i}" for i in range(6)]}},
}
of_several = pytest.mark.parametrize("name", SEVERAL)


def build_of_several(name, backbone=None):
    torch.manual_seed(0)
    parts = {"name": name, "patch_s": 0.5, **SEVERAL.get(name, {})}
    encoder = {**ENCODER.model_dump(), "tokenizer": parts}
    encoder["backbone"] = backbone or encoder["backbone"]
    return EncoderConfig.model_validate(encoder).build(CONTRACT)


def make_named_batch(**values):
    batch = make_batch(**values)
    names = torch.tensor([text_code(f"c{i}") for i in range(batch.signal.shape[1])])
    # a head, and none of its channels inside
    position = 0.1 * torch.nn.functional.normalize(batch.position, dim=-1)
    return dataclasses.replace(
        batch, position=position, name_code=names.expand(batch.signal.shape[:2])
    )


def test_every_tokenizer_of_several_channels_is_tried():
    found = {
        name
        for name, config in TOKENIZERS.items()
        if not config(**SEVERAL.get(name, {})).build(CONTRACT, 16).sites_are_channels
    }
    assert found == set(SEVERAL)


@pytest.mark.parametrize("name", [*SEVERAL, "linear_patch"])
def test_channels_are_decoded_from_tokens_that_never_saw_what_is_hidden(name):
    """Of tokens of one channel each a backbone may make some that are of all, as EEGPT does."""
    summary = {"name": "transformer", "depth": 1, "n_heads": 2, "n_summary": 2}
    objective = MaskedReconstructionConfig(mask=RandomMaskConfig(ratio=0.3)).build(
        build_of_several(name, summary if name == "linear_patch" else None), CONTRACT
    )
    batch = make_named_batch(n_channels=6)
    patches = objective.encoder.tokenizer.patches(batch.signal)
    hide = objective.config.mask(batch, patches.shape[2], torch.Generator().manual_seed(3))
    assert 0 < hide.sum() < hide.numel()
    other = dataclasses.replace(
        batch, signal=batch.signal + hide.repeat_interleave(patches.shape[-1], -1) * 3.0
    )
    found = objective.eval().encode(batch, hide)
    assert found.shape == (*hide.shape, 16)
    torch.testing.assert_close(objective.encode(other, hide), found, atol=0, rtol=0)
    # what is not hidden has a say, and channels are told apart
    assert not torch.equal(objective.encode(other, torch.zeros_like(hide)), found)
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3


@of_several
def test_padding_teaches_nothing_about_channels_that_are_decoded(name):
    objective = MaskedReconstructionConfig().build(build_of_several(name), CONTRACT).eval()
    batch = make_named_batch(n_channels=6, n_padding=2)
    batch.located[:] = batch.present
    louder = dataclasses.replace(batch, signal=batch.signal.clone())
    louder.signal[:, -2:] = 1e6
    torch.testing.assert_close(loss(objective, batch).total, loss(objective, louder).total)
    tensors = {k: v[:, :4] for k, v in vars(batch).items() if torch.is_tensor(v)}
    hide = torch.zeros(2, 6, 4, dtype=torch.bool)
    with torch.no_grad():
        padded = objective.encode(batch, hide)[:, :4]
        alone = objective.encode(dataclasses.replace(batch, **tensors), hide[:, :4])
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_codes_that_were_computed_before_show_nothing_of_what_is_hidden():
    """They are of the whole window."""
    slot = {"name": "brain_tokenizer", "patch_s": 0.5, "frozen": True, "discrete": True}
    values = {**ENCODER.model_dump(), "tokenizer": {**slot, **SEVERAL["brain_tokenizer"]}}
    encoder = EncoderConfig.model_validate(values).build(CONTRACT)
    objective = MaskedReconstructionConfig().build(encoder, CONTRACT).eval()
    batch, hide = make_batch(), torch.zeros(2, 5, 4, dtype=torch.bool)
    hide[:, 1:] = True
    whole = dataclasses.replace(batch, codes=encoder.tokenizer.codes(batch).to(torch.int16))
    assert encoder.tokenizer.stored(whole) is not None
    assert torch.equal(objective.encode(whole, hide), objective.encode(batch, hide))


@pytest.mark.parametrize("name", ["merged_patch", "du_in"])
def test_what_several_channels_determine_is_learnt(name):
    """One wave in all channels, and its opposite in every other: the decoder has to tell them."""
    config = MaskedReconstructionConfig(mask=RandomMaskConfig(ratio=0.3), spectrum=0.0, visible=0.0)
    learner = config.build(build_of_several(name), CONTRACT)
    optimiser = torch.optim.Adam(learner.parameters(), lr=5e-3)
    t = torch.arange(128) / 64
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])[:, None]
    batch = make_named_batch(n_windows=1)
    place = {n: getattr(batch, n)[:1].repeat_interleave(32, 0) for n in ("position", "name_code")}
    for step in range(60):
        phase = torch.rand(32, 1, 1, generator=torch.Generator().manual_seed(step)) * 6.28
        wave = sign * torch.sin(2 * torch.pi * 4 * t + phase)
        batch = dataclasses.replace(make_batch(n_windows=32, signal=wave), **place)
        result = loss(learner, batch, seed=step)
        optimiser.zero_grad()
        result.total.backward()
        optimiser.step()
    assert result.terms["signal_explained"] > 0.5


def test_decoders_refuse_patches_that_are_let_go_and_heads_that_do_not_fit():
    short = {"name": "pyramid", "n_heads": 2, "layers": [{"n_out": 2}]}
    with pytest.raises(ConfigError, match=r"the pyramid lets patches go.*\n.*leave n_out out"):
        MaskedReconstructionConfig().build(build_of_several("luna", short), CONTRACT)
    with pytest.raises(ConfigError, match=r"width 16 cannot be split into 3 heads"):
        MaskedReconstructionConfig(decoder_heads=3).build(build_of_several("luna"), CONTRACT)


def test_tokens_of_codes_that_saw_the_window_are_refused():
    values = {"name": "vqnsp", "patch_s": 0.5, "discrete": True, "frozen": True, "inner": 16}
    encoder = EncoderConfig.model_validate({**ENCODER.model_dump(), "tokenizer": values})
    with pytest.raises(ConfigError, match=r"tokens of vqnsp .* have seen.*\n.*discrete: false"):
        MaskedReconstructionConfig().build(encoder.build(CONTRACT), CONTRACT)

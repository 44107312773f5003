"""What every tokenizer that is trained does with what it is shown, and with what it is not."""

from dataclasses import replace

import pytest
import torch
from batches import plain_batch

from neurofm.contract import SignalContract
from neurofm.sensors import text_code
from neurofm.tokenizers.reconstruction import ReconstructionConfig
from neurofm.tokenizers.trainable import TRAINABLE

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
NAMES = ("Fz", "Cz", "Pz", "C3", "C4", "Oz")
SMALL = {"inner": 16, "n_heads": 2, "depth": 1, "n_codes": 12, "code_width": 8}
VALUES = {
    "brain_tokenizer": {"inner": 16, "n_filters": 4, "n_sources": 5, "n_codes": 8, "n_levels": 2},
    "vqnsp": SMALL,
    "du_in": {
        **SMALL, "per": "montage", "channels": {"anyone": NAMES}, "n_regions": 3, "n_filters": 8
    },
    "mu_law_samples": {},
    "quantile_samples": {"n_codes": 16},
    "annealed_samples": {"n_codes": 8, "inner": 8},
}  # fmt: skip
every_coder = pytest.mark.parametrize("name", TRAINABLE)


def build(name):
    torch.manual_seed(0)
    config = TRAINABLE[name](patch_s=0.5, **VALUES[name])
    return config.build_parts(CONTRACT).eval()


def make_batch(n_padding=0):
    draw = torch.Generator().manual_seed(0)
    shape = (3, len(NAMES))
    present = torch.ones(shape, dtype=torch.bool)
    present[1, len(NAMES) - n_padding :] = False
    return plain_batch(
        torch.randn(*shape, 128, generator=draw),
        position=0.06 * torch.randn(*shape, 3, generator=draw),
        located=present,
        present=present,
        name_code=torch.tensor([text_code(n) for n in NAMES]).expand(shape),
        subject_code=torch.zeros(shape[0], dtype=torch.long),
    )


def test_every_coder_is_tried():
    assert set(VALUES) == set(TRAINABLE)


@every_coder
@torch.no_grad()
def test_padding_has_no_say_in_losses_codes_or_what_is_given_back(name):
    coder, batch = build(name), make_batch(n_padding=2)
    other = replace(batch, signal=batch.signal.masked_fill(~batch.present[..., None], 1e3))
    ours, theirs = (coder.rebuild(b, b.present) for b in (batch, other))
    torch.testing.assert_close(theirs.signal[batch.present], ours.signal[batch.present])
    torch.testing.assert_close(coder.losses(theirs, other), coder.losses(ours, batch))
    codes, again = coder.codes_of(batch), coder.codes_of(other)
    if codes.shape[1] == len(NAMES):  # a site a channel
        codes, again = codes[batch.present], again[batch.present]
    assert torch.equal(codes, again)


def without_padding(batch, n):
    """Return the first `n` channels of every window."""
    tensors = {k: v for k, v in vars(batch).items() if torch.is_tensor(v) and v.ndim > 1}
    return replace(batch, **{name: value[:, :n] for name, value in tensors.items()})


@every_coder
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_padded_windows_are_worth_what_they_are_without_padding(name, training):
    """In what is given back, in losses, in codes, and in what codes learn of them."""
    found = []
    padded = replace(make_batch(), present=make_batch().present.clone())
    padded.present[:, 4:] = False
    for batch in (padded, without_padding(padded, 4)):
        coder = build(name).train(training)
        coder.begin(10)
        torch.manual_seed(1)
        again = coder.rebuild(batch, batch.present)
        losses = coder.losses(again, batch)
        coder.finish([batch])
        buffers = {k: v.double() for k, v in coder.named_buffers()}
        codes = coder.eval().codes_of(batch)[:, :4]
        found.append((again.signal[:, :4], losses, buffers, codes.double()))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


@every_coder
@torch.no_grad()
def test_noise_is_shown_and_never_asked_for(name):
    coder, batch = build(name), make_batch()
    noise = torch.randn(batch.signal.shape, generator=torch.Generator().manual_seed(1))
    clean, noisy = (coder.rebuild(batch, batch.present, noise=n) for n in (None, noise))
    assert torch.equal(clean.target, noisy.target)
    assert not torch.allclose(clean.signal, noisy.signal)


@every_coder
@torch.no_grad()
def test_places_that_are_moved_are_elsewhere_for_those_who_know_places(name):
    coder, batch = build(name), make_batch()
    moved = torch.full_like(batch.position, 0.03)
    plain, shifted = (coder.rebuild(batch, batch.present, moved=m) for m in (None, moved))
    there = coder.rebuild(replace(batch, position=batch.position + moved), batch.present)
    torch.testing.assert_close(shifted.signal, there.signal)
    knows = name in {"brain_tokenizer", "vqnsp"}
    assert torch.allclose(plain.signal, shifted.signal) != knows


@every_coder
@torch.no_grad()
def test_what_is_withheld_is_not_seen_and_is_asked_for_all_the_same(name):
    coder, batch = build(name), make_batch()
    seen = batch.present.clone()
    seen[:, 2] = False
    other = replace(batch, signal=batch.signal.clone())
    other.signal[:, 2] = 3 * other.signal[:, 2].flip(-1)
    ours, theirs = (coder.rebuild(b, seen) for b in (batch, other))
    assert not torch.equal(ours.target, theirs.target)
    assert torch.equal(ours.signal, theirs.signal) == coder.withholds
    assert ours.signal.shape == ours.target.shape


def test_an_objective_draws_what_its_config_says_and_else_what_is_published():
    coder, batch, told = build("brain_tokenizer"), make_batch(), []
    real = coder.rebuild

    def noted(batch, seen, *, noise, moved):
        told.append((seen.float().mean(), noise.std(), moved.std()))
        return real(batch, seen, noise=noise, moved=moved)

    coder.rebuild = noted
    usual = coder.usual
    wanted = {"withhold": 0.5, "noise": 0.7, "place_noise_m": 0.02}
    none = dict.fromkeys(wanted, 0.0)
    for config in ({}, wanted, none):
        ReconstructionConfig(**config).build(coder)(batch, torch.Generator().manual_seed(0))
    for (share, noise, moved), values in zip(told, (vars(usual), wanted, none), strict=True):
        n_withheld = int(values["withhold"] * len(NAMES))
        assert share == pytest.approx(1 - n_withheld / len(NAMES))
        assert noise == pytest.approx(values["noise"], rel=0.1)
        assert moved == pytest.approx(values["place_noise_m"], rel=0.3)


def test_what_is_withheld_is_told_apart_from_what_was_shown():
    """The term is about channels that were not shown, and 0 where all were."""
    coder, batch = build("brain_tokenizer"), make_batch()
    generator = torch.Generator().manual_seed
    every = ReconstructionConfig(withhold=0.0).build(coder)(batch, generator(0))
    assert every.terms["withheld"] == 0
    found = ReconstructionConfig(withhold=0.5, noise=0.0, place_noise_m=0.0)
    real, signals = coder.rebuild, []

    def perfect_where_seen(batch, seen, **drawn):
        result = real(batch, seen, **drawn)
        signal = torch.where(seen[..., None, None], result.target, -result.target)
        signals.append(seen)
        return replace(result, signal=signal)

    coder.rebuild = perfect_where_seen
    terms = found.build(coder)(batch, generator(0)).terms
    assert terms["withheld"] == pytest.approx(-1.0, abs=1e-3)
    assert (signals[0].sum(1) == 3).all()


def test_codes_are_named_by_what_is_there_and_not_by_padding(monkeypatch):
    coder, batch, told = build("annealed_samples"), make_batch(n_padding=2), []
    monkeypatch.setattr(coder.coder, "rename", told.append)
    coder.finish([batch, batch])
    codes = coder.coder.choose(batch.signal.unflatten(-1, (4, 32))).codes[batch.present]
    assert torch.equal(told[0], 2 * torch.bincount(codes.flatten(), minlength=len(told[0])))


def test_choices_are_ever_harder_and_hard_for_the_last_fifth_of_a_run():
    coder, batch, found = build("annealed_samples").train(), make_batch(), []
    coder.begin(10)
    for _ in range(10):
        coder.rebuild(batch, batch.present)
        found.append(float(coder.coder.choice.temperature))
    assert found == pytest.approx([1 - i / 8 for i in range(8)] + [0, 0])


# ---------------------------------------------------------------------------------------
# In the slot of an encoder

FREEZABLE = [name for name, config in TRAINABLE.items() if "frozen" in config.model_fields]


@pytest.mark.parametrize("name", FREEZABLE)
@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_frozen_asks_for_no_gradient_and_is_never_in_training(name, frozen):
    config = TRAINABLE[name](patch_s=0.5, frozen=frozen, **VALUES[name])
    slot = config.build(CONTRACT, 24).train()
    kept = getattr(slot, "coder", slot.content)
    if name == "annealed_samples":
        kept = slot.content.coder
    if kept is None:
        assert not frozen
        return
    learn = [p.requires_grad for p in kept.parameters()]
    assert learn
    assert all(learn) or frozen
    assert not any(learn) or not frozen
    assert kept.training != frozen
    assert any(p.requires_grad for p in slot.parameters())


def test_tokens_of_learnt_codes_are_the_same_in_training_whatever_codes_are_called():
    torch.manual_seed(0)
    config = TRAINABLE["annealed_samples"](patch_s=0.5, **VALUES["annealed_samples"])
    slot = config.build(CONTRACT, 24)
    slot.content.coder.rename(torch.tensor([3, 9, 0, 4, 1, 0, 7, 2]))
    batch = make_batch()
    torch.testing.assert_close(slot.train()(batch).content, slot.eval()(batch).content)


def test_what_bends_adds_to_all_features_alike_reaches_no_fresh_token():
    """Or tokens would be the same for all patches, and soon have one code."""
    project = build("vqnsp").embed.project
    features = torch.randn(7, project.in_features)
    torch.testing.assert_close(project(features + 3.0), project(features), atol=1e-4, rtol=1e-4)

"""One code a sample: the choice, the kernels, and new names by frequency."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.nn.sample_codes import (
    AnnealedChoice,
    CodeKernels,
    SampleCodec,
    frequency_ranks,
)
from neurofm.published.ephys_tokenizer import EphysTokenizerConfig


def test_weights_are_one_code_in_evaluation_and_sum_to_one_in_training():
    torch.manual_seed(0)
    choice, features = AnnealedChoice(6, 5), torch.randn(4, 7, 6)
    hard = choice.eval()(features)
    assert (hard.weights.sort(-1).values[..., :-1] == 0).all()
    assert torch.equal(hard.weights.argmax(-1), hard.codes)
    soft = choice.train()(features)
    torch.testing.assert_close(soft.weights.sum(-1), torch.ones(4, 7))
    assert torch.equal(soft.codes, hard.codes)
    assert not torch.equal(soft.weights, hard.weights)
    choice.temperature.fill_(0)
    assert torch.equal(choice(features).weights, hard.weights)


@pytest.mark.parametrize(("padding", "before"), [("causal", 0), ("same", 2)])
def test_a_code_reaches_as_far_as_its_kernel(padding, before):
    torch.manual_seed(0)
    kernels = CodeKernels(3, 5, padding=padding, bias=False)
    weights = torch.zeros(1, 20, 3)
    weights[0, 10, 1] = 1
    out = kernels(weights)[0]
    assert out.nonzero().flatten().tolist() == list(range(10 - before, 15 - before))
    # a convolution as torch has it: the kernel runs backwards from its code
    expected = kernels.weight.sum(0)[1].flip(0)
    torch.testing.assert_close(out[10 - before : 15 - before], expected)


def test_channels_are_coded_apart_and_from_the_past_alone():
    torch.manual_seed(0)
    model = EphysTokenizerConfig(n_codes=8, width=6, kernel=4, padding="causal").build().eval()
    signal = torch.randn(2, 3, 30)
    codes = model.choose(signal).codes
    alone = model.choose(signal[1:, 2:]).codes
    assert torch.equal(codes[1:, 2:], alone)
    other = signal.clone()
    other[..., 20:] += 5
    assert torch.equal(model.choose(other).codes[..., :20], codes[..., :20])
    torch.testing.assert_close(model(other)[..., :20], model(signal)[..., :20])


def test_the_default_is_as_large_as_published():
    model = EphysTokenizerConfig().build()
    assert sum(p.numel() for p in model.parameters()) + 1 == 231_041  # and a temperature


@settings(max_examples=50)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_names_by_frequency_start_at_one_and_leave_zero_to_the_unseen(counts):
    counts = torch.tensor(counts)
    names = frequency_ranks(counts)
    seen = counts > 0
    assert (names[~seen] == 0).all()
    assert sorted(names[seen].tolist()) == list(range(1, int(seen.sum()) + 1))
    by_name = counts[seen][names[seen].argsort()]
    assert (by_name.diff() <= 0).all()


def make_codec():
    torch.manual_seed(0)
    return SampleCodec(6, 5, 1, "gru", 4).eval()


def test_decoding_gives_what_the_codes_reconstruct_whatever_their_names():
    codec, signal = make_codec(), torch.randn(2, 3, 30)
    expected = codec.reconstruct(signal)
    torch.testing.assert_close(codec.decode(codec.encode(signal)), expected)
    raw = codec.choose(signal).codes
    counts = torch.bincount(raw.flatten(), minlength=6)
    codec.rename(counts)
    codes = codec.encode(signal)
    assert codes.min() == 1
    assert codes.max() == (counts > 0).sum()
    assert (torch.bincount(codes.flatten())[1:].diff() <= 0).all()
    torch.testing.assert_close(codec.decode(codes), expected)


def test_a_code_that_training_did_not_see_is_zero_and_looks_like_nothing():
    codec, signal = make_codec(), torch.randn(1, 1, 30)
    raw = codec.choose(signal).codes
    gone = int(raw[0, 0, 0])
    counts = torch.bincount(raw.flatten(), minlength=6)
    counts[gone] = 0
    codec.rename(counts)
    codes = codec.encode(signal)
    assert torch.equal(codes == 0, raw == gone)
    silent = codec.decode(torch.zeros(1, 1, 30, dtype=torch.int64))
    torch.testing.assert_close(silent, codec.kernels.bias.sum().expand(1, 1, 30))


def test_a_hard_choice_lets_gradients_pass_as_if_it_were_soft():
    torch.manual_seed(0)
    choice, features = AnnealedChoice(6, 5), torch.randn(4, 7, 6)
    values = torch.randn(5)
    straight = choice.straight_through(features)
    assert torch.equal(straight.weights, choice.eval()(features).weights)
    (straight.weights @ values).sum().backward()
    found = choice.linear.weight.grad.clone()
    choice.zero_grad()
    choice.train()
    choice.temperature.fill_(1)
    (choice(features).weights @ values).sum().backward()
    torch.testing.assert_close(found, choice.linear.weight.grad)

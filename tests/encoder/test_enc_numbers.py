"""Half precision, unit scale, seeds, dropout."""

from dataclasses import replace

import torch
from encoder_cases import build_encoder, differ, encode, every_encoder, make_windows, with_value
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.nn.pool import MeanPool
from neurofm.tokenizers.table import TOKENIZERS


@every_encoder
def test_half_precision_is_near_single_precision(parts):
    encoder, batch = build_encoder(parts), make_windows()
    batch = with_value(batch, "present", (0, 4), False)
    single = MeanPool()(encode(encoder, batch))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = MeanPool()(encode(encoder, batch)).float()
    half = MeanPool()(encode(encoder.to(torch.bfloat16), batch)).float()
    scale = single.abs().mean()  # both differ by some bits of a mantissa of eight
    assert (mixed - single).abs().mean() < 0.03 * scale
    assert (half - single).abs().mean() < 0.05 * scale


@settings(max_examples=20)
@given(
    st.floats(-15, 15, width=32),
    st.sampled_from([0.0, 1.0, 1e-6]),
    st.sampled_from(sorted(TOKENIZERS)),
)
def test_any_standardised_signal_gives_finite_tokens_of_unit_scale(offset, scale, tokenizer):
    encoder = build_encoder((tokenizer, "transformer", "criss_cross"))
    batch = make_windows()
    content = encode(encoder, replace(batch, signal=offset + scale * batch.signal)).content
    assert content.isfinite().all()
    torch.testing.assert_close(
        content.square().mean(-1), torch.ones(content.shape[:3]), atol=0.05, rtol=0
    )


def test_the_same_seed_builds_the_same_weights():
    one, two = build_encoder().state_dict(), build_encoder().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_dropout_acts_in_training_only():
    encoder, batch = build_encoder(dropout=0.5), make_windows()
    encoder.train()
    assert differ(encoder(batch).content, encoder(batch).content)
    torch.testing.assert_close(encode(encoder, batch).content, encode(encoder, batch).content)

"""The order of channels and padding change nothing else."""

import pytest
import torch
from encoder_cases import (
    build_encoder,
    differ,
    encode,
    every_encoder,
    make_windows,
    replace_windows,
    take_channels,
    with_value,
)

from neurofm.nn.pool import MeanPool

every_padding = pytest.mark.parametrize("padding", ["mask", "pack"])


@every_encoder
def test_permuting_channels_permutes_tokens_and_leaves_the_pooled_vector(parts):
    encoder, batch = build_encoder(parts), make_windows()
    order = torch.tensor([3, 0, 4, 2, 1])

    plain, permuted = encode(encoder, batch), encode(encoder, take_channels(batch, order))

    follow = encoder.sites_are_channels
    same = order if follow else slice(None)
    torch.testing.assert_close(permuted.content, plain.content[:, same], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(MeanPool()(permuted), MeanPool()(plain), atol=1e-5, rtol=1e-5)
    assert differ(permuted.content, plain.content) == follow


@every_padding
@every_encoder
def test_padding_channels_change_nothing_whatever_they_hold(parts, padding):
    encoder, batch = build_encoder(parts, padding=padding), make_windows(n_channels=7)
    batch = with_value(batch, "present", (0, slice(4, None)), False)
    batch = with_value(batch, "signal", (0, 4), 1e6)
    batch = with_value(batch, "signal", (0, 5), float("nan"))

    padded = encode(encoder, batch)
    alone = encode(encoder, take_channels(replace_windows(batch, 0), torch.arange(4)))
    full = encode(encoder, replace_windows(batch, 1))

    n_sites = alone.content.shape[1]
    torch.testing.assert_close(padded.content[:1, :n_sites], alone.content, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded.content[1:], full.content, atol=1e-5, rtol=1e-5)
    assert not padded.content[0, n_sites:].any()
    torch.testing.assert_close(
        MeanPool()(padded), torch.cat([MeanPool()(alone), MeanPool()(full)]), atol=1e-5, rtol=1e-5
    )


@every_padding
@every_encoder
def test_padding_that_is_not_finite_spoils_no_gradient(parts, padding):
    encoder, batch = build_encoder(parts, padding=padding), make_windows()
    batch = with_value(batch, "present", (0, 4), False)
    batch = with_value(batch, "signal", (0, 4), float("inf"))
    encoder(batch).content.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@every_encoder
def test_a_window_without_any_channel_is_zero_and_finite(parts):
    encoder, batch = build_encoder(parts), make_windows()
    batch = with_value(batch, "present", (0, slice(None)), False)
    grid = encoder(batch)
    grid.content.square().sum().backward()
    assert not grid.content[0].any()
    assert not MeanPool()(grid)[0].any()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)
    alone = encode(encoder, replace_windows(batch, 1))
    torch.testing.assert_close(grid.content[1:].detach(), alone.content, atol=1e-5, rtol=1e-5)

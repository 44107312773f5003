"""What is not known of a channel has no say, whatever its numbers are, to any tokenizer."""

import pytest
import torch
from encoder_cases import build_encoder, make_windows, with_value

from neurofm.tokenizers.table import TOKENIZERS

FIRST = ("transformer", "full")
everyone = slice(None)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_positions_orientations_and_padding_that_mean_nothing_have_no_say(tokenizer):
    encoder = build_encoder((tokenizer, *FIRST)).eval()
    batch = make_windows(n_channels=7)
    batch = with_value(batch, "present", (0, slice(5, None)), False)
    other = with_value(batch, "position", (everyone, 1), 0.07)  # not located
    other = with_value(other, "orientation", (everyone, 0), 0.6)  # an electrode has none
    for name, value in (("position", 0.03), ("orientation", -1.0), ("signal", 7.0), ("kind", 5)):
        other = with_value(other, name, (0, slice(5, None)), value)
    with torch.no_grad():
        before, after = encoder.tokenizer(batch), encoder.tokenizer(other)
    assert torch.equal(before.present, after.present)
    shown = before.present[..., None]
    torch.testing.assert_close(after.content, before.content, atol=1e-6, rtol=1e-6)
    found, wanted = (g.tokens.masked_fill(~shown, 0.0) for g in (after, before))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_sites_are_said_to_lie_where_located_channels_lie(tokenizer):
    """The position of a site that has one is inside the box of the located channels."""
    grid = build_encoder((tokenizer, *FIRST)).tokenizer(batch := make_windows(n_channels=7))
    if grid.position is None:
        assert tokenizer in {"du_in", "luna"}  # regions and queries lie nowhere
        return
    places = batch.position[batch.located].unflatten(0, (2, -1))
    low, high = places.amin(1, keepdim=True) - 1e-6, places.amax(1, keepdim=True) + 1e-6
    inside = ((grid.position >= low) & (grid.position <= high)).all(-1)
    assert inside[grid.located].all()
    assert grid.located.any()

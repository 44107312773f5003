"""What is hidden is hidden, and keeps its place."""

import pytest
import torch
from encoder_cases import (
    build_encoder,
    differ,
    encode,
    every_encoder,
    make_windows,
    shape_of,
    sites_are_channels,
    with_value,
)

from neurofm.errors import ConfigError, SignalError


@every_encoder
def test_the_signal_under_a_hidden_token_does_not_leak(parts):
    encoder, batch = build_encoder(parts), make_windows()
    hide = torch.zeros(shape_of(encoder, batch), dtype=torch.bool)
    sites = channels = slice(1, 2) if sites_are_channels(parts) else slice(None)
    hide[:, sites, 2] = True
    hidden = with_value(batch, "signal", (slice(None), channels, slice(40, 60)), 9.0)
    shown = with_value(batch, "signal", (slice(None), channels, slice(39, 60)), 9.0)

    before = encode(encoder, batch, hide).content

    torch.testing.assert_close(encode(encoder, hidden, hide).content, before, atol=0, rtol=0)
    assert differ(encode(encoder, shown, hide).content, before)
    assert differ(encode(encoder, hidden).content, encode(encoder, batch).content)


@every_encoder
def test_a_hidden_token_keeps_its_place(parts):
    encoder, batch = build_encoder(parts), make_windows()
    hide = torch.ones(shape_of(encoder, batch), dtype=torch.bool)
    moved = with_value(batch, "position", (0, 0), batch.position[0, 0] + 0.03)
    before, after = encode(encoder, batch, hide), encode(encoder, moved, hide)
    # what is of all channels lies nowhere
    assert differ(before.content[0], after.content[0]) == (parts[0] not in {"du_in", "luna"})
    torch.testing.assert_close(before.place, encode(encoder, batch).place)


@pytest.mark.parametrize(
    "hide", [torch.zeros(2, 5, dtype=torch.bool), torch.zeros(2, 5, 5)], ids=["shape", "dtype"]
)
def test_a_mask_of_another_shape_or_type_is_refused(hide):
    with pytest.raises(SignalError, match=r"hide is torch\..* expected torch.bool of shape"):
        build_encoder()(make_windows(), hide)


def test_hiding_is_refused_where_the_backbone_lets_patches_go():
    parts = ("linear_patch", "pyramid", "past")
    encoder, batch = build_encoder(parts, layers=[{"n_out": 3}]), make_windows()
    assert encode(encoder, batch).present.sum(-1).eq(3).all()
    with pytest.raises(ConfigError, match=r"the pyramid lets patches go.*\n.*leave n_out out"):
        encoder(batch, torch.zeros(shape_of(encoder, batch), dtype=torch.bool))

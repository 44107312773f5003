"""Patches of neighbouring channels: which share a token, and what a token knows."""

from dataclasses import replace

import pytest
import torch
from batches import plain_batch

from neurofm.contract import SignalContract
from neurofm.tokenizers.plane import PlanePatchConfig

CONTRACT = SignalContract(sfreq=128, band_hz=(0.5, 40), window_s=2)


def make_row(n_channels=6, seed=0):
    """Electrodes in a row from left to right, in a random order."""
    draw = torch.Generator().manual_seed(seed)
    shape = (1, n_channels)
    position = torch.zeros(*shape, 3)
    position[..., 0] = torch.linspace(-0.06, 0.06, n_channels)
    order = torch.randperm(n_channels, generator=draw)
    signal = torch.randn(*shape, 256, generator=draw)
    return plain_batch(signal, position=position[:, order], sfreq=128.0)


def build(n_channels=2):
    torch.manual_seed(0)
    return PlanePatchConfig(patch_s=0.5, n_channels=n_channels).build(CONTRACT, 8).eval()


def test_neighbours_share_a_token_that_lies_between_them():
    batch = make_row()
    grid = build()(batch)
    expected = torch.tensor([-0.048, 0.0, 0.048])
    torch.testing.assert_close(grid.position[0, :, 0], expected)
    assert grid.content.shape == (1, 3, 4, 8)
    assert grid.located.all()
    assert grid.present.all()


def test_a_token_is_the_linear_map_of_its_rectangle():
    tokenizer, batch = build(3), make_row()
    walk = batch.position[0, :, 0].argsort()
    rectangle = batch.signal[0, walk][3:6, 64:128]
    weight, bias = tokenizer.content.weight, tokenizer.content.bias
    expected = (weight[:, 0] * rectangle).sum((1, 2)) + bias
    torch.testing.assert_close(tokenizer(batch).content[0, 1, 1], expected)


def test_the_last_group_may_be_short_and_counts_what_it_has():
    batch = make_row(5)
    grid = build()(batch)
    last = batch.position[0, :, 0].argmax()
    torch.testing.assert_close(grid.position[0, 2], batch.position[0, last])
    place = build().place(
        batch.position,
        batch.orientation,
        batch.kind,
        located=batch.located,
        oriented=batch.oriented,
    )
    torch.testing.assert_close(grid.place[0, 2, 0], place[0, last])


def test_channels_that_are_padding_never_share_a_token_with_others():
    batch = make_row(6)
    present = torch.tensor([[True, False, True, False, False, True]])
    signal = batch.signal.masked_fill(~present[..., None], float("nan"))
    padded = build()(replace(batch, present=present, signal=signal))
    here = present[0].nonzero()[:, 0]
    names = ("signal", "position", "orientation", "kind", "located", "oriented", "present")
    alone = build()(replace(batch, **{n: getattr(batch, n)[:, here] for n in names}))
    torch.testing.assert_close(padded.content[:, :2], alone.content)
    torch.testing.assert_close(padded.position[:, :2], alone.position)
    assert padded.present[0].any(-1).tolist() == [True, True, False]


def test_a_site_is_located_by_those_of_its_channels_that_are():
    batch = make_row(2)
    batch = replace(batch, located=torch.tensor([[True, False]]))
    grid = build()(batch)
    torch.testing.assert_close(grid.position[0, 0], batch.position[0, 0])
    assert grid.located.tolist() == [[True]]
    nowhere = build()(replace(batch, located=torch.zeros(1, 2, dtype=torch.bool)))
    assert nowhere.located.tolist() == [[False]]


@pytest.mark.parametrize("n_channels", [1, 2, 7])
def test_any_number_of_channels_can_share_a_token(n_channels):
    grid = build(n_channels)(make_row(6))
    assert grid.content.shape[1] == -(-6 // n_channels)

"""Where channels are: known, unknown, by table, on a turned head."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from encoder_cases import (
    build_encoder,
    differ,
    encode,
    every_place,
    make_windows,
    replace_all,
    replace_windows,
    take_channels,
    with_value,
)
from torch.nn.functional import pad

from neurofm.errors import SignalError
from neurofm.nn.pool import MeanPool
from neurofm.sensors import SensorKind
from neurofm.tokenizers.patch import LinearPatchConfig
from neurofm.tokenizers.place import PLACES


def test_an_unknown_position_is_not_the_origin():
    encoder, batch = build_encoder(), make_windows()
    origin = with_value(batch, "position", (slice(None), 0), 0.0)
    unknown = with_value(origin, "located", (slice(None), 0), False)
    assert differ(encode(encoder, origin).content, encode(encoder, unknown).content)


def test_what_an_unknown_position_holds_does_not_matter():
    encoder, batch = build_encoder(), make_windows()
    other = with_value(batch, "position", (slice(None), 1), 0.07)  # channel 1 is not located
    torch.testing.assert_close(encode(encoder, batch).content, encode(encoder, other).content)


@pytest.mark.parametrize("distance", [0.01, 0.05, 0.2])
def test_moving_a_sensor_changes_the_output(distance):
    encoder, batch = build_encoder(), make_windows()
    moved = with_value(batch, "position", (0, 0, 2), batch.position[0, 0, 2] + distance)
    assert differ(encode(encoder, batch).content[0], encode(encoder, moved).content[0])


def test_turning_a_coil_changes_the_output_and_an_electrode_has_no_orientation():
    encoder, batch = build_encoder(), make_windows()
    before = encode(encoder, batch).content
    coil = with_value(batch, "orientation", (0, 2), -batch.orientation[0, 2])
    electrode = with_value(batch, "orientation", (0, 0), -batch.orientation[0, 0])
    assert differ(encode(encoder, coil).content, before)
    torch.testing.assert_close(encode(encoder, electrode).content, before)


def test_swapping_the_signals_of_two_channels_changes_the_pooled_vector():
    encoder, batch = build_encoder(), make_windows()
    order = torch.tensor([3, 1, 2, 0, 4])
    swapped = replace(batch, signal=batch.signal[:, order])
    pool = MeanPool()
    assert differ(pool(encode(encoder, batch)), pool(encode(encoder, swapped)))


def test_every_sensor_kind_has_a_place_of_its_own():
    encoder = build_encoder()
    batch = make_windows(n_channels=1, n_windows=len(SensorKind))
    batch = replace_all(batch, 0)
    batch = replace(batch, kind=torch.tensor([[int(k)] for k in SensorKind]))
    places = encode(encoder, batch).place[:, 0, 0]
    distances = torch.cdist(places, places) + torch.eye(len(places))
    assert distances.min() > 1e-3


def by_table(place):
    """Whether names alone tell where a channel is."""
    return place in {"names", "regions"}


@every_place
def test_every_place_runs_forward_and_backward_and_reaches_every_parameter(place):
    encoder = build_encoder(place=place)
    encoder(make_windows()).content.pow(3).sum().backward()
    untouched = [
        n
        for n, p in encoder.named_parameters()
        if n != "mask_token" and (p.grad is None or not p.grad.any())
    ]
    assert not untouched


def test_the_table_of_places_is_what_configs_may_name():
    union = LinearPatchConfig.model_fields["place"].annotation
    assert set(get_args(union)) == set(PLACES.values())
    assert all(c.model_fields["name"].default == name for name, c in PLACES.items())


@every_place
def test_channels_may_be_permuted_and_padded_under_every_place(place):
    encoder, batch = build_encoder(place=place), make_windows(n_channels=7)
    order = torch.tensor([3, 0, 6, 4, 2, 5, 1])
    plain, permuted = encode(encoder, batch), encode(encoder, take_channels(batch, order))
    torch.testing.assert_close(permuted.content, plain.content[:, order], atol=1e-5, rtol=1e-5)

    padded = with_value(batch, "present", (0, slice(4, None)), False)
    padded = with_value(padded, "signal", (0, 5), float("nan"))
    padded = with_value(padded, "position", (0, 5), 5.0)
    alone = encode(encoder, take_channels(replace_windows(batch, 0), torch.arange(4)))
    found = encode(encoder, padded)
    torch.testing.assert_close(found.content[:1, :4], alone.content, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.content[1:], plain.content[1:], atol=1e-5, rtol=1e-5)


@every_place
def test_two_montages_in_a_batch_equal_each_alone(place):
    encoder = build_encoder(place=place)
    six = make_windows(n_channels=6, n_windows=1, seed=1)
    three = take_channels(make_windows(n_channels=6, n_windows=1, seed=2), torch.tensor([4, 1, 2]))
    both = {
        name: torch.cat((value, pad(getattr(three, name), (0, 0) * (value.ndim - 2) + (0, 3))))
        for name, value in vars(six).items()
        if torch.is_tensor(value)
    }
    together = encode(encoder, replace(six, **both))
    for window, alone in enumerate((six, three)):
        found = encode(encoder, alone).content
        n = found.shape[1]
        torch.testing.assert_close(together.content[window, :n], found[0], atol=1e-5, rtol=1e-5)


@every_place
def test_what_an_unknown_position_holds_matters_under_no_place_and_is_not_the_origin(place):
    encoder, batch = build_encoder(place=place), make_windows()
    elsewhere = with_value(batch, "position", (slice(None), 1), 0.07)  # not located
    before = encode(encoder, batch).place
    torch.testing.assert_close(encode(encoder, elsewhere).place, before, atol=0, rtol=0)
    origin = with_value(batch, "position", (slice(None), 0), 0.0)
    unknown = with_value(origin, "located", (slice(None), 0), False)
    changed = differ(encode(encoder, origin).place, encode(encoder, unknown).place)
    assert changed == (not by_table(place))


@every_place
def test_a_head_that_is_turned_with_its_sensors_is_elsewhere_except_to_tables_of_names(place):
    encoder, batch = build_encoder(place=place), make_windows()
    c, s = math.cos(0.5), math.sin(0.5)
    turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    turned = replace(
        batch, position=batch.position @ turn.T, orientation=batch.orientation @ turn.T
    )
    before, after = encoder.tokenizer(batch), encoder.tokenizer(turned)
    assert torch.equal(before.content, after.content)
    assert differ(before.place, after.place) == (not by_table(place))


@every_place
def test_every_place_is_near_itself_in_half_precision(place):
    batch = make_windows()
    tokenizer = build_encoder(place=place).tokenizer
    single = tokenizer(batch).place
    half = tokenizer.to(torch.bfloat16)(batch).place.float()
    assert half.isfinite().all()
    assert (half - single).abs().mean() < 0.03 * single.abs().mean()


@every_place
def test_channels_that_nobody_knows_have_a_finite_place_of_their_own(place):
    encoder, batch = build_encoder(place=place), make_windows(n_windows=1)
    strange = replace(
        batch,
        name_code=torch.arange(5)[None] + 10**12,
        region_code=torch.zeros_like(batch.region_code),
        located=torch.zeros_like(batch.located),
    )
    known, unknown = encode(encoder, batch), encode(encoder, strange)
    assert unknown.content.isfinite().all()
    assert differ(known.place[0, 0], unknown.place[0, 0])
    same_kind = unknown.place[0, :2]  # two EEG channels
    torch.testing.assert_close(same_kind[0], same_kind[1])


@pytest.mark.parametrize(("place", "field"), [("names", "name_code"), ("regions", "region_code")])
def test_places_by_table_follow_the_names_and_ask_for_them(place, field):
    encoder, batch = build_encoder(place=place), make_windows()
    renamed = with_value(batch, field, (0, 3), int(getattr(batch, field)[0, 2]))
    before, after = encode(encoder, batch).place, encode(encoder, renamed).place
    assert differ(before[0, 3], after[0, 3]) == (place == "regions")  # no name here is in the table
    renamed = with_value(batch, field, (0, 4), int(getattr(batch, field)[0, 1]))
    after = encode(encoder, renamed).place
    assert differ(before[0, 4], after[0, 4])
    assert torch.equal(before[:, :4], after[:, :4])
    with pytest.raises(SignalError, match=rf"{field} is needed .*\(2, 5\); found none"):
        encoder(replace(batch, **{field: None}))

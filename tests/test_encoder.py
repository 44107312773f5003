"""The encoder as a whole: what may change its output, and what may not."""

import itertools
import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from neurofm.backbones.table import BACKBONES
from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.errors import ConfigError, ContractError, SignalError
from neurofm.nn.attention import ATTENTIONS, AttentionName
from neurofm.nn.pool import MeanPool
from neurofm.sensors import SensorKind, text_code
from neurofm.signals import Batch
from neurofm.tokenizers.patch import LinearPatchConfig
from neurofm.tokenizers.place import PLACES
from neurofm.tokenizers.table import TOKENIZERS

CONTRACT = SignalContract(sfreq=50, band_hz=(0.5, 25), window_s=2)
# attention along one axis only is no backbone of its own: tests/backbones has its properties
MIXES = ("full", "criss_cross", "split_halves", "swapped_halves", "factorised")
MAMBA1 = {"name": "mamba1", "d_state": 4}
MAMBA2 = {"name": "mamba2", "d_state": 8, "headdim": 8}
VARIANTS = {
    "transformer": {mix: {"depth": 2, "n_heads": 4, "attention": mix} for mix in MIXES},
    "mamba": {
        "version_1": {"depth": 1, "mixer": MAMBA1, "scan": "time_within_site"},
        "version_2": {"depth": 1, "mixer": MAMBA2, "scan": "site_within_time"},
        "per_site": {"depth": 1, "mixer": MAMBA2, "scan": "per_site", "norm_place": "post"},
        "hybrid": {"depth": 3, "mixer": MAMBA2, "attention_every": 2, "n_heads": 4},
    },
}
MIXERS = [(b, v) for b in BACKBONES for v in VARIANTS[b]]
TABLE = [(t, *mixer) for t, mixer in itertools.product(TOKENIZERS, MIXERS)]
# what a property needs: every tokenizer with a transformer and with Mamba, the variants in turn,
# and every variant
_HALVES = (MIXERS[: len(MIXES)], MIXERS[len(MIXES) :])
COVER = [("linear_patch", *mixer) for mixer in MIXERS] + [
    (t, *half[i % len(half)])
    for i, t in enumerate(TOKENIZERS)
    for half in _HALVES
    if t != "linear_patch"
]
every_encoder = pytest.mark.parametrize("parts", COVER, ids="-".join)


PLACE_VALUES = {name: {"name": name} for name in PLACES} | {
    "regions": {"name": "regions", "regions": ["V1", "M1", "hippocampus"]}
}
every_place = pytest.mark.parametrize("place", PLACES)
NAMES = ("Fp1", "Cz", "mag:1", "seeg:Cz", "Oz", "Pz", "T7", "T8")
REGIONS = ("V1", "", "M1", "V2", "V1", "V1", "M1", "hippocampus")


def build_encoder(parts=("linear_patch", "transformer", "criss_cross"), place="fourier", **changes):
    tokenizer, backbone, variant = parts
    values = {
        "width": 32,
        "tokenizer": {"name": tokenizer, "patch_s": 0.4, "place": PLACE_VALUES[place]},
        "backbone": {"name": backbone, **VARIANTS[backbone][variant], **changes},
    }
    torch.manual_seed(0)
    return parse_config(EncoderConfig, values, where="test").build(CONTRACT)


def make_windows(n_channels=5, n_windows=2, n_times=100, seed=0):
    """Channels of several kinds; the second is not located, the third is a coil."""
    draw = torch.Generator().manual_seed(seed)
    shape = (n_windows, n_channels)
    kind = torch.tensor([0, 0, 2, 5, 1, 6, 3, 7])[:n_channels].expand(shape)
    located = torch.ones(shape, dtype=torch.bool)
    located[:, 1:2] = False
    normal = torch.nn.functional.normalize(torch.randn(*shape, 3, generator=draw), dim=-1)
    return Batch(
        signal=torch.randn(*shape, n_times, generator=draw),
        position=0.05 * torch.randn(*shape, 3, generator=draw) * located[..., None],
        orientation=normal,
        kind=kind,
        located=located,
        oriented=(kind == 2) | (kind == 1),
        present=torch.ones(shape, dtype=torch.bool),
        sfreq=50.0,
        name_code=torch.tensor([text_code(n) for n in NAMES[:n_channels]]).expand(shape),
        region_code=torch.tensor([text_code(r) for r in REGIONS[:n_channels]]).expand(shape),
    )


def take_channels(batch, index):
    tensors = {k: v[:, index] for k, v in vars(batch).items() if torch.is_tensor(v)}
    return replace(batch, **tensors)


def with_value(batch, name, index, value):
    changed = getattr(batch, name).clone()
    changed[index] = value
    return replace(batch, **{name: changed})


def encode(encoder, batch, hide=None):
    with torch.no_grad():
        return encoder.eval()(batch, hide)


def differ(a, b, atol=1e-4):
    return float((a - b).detach().abs().max()) > atol


def shape_of(encoder, batch):
    """Windows, sites and patches of the grid."""
    with torch.no_grad():
        return tuple(encoder.tokenizer(batch).present.shape)


def sites_are_channels(parts):
    """Whether a channel is a site, and has the same number."""
    return parts[0] not in {"plane_patch", "brain_tokenizer"}


# ---------------------------------------------------------------------------------------
# Every combination


@pytest.mark.parametrize("parts", TABLE, ids="-".join)
def test_every_combination_runs_forward_and_backward_and_reaches_every_parameter(parts):
    encoder = build_encoder(parts)
    batch = make_windows()
    shape = shape_of(encoder, batch)
    hide = torch.zeros(shape, dtype=torch.bool)
    hide[:, ::2, 1] = True

    grid = encoder(batch, hide)
    weights = torch.randn(grid.content.shape, generator=torch.Generator().manual_seed(1))
    (grid.content * weights).sum().backward()

    assert grid.content.shape == (*shape, 32)
    untouched = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untouched


def test_the_tables_hold_every_part_under_its_own_name():
    for table in (TOKENIZERS, BACKBONES):
        assert all(config.model_fields["name"].default == name for name, config in table.items())
    for part, table in (("tokenizer", TOKENIZERS), ("backbone", BACKBONES)):
        union = EncoderConfig.model_fields[part].annotation
        parts = {getattr(part, "__origin__", part) for part in get_args(union)}
        assert parts == set(table.values())
    assert set(VARIANTS) == set(BACKBONES)
    assert {parts[0] for parts in COVER} == set(TOKENIZERS)
    assert {parts[1:] for parts in COVER} == set(MIXERS)
    assert set(ATTENTIONS) == set(get_args(AttentionName)) == {*MIXES[:4], "sites", "patches"}


@every_encoder
def test_permuting_channels_permutes_tokens_and_leaves_the_pooled_vector(parts):
    encoder, batch = build_encoder(parts), make_windows()
    order = torch.tensor([3, 0, 4, 2, 1])

    plain, permuted = encode(encoder, batch), encode(encoder, take_channels(batch, order))

    same = order if sites_are_channels(parts) else slice(None)
    torch.testing.assert_close(permuted.content, plain.content[:, same], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(MeanPool()(permuted), MeanPool()(plain), atol=1e-5, rtol=1e-5)
    assert differ(permuted.content, plain.content) == sites_are_channels(parts)


@every_encoder
def test_padding_channels_change_nothing_whatever_they_hold(parts):
    encoder, batch = build_encoder(parts), make_windows(n_channels=7)
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


def replace_windows(batch, index):
    tensors = {k: v[index : index + 1] for k, v in vars(batch).items() if torch.is_tensor(v)}
    return replace(batch, **tensors)


@every_encoder
def test_padding_that_is_not_finite_spoils_no_gradient(parts):
    encoder, batch = build_encoder(parts), make_windows()
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


# ---------------------------------------------------------------------------------------
# Hiding


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
    assert differ(before.content[0], after.content[0])
    torch.testing.assert_close(before.place, encode(encoder, batch).place)


@pytest.mark.parametrize(
    "hide", [torch.zeros(2, 5, dtype=torch.bool), torch.zeros(2, 5, 5)], ids=["shape", "dtype"]
)
def test_a_mask_of_another_shape_or_type_is_refused(hide):
    with pytest.raises(SignalError, match=r"hide is torch\..* expected torch.bool of shape"):
        build_encoder()(make_windows(), hide)


# ---------------------------------------------------------------------------------------
# Places


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


def replace_all(batch, index):
    """Make every window the same as one of them."""
    tensors = {
        k: v[index : index + 1].expand(len(batch), *v.shape[1:])
        for k, v in vars(batch).items()
        if torch.is_tensor(v)
    }
    return replace(batch, **tensors)


# ---------------------------------------------------------------------------------------
# Every place


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


# ---------------------------------------------------------------------------------------
# Time


@every_encoder
def test_the_order_of_patches_matters(parts):
    encoder, batch = build_encoder(parts), make_windows()
    order = torch.tensor([0, 3, 2, 1, 4])
    swapped = replace(batch, signal=batch.signal.unflatten(-1, (5, 20))[:, :, order].flatten(-2))
    plain = encode(encoder, batch).content
    assert differ(encode(encoder, swapped).content, plain[:, :, order], atol=1e-2)


@every_encoder
def test_only_differences_in_time_matter(parts):
    encoder, batch = build_encoder(parts).eval(), make_windows()
    with torch.no_grad():
        grid = encoder.tokenizer(batch)
        early, late = (
            encoder.backbone(
                grid.evolve(
                    content=pad_patches(grid.content, lead), present=pad_patches(grid.present, lead)
                )
            )
            for lead in (0, 3)
        )
    torch.testing.assert_close(
        early.content[:, :, :5], late.content[:, :, 3:], atol=1e-5, rtol=1e-5
    )
    assert not late.content[:, :, :3].any()


def pad_patches(values, lead):
    padded = values.new_zeros(*values.shape[:2], 8, *values.shape[3:])
    padded[:, :, lead : lead + 5] = values
    return padded


def test_windows_of_another_number_of_patches_can_be_encoded():
    assert encode(build_encoder(), make_windows(n_times=60)).content.shape == (2, 5, 3, 32)


# ---------------------------------------------------------------------------------------
# Numbers


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


@settings(max_examples=20, deadline=None)
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


# ---------------------------------------------------------------------------------------
# Refusals


def test_a_batch_of_another_rate_is_refused():
    with pytest.raises(ContractError, match="sampled at 250 Hz, the tokenizer is for 50 Hz"):
        build_encoder()(replace(make_windows(), sfreq=250.0))


def test_a_tensor_of_the_wrong_shape_is_named():
    batch = make_windows()
    with pytest.raises(SignalError, match=r"position has shape \(2, 4, 3\), expected \(2, 5, 3\)"):
        build_encoder()(replace(batch, position=batch.position[:, :4]))
    with pytest.raises(SignalError, match=r"signal has shape \(5, 100\), expected \(B, C, T\)"):
        build_encoder()(replace(batch, signal=batch.signal[0]))


def test_half_a_patch_at_the_end_of_a_window_is_refused():
    with pytest.raises(SignalError, match=r"4.5 patches of 20 samples.*\n.*multiple of 0.4 s"):
        build_encoder()(make_windows(n_times=90))


def test_an_unknown_tokenizer_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown name 'linear_pach'.*\n.*'linear_patch'"):
        parse_config(EncoderConfig, {"tokenizer": {"name": "linear_pach"}}, where="x.yaml")

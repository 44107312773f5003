"""Virtual channels: where sensors are counts and nothing else; subjects have maps of their own."""

import math
from dataclasses import replace

import pytest
import torch
from batches import plain_batch

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.errors import ConfigError, SensorError, SignalError
from neurofm.sensors import text_code
from neurofm.signals import Batch
from neurofm.tokenizers.merged import MIDDLE_M, MergedPatchConfig, on_layout
from neurofm.witness import witness

CONTRACT = SignalContract(sfreq=50, band_hz=(0.5, 20), window_s=2)
WHO = ("d_sub-1", "d_sub-2")


def build(**values):
    torch.manual_seed(0)
    values = {"patch_s": 0.4, "n_virtual": 6, "n_waves": 4, **values}
    return MergedPatchConfig(**values).build(CONTRACT, 16).eval()


def build_with_subjects(**values):
    return build(subject_layer=True, **{"subjects": WHO, **values})


def make_windows(*whose, n_channels=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (len(whose), n_channels)
    signal = torch.randn(*shape, 100, generator=draw)
    towards = torch.nn.functional.normalize(torch.randn(*shape, 3, generator=draw), dim=-1)
    return plain_batch(
        signal,
        position=0.1 * towards,
        sfreq=50.0,
        recording_ids=tuple(f"{subject}_run-1" for subject in whose),
        subject_code=torch.tensor([text_code(subject) for subject in whose]),
    )


def make_twins(*whose):
    """Return windows that differ in nothing but whose they are."""
    batch = make_windows(*whose)
    batch.signal[1:] = batch.signal[0]
    batch.position[1:] = batch.position[0]
    return batch


def take_channels(batch, index):
    fields = ("signal", "position", "orientation", "kind", "located", "oriented", "present")
    return replace(batch, **{name: getattr(batch, name)[:, index] for name in fields})


@torch.no_grad()
def run(tokenizer, batch):
    return tokenizer(batch)


def close(one, other):
    for name in ("content", "place", "position"):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5, msg=name
        )
    assert torch.equal(one.present, other.present)
    assert torch.equal(one.located, other.located)


def test_the_layout_is_the_head_from_above_at_the_angle_from_the_top():
    x, y, z = MIDDLE_M
    points = torch.tensor(
        [[x, y, z + 0.1], [x + 0.1, y, z], [x, y + 0.2, z], [x, y - 0.1, z + 0.1], [x, y, z - 0.1]]
    )
    quarter, eighth = 0.25, 0.125
    expected = [[0.5, 0.5], [0.5 + quarter, 0.5], [0.5, 0.5 + quarter], [0.5, 0.5 - eighth]]
    torch.testing.assert_close(on_layout(points[:4]), torch.tensor(expected))
    below = on_layout(points[4])
    assert math.dist(below.tolist(), (0.5, 0.5)) == pytest.approx(0.5)
    anywhere = on_layout(torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)))
    assert (anywhere - 0.5).norm(dim=-1).max() <= 0.5 + 1e-6
    assert on_layout(torch.tensor(MIDDLE_M)).isfinite().all()


def test_virtual_channels_are_weighted_means_of_what_is_located():
    tokenizer, batch = build(), make_windows("a")
    batch.signal[:] = batch.signal[:, :1]
    batch.located[0, 3] = False
    batch.signal[0, 3] = 100.0
    alike = run(tokenizer, batch).content
    with torch.no_grad():
        one = tokenizer.content(tokenizer.patches(batch.signal[:, :1]))
    torch.testing.assert_close(alike, one.expand_as(alike), atol=1e-5, rtol=1e-5)


def test_the_order_and_the_number_of_channels_have_no_say_by_themselves():
    tokenizer, batch = build(), make_windows("a", "b")
    order = torch.tensor([3, 0, 4, 2, 1])
    close(run(tokenizer, take_channels(batch, order)), run(tokenizer, batch))
    twice = take_channels(batch, torch.arange(5).repeat(2))
    close(run(tokenizer, twice), run(tokenizer, batch))


def test_a_channel_without_a_position_is_as_if_it_were_not_there():
    tokenizer, batch = build(), make_windows("a", "b")
    batch.located[:, 2] = False
    batch.position[:, 2] = float("nan")
    without = take_channels(batch, torch.tensor([0, 1, 3, 4]))
    close(run(tokenizer, batch), run(tokenizer, without))
    tokenizer(batch).content.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in tokenizer.parameters())


def test_two_montages_in_a_batch_equal_each_alone():
    tokenizer = build()
    batch = make_windows("a", "b", n_channels=7)
    batch.present[1, 3:] = False
    batch.signal[1, 3:] = float("nan")
    batch.position[1, 3:] = 5.0
    both = run(tokenizer, batch)
    for i, n in ((0, 7), (1, 3)):
        alone = take_channels(batch, slice(n))
        alone = replace(
            alone, **{k: v[i : i + 1] for k, v in vars(alone).items() if torch.is_tensor(v)}
        )
        found = run(tokenizer, alone)
        torch.testing.assert_close(both.content[i], found.content[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(both.place[i], found.place[0], atol=1e-5, rtol=1e-5)


def test_a_montage_that_was_never_seen_has_sites_where_its_sensors_are():
    tokenizer = build()
    grid = run(tokenizer, make_windows("a", n_channels=19, seed=3))
    assert grid.content.shape == (1, 6, 5, 16)
    assert grid.content.isfinite().all()
    assert grid.located.all()
    assert (grid.position.norm(dim=-1) < 0.1).all()  # means of points on a sphere
    one = make_windows("a", n_channels=1)
    torch.testing.assert_close(run(tokenizer, one).position, one.position.expand(1, 6, 3))


def test_what_channels_measure_has_no_part_in_places():
    tokenizer, batch = build(), make_windows("a")
    other = run(tokenizer, replace(batch, signal=-3 * batch.signal))
    assert torch.equal(other.place, run(tokenizer, batch).place)
    moved = run(tokenizer, replace(batch, position=-batch.position))
    assert (moved.place - other.place).abs().max() > 1e-2


def test_a_window_without_any_position_is_refused_and_one_without_channels_is_absent(monkeypatch):
    tokenizer, batch = build(), make_windows("a", "b_sub-2")
    batch.located[1] = False
    with pytest.raises(SensorError, match=r"b_sub-2_run-1: none of 5 channels .*\n.*place: names"):
        tokenizer(batch)
    with pytest.raises(SensorError, match="window 1: none of 5"):
        tokenizer(replace(batch, recording_ids=()))
    batch.present[1] = False
    grid = run(tokenizer, batch)
    assert not grid.present[1].any()
    assert not grid.content[1].any()
    batch.present[1] = True
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = run(tokenizer, batch).content
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


# ---------------------------------------------------------------------------------------
# Subjects


def test_without_a_subject_layer_nothing_is_asked_about_subjects():
    assert build().example() is None
    one, other = run(build(), replace(make_twins("a", "b"), subject_code=None)).content
    assert torch.equal(one, other)


def test_each_subject_has_a_map_of_its_own():
    one, other, again = run(build_with_subjects(), make_twins(*WHO, WHO[0])).content
    assert (one - other).abs().max() > 1e-2
    torch.testing.assert_close(one, again)


def test_a_map_takes_virtual_channels_to_virtual_channels():
    tokenizer, batch = build_with_subjects(), make_twins(*WHO)
    with torch.no_grad():
        weight = tokenizer.subject.fuse.rows.weight.view(2, 6, 6)
        weight[0] = torch.eye(6)
        weight[1] = torch.eye(6).flip(0)
    plain = build()
    plain.load_state_dict(tokenizer.state_dict(), strict=False)
    one, other = run(tokenizer, batch).content
    torch.testing.assert_close(one, run(plain, batch).content[0])
    torch.testing.assert_close(other, one.flip(0))


def test_a_subject_never_seen_is_refused_by_name_or_gets_the_mean():
    batch = make_twins(*WHO, "d_sub-3")
    with pytest.raises(SignalError, match=r"d_sub-3_run-1: no map .* for 2 others.*\n.*unseen: m"):
        build_with_subjects()(batch)
    tokenizer = build_with_subjects(unseen="mean")
    one, other, mean = run(tokenizer, batch).content
    torch.testing.assert_close(mean, (one + other) / 2, atol=1e-5, rtol=1e-5)


def test_a_batch_that_does_not_say_whose_it_is_is_refused():
    with pytest.raises(SignalError, match="does not say whose it is"):
        build_with_subjects()(replace(make_windows(WHO[0]), subject_code=None))


def test_what_is_compiled_gives_no_number_for_a_stranger(monkeypatch):
    tokenizer = build_with_subjects()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = run(tokenizer, make_twins(WHO[0], "d_sub-3")).content
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def test_windows_without_channels_are_absent_and_padding_spoils_no_gradient_under_a_subject_layer():
    tokenizer, batch = build_with_subjects(), make_windows(*WHO, "d_sub-3")
    batch.present[2] = False  # nobody is refused for what is not there
    batch.signal[2] = float("nan")
    grid = tokenizer(batch)
    assert not grid.content[2].any()
    weights = torch.randn(grid.content.shape, generator=torch.Generator().manual_seed(0))
    ((grid.content + grid.place) * weights).sum().backward()
    grads = {name: p.grad for name, p in tokenizer.named_parameters()}
    assert all(g is not None and g.isfinite().all() and g.any() for g in grads.values())


def test_a_subject_layer_is_exported_and_compiled():
    tokenizer, batch = build_with_subjects(), make_windows(*WHO)
    expected = run(tokenizer, batch).content
    torch.compiler.reset()
    compiled = torch.compile(tokenizer, backend="eager", fullgraph=True)
    torch.testing.assert_close(run(compiled, batch).content, expected)

    class OfTensors(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = tokenizer

        def forward(self, tensors):
            return self.tokenizer(Batch(**tensors, sfreq=50.0)).content

    tensors = {k: v for k, v in vars(batch).items() if torch.is_tensor(v)}
    with torch.no_grad():
        program = torch.export.export(OfTensors(), (tensors,), strict=False).module()
        torch.testing.assert_close(program(tensors), expected)


def test_subjects_are_those_of_the_recordings_unless_they_are_given():
    names = ["d_sub-2_run-1", "d_sub-1_run-1", "d_sub-1_run-2"]
    config = MergedPatchConfig(subject_layer=True)
    found = config.fitted(None, names)
    assert found.subjects == WHO
    assert found.fitted(None, names[:1]) == found
    with pytest.raises(ConfigError, match=r"d_sub-3: there is no row for its virtual .*\n.*unseen"):
        found.fitted(None, ["d_sub-3_run-1"])
    lenient = found.model_copy(update={"unseen": "mean"})
    assert lenient.fitted(None, ["d_sub-3_run-1"]) == lenient
    plain = MergedPatchConfig()
    assert plain.fitted(None, names) == plain


def test_a_checkpoint_knows_a_subject_to_be_tried_on():
    values = {
        "width": 16,
        "tokenizer": {
            "name": "merged_patch",
            "patch_s": 0.4,
            "subject_layer": True,
            "subjects": list(WHO),
        },
        "backbone": {"name": "transformer", "depth": 1, "n_heads": 2},
    }
    encoder = parse_config(EncoderConfig, values, where="test").build(CONTRACT)
    assert encoder.tokenizer.example()[0] == text_code(WHO[0])
    assert witness(encoder, CONTRACT).isfinite().all()


def test_a_subject_layer_without_subjects_cannot_be_built():
    with pytest.raises(ConfigError, match=r"no subject is known\n.*subject_layer: false"):
        build(subject_layer=True)

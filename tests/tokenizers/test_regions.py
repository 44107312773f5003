"""Channels that are fused: whose they are counts, their order does not, and strangers are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import plain_batch

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, SensorError, SignalError
from neurofm.sensors import text_code
from neurofm.tokenizers.du_in import DuInConfig
from neurofm.tokenizers.du_in_parts import steps_of

CONTRACT = SignalContract(sfreq=50, band_hz=(0.5, 20), window_s=2)
CHANNELS = {"d_sub-1": ("seeg:A1", "seeg:A2", "seeg:A3"), "d_sub-2": ("seeg:A1", "seeg:B1")}


def build(**values):
    torch.manual_seed(0)
    values = {"patch_s": 0.4, "channels": CHANNELS, "inner": 16, "n_heads": 2, **values}
    return DuInConfig(**values).build(CONTRACT, 16).eval()


def make_windows(*whose, names=("seeg:A1",), n_times=100, seed=0):
    shape = (len(whose), len(names))
    return plain_batch(
        torch.randn(*shape, n_times, generator=torch.Generator().manual_seed(seed)),
        kind=torch.full(shape, 5),
        located=torch.zeros(shape, dtype=torch.bool),
        sfreq=50.0,
        recording_ids=tuple(f"{subject}_run-1" for subject in whose),
        name_code=torch.tensor([text_code(name) for name in names]).expand(shape),
        subject_code=torch.tensor([text_code(subject) for subject in whose]),
    )


def content(tokenizer, batch):
    with torch.no_grad():
        return tokenizer(batch).content


def test_the_order_of_channels_has_no_say():
    tokenizer = build()
    batch = make_windows("d_sub-1", names=CHANNELS["d_sub-1"])
    order = torch.tensor([2, 0, 1])
    turned = replace(
        batch, signal=batch.signal[:, order], name_code=batch.name_code[:, order].contiguous()
    )
    torch.testing.assert_close(content(tokenizer, turned), content(tokenizer, batch))
    assert content(tokenizer, batch).shape == (1, 1, 5, 16)


def test_each_subject_has_a_map_of_its_own_and_a_montage_one_for_all():
    alike = make_windows("d_sub-1", "d_sub-2")
    alike.signal[1] = alike.signal[0]
    one, other = content(build(), alike)
    assert (one - other).abs().max() > 1e-3
    montage = build(per="montage", channels={"anyone": ("seeg:A1",)})
    one, other = content(montage, replace(alike, subject_code=None))
    assert torch.equal(one, other)


def test_a_subject_never_seen_is_refused_or_gets_the_mean():
    stranger = make_windows("d_sub-1", "d_sub-3")
    with pytest.raises(SignalError, match=r"d_sub-3_run-1: no map .* for 2 others.*\n.*unseen: m"):
        build()(stranger)
    tokenizer = build(unseen="mean")
    alike = make_windows("d_sub-1", "d_sub-2", "d_sub-3")
    alike.signal[1:] = alike.signal[0]
    rows, used = tokenizer.embed.find(alike)
    with torch.no_grad():
        one, other, mean = tokenizer.embed.fuse(alike.signal, rows, used)
    torch.testing.assert_close(mean, (one + other) / 2)


def test_channels_without_a_row_are_refused_by_number():
    names = ("seeg:A1", "seeg:C1", "seeg:A3")
    with pytest.raises(SensorError, match=r"d_sub-1_run-1: 1 of 3 channels have no row: number 1"):
        build()(make_windows("d_sub-1", names=names))
    # of a stranger what nobody has is left out, as long as something is left
    tokenizer = build(unseen="mean")
    batch = make_windows("d_sub-3", names=names)
    without = replace(batch, present=torch.tensor([[True, False, True]]))
    assert torch.equal(content(tokenizer, batch), content(tokenizer, without))
    with pytest.raises(SensorError, match="1 of 1 channels have no row"):
        tokenizer(make_windows("d_sub-3", names=("seeg:C1",)))
    with pytest.raises(SensorError, match="1 of 3 channels"):
        tokenizer(make_windows("d_sub-1", names=names))


def test_batches_that_do_not_say_whose_or_which_they_are_are_refused():
    batch = make_windows("d_sub-1")
    with pytest.raises(SignalError, match="does not say whose it is"):
        build()(replace(batch, subject_code=None))
    with pytest.raises(SignalError, match="does not carry them"):
        build()(replace(batch, name_code=None))


def test_what_is_compiled_gives_no_number_for_a_stranger(monkeypatch):
    tokenizer = build()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = content(tokenizer, make_windows("d_sub-1", "d_sub-3"))
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


class Reader:
    """Recordings of channels that are called so."""

    def __init__(self, names):
        self.names = names

    def sensors(self, recording_id):
        names = self.names[recording_id]

        class Found:
            ch_names = names
            kind = np.full(len(names), 5)

        return Found


def test_channels_are_those_of_the_recordings_unless_they_are_given():
    reader = Reader(
        {"d_sub-1_run-1": ("A1", "A2"), "d_sub-1_run-2": ("A3", "A1"), "e_sub-1": ("A1",)}
    )
    names = list(reader.names)
    found = DuInConfig().fitted(reader, names)
    assert found.channels == {"d_sub-1": ("seeg:A1", "seeg:A2", "seeg:A3"), "e_sub-1": ("seeg:A1",)}
    assert found.fitted(reader, names) == found
    assert DuInConfig().fitted(reader, names[:1], like=found) == found
    every = DuInConfig(per="montage").fitted(reader, names)
    assert every.channels == {"anyone": ("seeg:A1", "seeg:A2", "seeg:A3")}
    short = DuInConfig().fitted(reader, names[:1])
    with pytest.raises(ConfigError, match=r"d_sub-1: there is no row for seeg:A3; .*\n.*unseen: m"):
        short.fitted(reader, names[1:2])
    with pytest.raises(ConfigError, match="e_sub-1: there is no row for seeg:A1"):
        short.fitted(reader, names[2:])
    lenient = short.model_copy(update={"unseen": "mean"})
    assert lenient.fitted(reader, names[2:]) == lenient


def test_without_channels_nothing_can_be_built():
    with pytest.raises(ConfigError, match=r"no channel is known.*\n.*neurofm tokenize"):
        build(channels={})


def test_a_patch_is_split_into_about_as_many_steps_as_a_step_has_samples():
    assert [steps_of(n) for n in (100, 10, 7, 1, 64)] == [(10, 10), (2, 5), (1, 7), (1, 1), (8, 8)]

"""Embedding: MNE objects in, one vector a window out, the same as by hand."""

import mne
import numpy as np
import pytest
import torch

from neurofm import checkpoint
from neurofm.contract import SignalContract
from neurofm.embedding import _cut, embed_batch, make_batch, windows_of
from neurofm.encoder import EncoderConfig
from neurofm.errors import ConfigError, SensorError, SignalError
from neurofm.nn.pool import AttentionPool, MeanPool
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.harmonise import harmonise
from neurofm.sensors import text_code
from neurofm.signals import Entities

CONTRACT = SignalContract(sfreq=100, band_hz=(0.5, 40), window_s=4, reference={"eeg": "average"})
NAMES = ("Fz", "Cz", "Pz", "C3", "C4", "Oz")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    torch.manual_seed(0)
    values = {
        "width": 32,
        "tokenizer": {"name": "linear_patch"},
        "backbone": {"name": "transformer", "depth": 1},
    }
    encoder = EncoderConfig.model_validate(values).build(CONTRACT)
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    return checkpoint.load(checkpoint.save(path, encoder, contract=CONTRACT, provenance={}))


def brown_raw(sfreq=250.0, seconds=21.0, amplitude=1e-5, ch_names=NAMES, ch_types="eeg"):
    """Brown noise of a plausible amplitude, in volts."""
    draw = np.random.default_rng(0).standard_normal((len(ch_names), int(sfreq * seconds)))
    signal = amplitude * np.cumsum(draw, axis=1) / np.sqrt(sfreq)
    info = mne.create_info(list(ch_names), sfreq, ch_types)
    return mne.io.RawArray(signal, info, verbose="error")


def fixed_epochs(raw, duration, **kwargs):
    return mne.make_fixed_length_epochs(
        raw, duration=duration, preload=True, verbose="error", **kwargs
    )


def test_a_raw_gives_a_row_a_window(loaded):
    raw = brown_raw()
    before = raw.get_data().copy()
    found = loaded.embed(raw)
    assert found.shape == (5, 32)  # 21 s are five windows of 4 s, and a rest
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.array_equal(raw.get_data(), before)
    assert np.array_equal(loaded.embed(raw), found)
    assert np.abs(np.diff(found, axis=0)).max(1).min() > 1e-3


def test_embedding_is_what_one_does_by_hand(loaded):
    raw = brown_raw()
    recording = recording_from_raw(raw, Entities(dataset="by", subject="hand"))
    recording = harmonise(recording, CONTRACT)
    divisor = CONTRACT.divisor(recording.signal, recording.sensors.kind)
    rows = []
    for start in range(0, 2000, 400):
        window = (recording.signal[:, start : start + 400] / divisor[:, None]).clip(-15, 15)
        batch = make_batch(window[None], recording.sensors, 100.0)
        with torch.no_grad():
            rows.append(loaded.encoder(batch).content.mean((1, 2)))
    np.testing.assert_allclose(loaded.embed(raw), torch.cat(rows).numpy(), atol=1e-5)


def test_a_recording_gives_what_its_raw_gives(loaded):
    raw = brown_raw()
    recording = recording_from_raw(raw, Entities(dataset="d", subject="s"))
    assert np.array_equal(loaded.embed(recording), loaded.embed(raw))


def test_windows_know_whose_they_are_where_it_is_told():
    raw = brown_raw(seconds=5.0)
    recording = recording_from_raw(raw, Entities(dataset="d", subject="s", run="2"))
    told = [
        windows_of(recording, CONTRACT),
        windows_of(raw, CONTRACT, subject="d_sub-s"),
        windows_of(fixed_epochs(raw, 4.0), CONTRACT, subject="d_sub-s"),
    ]
    for windows in told:
        (batch,) = windows.batches(8)
        assert batch.subject_code.tolist() == [text_code("d_sub-s")]
    assert windows_of(raw, CONTRACT).subject == 0


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_batch_size_does_not_matter(loaded, batch_size):
    raw = brown_raw()
    np.testing.assert_allclose(
        loaded.embed(raw, batch_size=batch_size), loaded.embed(raw), atol=1e-5
    )


def test_the_order_of_channels_does_not_matter_but_their_names_do(loaded):
    raw = brown_raw()
    plain = loaded.embed(raw)
    np.testing.assert_allclose(
        loaded.embed(raw.copy().reorder_channels(list(NAMES[::-1]))), plain, atol=1e-4
    )
    renamed = raw.copy().rename_channels({"Fz": "Oz", "Oz": "Fz"})
    assert np.abs(loaded.embed(renamed) - plain).max() > 1e-3


def test_bad_and_non_brain_channels_have_no_say(loaded):
    raw = brown_raw(ch_names=(*NAMES, "EOG", "STI"), ch_types=["eeg"] * 6 + ["eog", "stim"])
    plain = loaded.embed(raw.copy().pick(list(NAMES)))
    np.testing.assert_allclose(loaded.embed(raw), plain, atol=1e-6)
    raw.info["bads"] = ["Cz"]
    kept = windows_of(raw, CONTRACT).sensors.ch_names
    assert kept == tuple(n for n in NAMES if n != "Cz")
    np.testing.assert_allclose(
        loaded.embed(raw), loaded.embed(raw.copy().drop_channels(["Cz"])), atol=1e-6
    )


def test_a_loud_sample_is_clipped():
    raw = brown_raw()
    raw._data[0, 1000] = 1.0
    assert np.abs(windows_of(raw, CONTRACT).signal).max() <= CONTRACT.clip


# ---------------------------------------------------------------------------------------
# Epochs


@pytest.mark.parametrize("tmax", [4.0, 4.0 - 1 / 250], ids=["with end point", "without"])
def test_epochs_give_a_row_an_epoch(loaded, tmax):
    raw = brown_raw().filter(0.5, 40, verbose="error")
    events = np.array([[0, 0, 1], [1000, 0, 1], [3100, 0, 1]])
    epochs = mne.Epochs(
        raw, events, tmin=0, tmax=tmax, baseline=None, preload=True, verbose="error"
    )
    found = loaded.embed(epochs)
    assert found.shape == (3, 32)
    # filtered whole before, the first two are the first two windows of the raw, but for edges
    windows = windows_of(raw, CONTRACT).signal[:2]
    cut = windows_of(epochs, CONTRACT).signal[:2]
    for i in np.ndindex(2, 6):
        assert np.corrcoef(windows[i][100:-100], cut[i][100:-100])[0, 1] > 0.9


def test_an_epoch_is_filtered_for_itself(loaded):
    epochs = fixed_epochs(brown_raw(), 4)
    other = epochs.copy()
    other._data[1] *= 1.5
    before, after = (windows_of(e, CONTRACT) for e in (epochs, other))
    # the scale is common to all epochs, so compare shapes
    shapes = [w.signal / w.signal.std((0, 2), keepdims=True) for w in (before, after)]
    ratio = shapes[1][0] / shapes[0][0]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-3)


def test_an_epoch_rate_that_makes_no_whole_window_is_resampled(loaded):
    raw = brown_raw(sfreq=256.25)
    windows = windows_of(fixed_epochs(raw, 4.0), CONTRACT)
    assert windows.signal.shape[1:] == (6, 400)
    assert np.isfinite(windows.signal).all()


@pytest.mark.parametrize("duration", [3.0, 5.0])
def test_epochs_of_another_length_are_refused_with_both_lengths(loaded, duration):
    epochs = fixed_epochs(brown_raw(), duration)
    with pytest.raises(
        SignalError, match=rf"epochs are {duration:g} s long, the model's windows 4 s\n.*crop"
    ):
        loaded.embed(epochs)


def test_no_epochs_left_is_said(loaded):
    with pytest.raises(SignalError, match="nothing to embed: 0 epochs of 6 brain channels"):
        loaded.embed(fixed_epochs(brown_raw(), 4)[[]])


# ---------------------------------------------------------------------------------------
# Refusals


def test_microvolts_declared_as_volts_are_refused_with_the_likely_mistake(loaded):
    raw = brown_raw(amplitude=10.0)
    message = r"eeg amplitude is .* V .*the numbers look like uV declared as V\n.*unit_scale: 1e-06"
    with pytest.raises(SignalError, match=message):
        loaded.embed(raw)
    with pytest.raises(SignalError, match=message):
        loaded.embed(fixed_epochs(raw, 4))
    right = loaded.embed(brown_raw())
    np.testing.assert_allclose(loaded.embed(raw, unit_scale=1e-6), right, atol=1e-4)
    recording = recording_from_raw(raw, Entities(dataset="d", subject="s"))
    np.testing.assert_allclose(loaded.embed(recording, unit_scale=1e-6), right, atol=1e-4)


def test_a_recording_shorter_than_a_window_is_refused(loaded):
    with pytest.raises(SignalError, match=r"3 s long, shorter than one window of 4 s"):
        loaded.embed(brown_raw(seconds=3.0))


def test_a_rate_below_twice_the_band_is_refused(loaded):
    with pytest.raises(SignalError, match="64 Hz is below twice the band"):
        loaded.embed(brown_raw(sfreq=64.0))


def test_data_without_any_position_are_refused_unless_allowed(loaded):
    raw = brown_raw(ch_names=("a1x", "a2x", "a3x"))
    with pytest.raises(SensorError, match="no channel has a position"):
        loaded.embed(raw)
    assert loaded.embed(raw, allow_unlocated=True).shape == (5, 32)


def test_kinds_that_the_contract_does_not_keep_are_refused(loaded):
    contract = CONTRACT.model_copy(update={"kinds": ("mag",), "reference": {}})
    with pytest.raises(SignalError, match="the contract keeps mag; the recording has eeg"):
        windows_of(brown_raw(), contract)


def test_a_bare_array_is_refused(loaded):
    with pytest.raises(SignalError, match=r"not ndarray\n.*RawArray"):
        loaded.embed(brown_raw().get_data())


def test_an_unknown_pool_and_an_empty_batch_are_refused(loaded):
    with pytest.raises(ConfigError, match=r"unknown pool 'men'; known: mean\n.*'mean'"):
        loaded.embed(brown_raw(), pool="men")
    with pytest.raises(ConfigError, match="batch_size is 0"):
        loaded.embed(brown_raw(), batch_size=0)


def test_a_dead_channel_is_left_out_and_named(loaded, caplog):
    raw = brown_raw()
    dead = raw.get_data()
    dead[2] = 1e-6
    rest = loaded.embed(raw.copy().drop_channels("Pz"))
    caplog.clear()
    found = loaded.embed(mne.io.RawArray(dead, raw.info, verbose="error"))
    assert "channels left out: Pz: constant" in caplog.text
    np.testing.assert_allclose(found, rest, atol=1e-5)


def test_a_channel_without_a_scale_is_refused():
    recording = harmonise(
        recording_from_raw(brown_raw(), Entities(dataset="d", subject="s")), CONTRACT
    )
    signal = recording.signal.copy()
    signal[2, : signal.shape[1] * 4 // 5] = 0
    with pytest.raises(SignalError, match="no scale can be found for Pz"):
        _cut(recording.evolve(signal=signal), CONTRACT, np.array([0]))


# ---------------------------------------------------------------------------------------
# Parts


def test_embed_batch_leaves_modes_as_they_were_and_needs_no_gradient(loaded):
    windows = windows_of(brown_raw(), CONTRACT)
    batch = next(windows.batches(3))
    encoder = EncoderConfig.model_validate(
        {"width": 16, "backbone": {"name": "transformer", "depth": 1, "n_heads": 2, "dropout": 0.5}}
    ).build(CONTRACT)
    encoder.train()
    encoder.tokenizer.eval()
    one, two = (embed_batch(encoder, batch, MeanPool()) for _ in range(2))
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert one.dtype == torch.float32
    assert encoder.training
    assert encoder.backbone.training
    assert not encoder.tokenizer.training
    assert embed_batch(encoder, batch, AttentionPool(16, 2)).shape == (3, 16)


def test_three_lines_embed_a_raw(loaded):
    import neurofm

    encoder = neurofm.load(loaded.path)
    vectors = encoder.embed(brown_raw())
    assert vectors.shape == (5, 32)

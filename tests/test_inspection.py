import numpy as np
import pytest
from stores import recording_of, write_store

from neurofm import checkpoint
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.errors import CheckpointError, ConfigError, StoreError
from neurofm.inspection import inspect
from neurofm.store.merge import merge
from neurofm.store.writer import create_store

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)


@pytest.fixture
def store(tmp_path):
    def made(subject, *names):
        draw = np.random.default_rng(int(subject))
        signal = 1e-5 * draw.standard_normal((len(names), 64 * 90))
        return recording_of(signal, names, subject=subject)

    two = made("1", "Fz", "Cz"), made("2", "Fz", "Cz", "Pz")
    return write_store(tmp_path / "store", CONTRACT, *two)


@pytest.fixture
def saved(tmp_path):
    config = {"width": 16, "backbone": {"name": "transformer", "depth": 1, "n_heads": 2}}
    encoder = EncoderConfig.model_validate(config).build(CONTRACT)
    return checkpoint.save(tmp_path / "ckpt", encoder, contract=CONTRACT, provenance={})


def test_a_store_is_summed_up_by_dataset_and_kind(store):
    text = inspect(store)
    assert "2 recordings, 0.05 h" in text
    assert '"sfreq": 64.0' in text
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["toy"]]
    assert row == ["toy", "eeg", "2", "2", "0.05", "2-3", "0"]


def test_hours_are_summed_up_by_kind(store):
    lines = [line.split() for line in inspect(store).splitlines()]
    assert ["eeg", "2", "2", "0.05", "0"] in lines
    assert "2 subjects, 2 montages" in inspect(store)


def test_every_recording_is_listed_when_asked_for(store):
    assert "toy_sub-1" not in inspect(store)
    lines = [line.split() for line in inspect(store, recordings=True).splitlines()]
    assert ["toy_sub-1", "eeg", "2", "90.0", "0"] in lines
    assert ["toy_sub-2", "eeg", "3", "90.0", "0"] in lines


def test_a_page_shows_totals_sensors_and_recordings(store, tmp_path):
    text = inspect(store, report=tmp_path / "page.html")
    assert text.endswith(f"report: {tmp_path / 'page.html'}")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 2  # a figure a montage
    assert "1 recordings, as toy_sub-1" in page
    assert "by kind" in page
    assert "toy_sub-2</td>" in page


def test_a_page_of_many_montages_and_recordings_is_bounded(store, tmp_path, monkeypatch):
    monkeypatch.setattr("neurofm.inspection.MOST_MONTAGES", 1)
    monkeypatch.setattr("neurofm.inspection.MOST_ROWS", 1)
    inspect(store, report=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 1
    assert "The 1 most common of 2 montages." in page
    assert "The first 1 of 2." in page
    assert "toy_sub-2</td>" not in page


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_sensors_are_drawn_into_a_file(store, tmp_path, suffix):
    inspect(store, plot=tmp_path / f"sensors.{suffix}")
    assert (tmp_path / f"sensors.{suffix}").stat().st_size > 2000


def test_a_figure_that_cannot_be_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"sensors\.gif: a figure ends in \.png"):
        inspect(store, plot=tmp_path / "sensors.gif")
    with pytest.raises(ConfigError, match="nowhere/sensors.png cannot be written"):
        inspect(store, plot=tmp_path / "nowhere/sensors.png")
    with pytest.raises(ConfigError, match="nowhere/page.html cannot be written"):
        inspect(store, report=tmp_path / "nowhere/page.html")
    create_store(tmp_path / "empty", CONTRACT)
    with pytest.raises(StoreError, match="empty has no recordings, so no sensors to draw"):
        inspect(tmp_path / "empty", plot=tmp_path / "sensors.png")
    assert "0 recordings" in inspect(tmp_path / "empty", report=tmp_path / "page.html")


def test_a_store_behind_a_url_is_inspected(store):
    merge([store], "memory://inspected/store")
    text = inspect("memory://inspected/store", verify=True)
    assert "store memory://inspected/store: 2 recordings" in text
    assert "verified: every sample of 2" in text
    with pytest.raises(StoreError, match="there is no store at memory://inspected/nothing"):
        inspect("memory://inspected/nothing")


def test_a_checkpoint_has_no_recordings_to_list(saved):
    with pytest.raises(ConfigError, match="is a checkpoint: it has no recordings"):
        inspect(saved, recordings=True)


def test_an_empty_store_is_described_too(tmp_path):
    create_store(tmp_path / "empty", CONTRACT)
    assert "0 recordings, 0.00 h" in inspect(tmp_path / "empty", verify=True)


def test_verifying_a_store_finds_a_flipped_bit(store):
    assert "verified: every sample of 2 recordings reads" in inspect(store, verify=True)
    shard = next(p for p in sorted(store.rglob("signal/c/*/*")) if p.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"1 fault\(s\):\n(.|\n)*toy_sub-.*\n.*neurofm remove"):
        inspect(store, verify=True)


def test_a_checkpoint_is_described_and_verified(saved):
    assert '"sfreq": 64.0' in inspect(saved)
    assert "verified: all weights load" in inspect(saved, verify=True)


def test_verifying_a_checkpoint_finds_damaged_weights(saved):
    weights = saved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    inspect(saved)
    with pytest.raises(CheckpointError, match="weights have digest"):
        inspect(saved, verify=True)

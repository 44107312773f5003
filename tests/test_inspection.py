import mne
import numpy as np
import pytest

from neurofm import checkpoint
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.errors import CheckpointError, StoreError
from neurofm.inspection import inspect
from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities, Recording
from neurofm.store.writer import commit, create_store, write_recording

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)


@pytest.fixture
def store(tmp_path):
    create_store(tmp_path / "store", CONTRACT)
    rows = []
    for subject, names in (("1", ["Fz", "Cz"]), ("2", ["Fz", "Cz", "Pz"])):
        draw = np.random.default_rng(int(subject))
        recording = Recording(
            signal=1e-5 * draw.standard_normal((len(names), 64 * 90)).astype(np.float32),
            sfreq=64.0,
            sensors=sensors_from_info(mne.create_info(names, 64.0, "eeg")),
            entities=Entities(dataset="toy", subject=subject),
        )
        rows.append(write_recording(tmp_path / "store", recording, quality={}, provenance={}))
    commit(tmp_path / "store", rows)
    return tmp_path / "store"


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


def test_an_empty_store_is_described_too(tmp_path):
    create_store(tmp_path / "empty", CONTRACT)
    assert "0 recordings, 0.00 h" in inspect(tmp_path / "empty", verify=True)


def test_verifying_a_store_finds_a_flipped_bit(store):
    assert "verified: every sample of 2 recordings reads" in inspect(store, verify=True)
    shard = next(p for p in sorted(store.rglob("signal/c/*/*")) if p.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(
        StoreError, match=r"1 fault\(s\):\n(.|\n)*toy_sub-.*\n.*delete the recordings"
    ):
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

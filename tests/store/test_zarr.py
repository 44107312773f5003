"""A store is plain Zarr: what zarr-python reads is what the direct reader reads."""

import json

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurofm.contract import SignalContract, robust_sd
from neurofm.errors import StoreError
from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Entities, Event, Recording
from neurofm.store import layout
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording

SFREQ = 100.0


def make_contract(**changes):
    return SignalContract(**{"sfreq": SFREQ, "band_hz": (0.5, 40.0), "window_s": 1.0, **changes})


def make_recording(n_channels=3, n_times=1000, subject="01", seed=0, **changes):
    rng = np.random.default_rng(seed)
    sensors = Sensors(
        ch_names=tuple(f"E{i}" for i in range(n_channels)),
        kind=np.full(n_channels, SensorKind.EEG, np.int8),
        position=rng.normal(size=(n_channels, 3)).astype(np.float32),
        orientation=np.zeros((n_channels, 3), np.float32),
        known=np.full(n_channels, Knowledge.MEASURED, np.int8),
        oriented=np.zeros(n_channels, bool),
        region=(None,) * n_channels,
    )
    fields = {
        "signal": rng.normal(scale=2e-5, size=(n_channels, n_times)).astype(np.float32),
        "sfreq": SFREQ,
        "sensors": sensors,
        "entities": Entities(dataset="set", subject=subject, session="1", task="rest", run="2"),
    }
    return Recording(**{**fields, **changes})


def write(path, *recordings, chunk_s=None, **contract):
    create_store(path, make_contract(**contract), chunk_s=chunk_s)
    commit(path, [write_recording(path, r, quality={}, provenance={}) for r in recordings])
    return open_store(path)


def plain_zarr(path, recording_id):
    """The array read with zarr alone, in SI units."""
    array = zarr.open(str(path), mode="r")[f"recordings/{recording_id}/signal"]
    return array[:].astype(np.float32) * np.asarray(array.attrs["scale"], np.float32)[:, None]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_stretch_equals_what_zarr_reads(tmp_path_factory, monkeypatch, data):
    n_channels = data.draw(st.integers(1, 5))
    n_times = data.draw(st.integers(4, 700))
    chunk = data.draw(st.integers(1, 120))
    per_shard = data.draw(st.integers(1, 9))
    monkeypatch.setattr(layout, "SHARD_BYTES", per_shard * n_channels * chunk * 2)
    path = tmp_path_factory.mktemp("store") / "s"
    recording = make_recording(n_channels, n_times, seed=data.draw(st.integers(0, 99)))
    store = write(path, recording, chunk_s=chunk / SFREQ)
    name = recording.recording_id
    whole = plain_zarr(path, name)

    for _ in range(4):
        start = data.draw(st.integers(0, n_times - 1))
        stop = data.draw(st.integers(start + 1, n_times))
        np.testing.assert_array_equal(
            store.read(name, start / SFREQ, stop / SFREQ), whole[:, start:stop]
        )


def test_the_last_chunk_may_be_short_and_the_last_shard_too(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "SHARD_BYTES", 3 * 3 * 50 * 2)
    recording = make_recording(n_times=410)
    store = write(tmp_path / "s", recording, chunk_s=0.5)
    shards = sorted((tmp_path / "s/recordings" / recording.recording_id / "signal/c/0").iterdir())
    assert [p.name for p in shards] == ["0", "1", "2"]
    whole = plain_zarr(tmp_path / "s", recording.recording_id)
    np.testing.assert_array_equal(store.recording(recording.recording_id).signal, whole)
    np.testing.assert_array_equal(
        store.read(recording.recording_id, 1.4, 3.1), whole[:, 140:310]
    )  # across both shard boundaries


def test_samples_come_back_within_half_a_count(tmp_path):
    recording = make_recording(n_times=5000)
    recording.signal[1] *= 1e-9
    store = write(tmp_path / "s", recording)
    sd = robust_sd(recording.signal)[:, None]
    error = np.abs(store.recording(recording.recording_id).signal - recording.signal)
    assert (error <= 0.501 * sd / 256).all()
    assert (error > 0.4 * sd / 256).any()  # the bound is the real one
    np.testing.assert_allclose(store.quality(recording.recording_id)["step_over_sd"], 1 / 256)


def test_a_peak_makes_counts_larger_in_its_channel_only(tmp_path):
    recording = make_recording(n_times=5000)
    sd = robust_sd(recording.signal)
    recording.signal[1, 5] = 500 * sd[1]
    store = write(tmp_path / "s", recording)
    step = np.array(store.quality(recording.recording_id)["step_over_sd"])
    np.testing.assert_allclose(step, [1 / 256, 500 / 32767, 1 / 256], rtol=1e-3)
    error = np.abs(store.recording(recording.recording_id).signal - recording.signal)
    assert (error.max(axis=1) <= 0.501 * step * sd).all()
    out = np.empty((3, 5000), np.float32)
    store.read_standard_into(recording.recording_id, 0, out)
    np.testing.assert_allclose(out[:, 6:], recording.signal[:, 6:] / sd[:, None], atol=0.01)


def test_a_sample_beyond_2000_deviations_is_held_and_counted(tmp_path):
    recording = make_recording(n_times=5000)
    recording.signal[2, 77] = -1.0
    recording.signal[2, 78:80] = 1.0
    store = write(tmp_path / "s", recording)
    assert store.quality(recording.recording_id)["saturated"] == [0, 0, 3]
    signal = store.recording(recording.recording_id).signal
    assert signal[2, 77] == -signal[2, 78]
    others = np.delete(signal[2] - recording.signal[2], [77, 78, 79])
    assert np.abs(others).max() < 0.1 * 2e-5  # the artefact did not cost the rest its precision


def test_standardised_samples_are_si_over_the_divisor_and_clipped(tmp_path):
    recording = make_recording(n_times=3000)
    recording.signal[0, 500] = 100 * recording.signal[0].std()
    store = write(tmp_path / "s", recording, clip=5.0)
    name = recording.recording_id
    out = np.empty((3, 1000), np.float32)
    store.read_standard_into(name, 250, out)
    expected = store.read(name, 2.5, 12.5) / store.divisor(name)[:, None]
    np.testing.assert_allclose(out, np.clip(expected, -5, 5), rtol=1e-5)
    assert out.max() == 5.0
    np.testing.assert_allclose(
        store.divisor(name), store.contract.divisor(recording.signal, recording.sensors.kind)
    )


def test_chunks_that_zarr_left_out_are_zeros(tmp_path):
    recording = make_recording(n_times=400)
    store = write(tmp_path / "s", recording, chunk_s=1.0)
    name = recording.recording_id
    array = zarr.open(str(tmp_path / "s"), mode="r+")[f"recordings/{name}/signal"]
    array[:, 100:200] = 0  # zarr does not write a chunk of nothing but the fill value
    store = open_store(tmp_path / "s")
    whole = plain_zarr(tmp_path / "s", name)
    assert not whole[:, 100:200].any()
    np.testing.assert_array_equal(store.recording(name).signal, whole)


def test_everything_known_of_a_recording_comes_back(tmp_path):
    events = (
        Event(onset_s=1.0, duration_s=0.5, description="BAD jump"),
        Event(onset_s=4.0, duration_s=0.0, description="left"),
    )
    recording = make_recording(events=events, history=({"step": "notch", "line_hz": 50.0},))
    create_store(tmp_path / "s", make_contract())
    row = write_recording(
        tmp_path / "s",
        recording,
        quality={"flat": np.array([1, 2]), "snr": np.float32(np.nan)},
        provenance={"source": "a/b.edf", "source_hash": "abc"},
    )
    commit(tmp_path / "s", [row])
    store = open_store(tmp_path / "s")
    name = recording.recording_id
    back = store.recording(name)
    assert (back.sensors, back.entities, back.events) == (
        recording.sensors,
        recording.entities,
        events,
    )
    assert back.history == recording.history
    assert store.quality(name)["flat"] == [1, 2]
    assert store.quality(name)["snr"] is None
    assert store.provenance(name)["source_hash"] == "abc"
    found = store.index.iloc[0].to_dict()
    assert list(found.pop("spans")) == [0.0, 1.0, 1.5, 10.0]
    assert {
        k: found[k] for k in ("recording_id", "dataset", "subject", "session", "task", "run")
    } == {
        "recording_id": "set_sub-01_ses-1_task-rest_run-2",
        "dataset": "set",
        "subject": "01",
        "session": "1",
        "task": "rest",
        "run": "2",
    }
    assert (found["kinds"], found["n_channels"], found["n_events"]) == ("eeg", 3, 2)
    assert (found["sfreq"], found["n_times"], found["duration_s"]) == (100.0, 1000, 10.0)
    assert (found["source"], found["source_hash"]) == ("a/b.edf", "abc")


def test_zarr_finds_the_contract_and_every_group(tmp_path):
    recording = make_recording()
    write(tmp_path / "s", recording)
    root = zarr.open_group(str(tmp_path / "s"), mode="r")
    assert root.attrs["neurofm_store"]["contract"] == make_contract().to_dict()
    group = root[f"recordings/{recording.recording_id}"]
    assert group.attrs["sensors"]["ch_names"] == ["E0", "E1", "E2"]
    assert dict(root["recordings"].members()).keys() == {recording.recording_id}


def test_a_layout_this_reader_does_not_know_is_refused(tmp_path):
    recording = make_recording()
    store = write(tmp_path / "s", recording)
    metadata = store.path / "recordings" / recording.recording_id / "signal/zarr.json"
    table = json.loads(metadata.read_text())
    table["codecs"][0]["configuration"]["codecs"][1] = {"name": "gzip"}
    metadata.write_text(json.dumps(table))
    with pytest.raises(StoreError, match=r"set_sub-01.*not the int16 array.*gzip"):
        open_store(tmp_path / "s").recording(recording.recording_id)

"""Writing: what is refused, and what is left when a process dies at any moment."""

import errno
import fcntl
import os

import numpy as np
import pytest

from neurofm.contract import SignalContract
from neurofm.errors import ContractError, SignalError, StoreError
from neurofm.sensors import SensorKind, Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.layout import locked
from neurofm.store.reader import open_store
from neurofm.store.staging import lock_of
from neurofm.store.writer import commit, create_store, recover, write_recording

CONTRACT = SignalContract(sfreq=100.0, band_hz=(0.5, 40.0), window_s=1.0, kinds=("eeg",))


def recording_of(subject, kind=SensorKind.EEG, sfreq=100.0, n_times=600, **changes):
    rng = np.random.default_rng(int(subject))
    sensors = Sensors(
        ch_names=("Cz", "Pz"),
        kind=np.full(2, kind, np.int8),
        position=np.zeros((2, 3), np.float32),
        orientation=np.zeros((2, 3), np.float32),
        known=np.zeros(2, np.int8),
        oriented=np.zeros(2, bool),
        region=(None, None),
    )
    fields = {
        "signal": rng.normal(scale=1e-5, size=(2, n_times)).astype(np.float32),
        "sfreq": sfreq,
        "sensors": sensors,
        "entities": Entities(dataset="d", subject=subject),
    }
    return Recording(**{**fields, **changes})


def put(path, recording):
    return write_recording(path, recording, quality={}, provenance={})


@pytest.fixture
def path(tmp_path):
    create_store(tmp_path / "store", CONTRACT)
    return tmp_path / "store"


def test_creating_twice_is_harmless(path):
    commit(path, [put(path, recording_of("1"))])
    create_store(path, CONTRACT)
    assert list(open_store(path).index["recording_id"]) == ["d_sub-1"]


def test_a_store_keeps_its_contract(path):
    other = CONTRACT.model_copy(update={"clip": 3.0})
    with pytest.raises(ContractError, match=r"the contract asked for and the store .*clip: 3\.0"):
        create_store(path, other)


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="exists and is not a neurofm store"):
        create_store(tmp_path, CONTRACT)
    with pytest.raises(StoreError, match="exists and is not a neurofm store"):
        create_store(tmp_path / "thesis.tex", CONTRACT)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_recording_counts_only_when_committed(path):
    row = put(path, recording_of("1"))
    assert len(open_store(path)) == 0
    commit(path, [row])
    assert len(open_store(path)) == 1


def test_committing_merges_and_sorts(path):
    commit(path, [put(path, recording_of("2"))])
    row = put(path, recording_of("1"))
    commit(path, [row])
    commit(path, [row])
    assert list(open_store(path).index["recording_id"]) == ["d_sub-1", "d_sub-2"]


def test_a_row_without_its_recording_is_refused(path):
    row = put(path, recording_of("1")) | {"recording_id": "ghost"}
    with pytest.raises(StoreError, match=r"ghost is not in .*\n.*write_recording before"):
        commit(path, [row])


def test_a_recording_is_written_once(path):
    put(path, recording_of("1"))
    with pytest.raises(StoreError, match=r"'d_sub-1' is in .* already\n.*tell them apart"):
        put(path, recording_of("1"))


@pytest.mark.parametrize(
    ("recording", "error", "match"),
    [
        (recording_of("1", sfreq=99.0), ContractError, "sampled at 99 Hz, the store .* at 100 Hz"),
        (recording_of("1", SensorKind.MAG), ContractError, "d_sub-1 has mag channels"),
        (recording_of("1", n_times=0), SignalError, "d_sub-1 is empty: 2 channels, 0 samples"),
    ],
)
def test_what_does_not_fit_is_refused(path, recording, error, match):
    with pytest.raises(error, match=match):
        put(path, recording)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_by_channel(path, value):
    recording = recording_of("1")
    recording.signal[1, 3] = value
    with pytest.raises(SignalError, match="infinite samples in Pz"):
        put(path, recording)


@pytest.mark.parametrize("level", [0.0, 1e-6])
def test_a_constant_channel_is_refused_by_name(path, level):
    recording = recording_of("1")
    recording.signal[0] = level
    with pytest.raises(SignalError, match="constant over most of the recording: Cz"):
        put(path, recording)


def test_a_refused_recording_leaves_nothing(path):
    before = sorted(path.rglob("*"))
    recording = recording_of("1")
    recording.signal[0, 0] = np.nan
    with pytest.raises(SignalError):
        put(path, recording)
    assert sorted(path.rglob("*")) == before


def test_a_full_disk_is_said_and_leaves_nothing(path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    before = sorted(path.rglob("*"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"d_sub-1 cannot be written .*No space left"):
        put(path, recording_of("1"))
    assert sorted(path.rglob("*")) == before


def test_killed_at_any_moment_a_store_holds_only_complete_recordings(tmp_path, maker, dies):
    outcomes, expected = set(), maker.recording("bert").signal
    for n in range(1, 60):
        path = maker.store(tmp_path / str(n), "anna")
        code = f"path = Path({str(path)!r}); commit(path, put(path, 'bert'))"
        died = dies(code, ["fsync", "open", "unlink", "rename", "replace"], n)

        store = open_store(path)
        assert store.index["recording_id"].iloc[0] == "d_sub-anna"
        for name in store.index["recording_id"]:
            assert np.isfinite(store.recording(name).signal).all()
        complete = {p.name for p in (path / "recordings").iterdir() if p.is_dir()}

        adopted = recover(path)
        store = open_store(path)
        assert store.verify() == []
        assert not list(path.rglob(".tmp-*"))
        assert set(store.index["recording_id"]) == complete
        if "d_sub-bert" not in complete:
            commit(path, maker.put(path, "bert"))
        second = open_store(path).recording("d_sub-bert").signal
        assert np.abs(second - expected).max() < 1e-7
        outcomes.add(("d_sub-bert" in complete, tuple(adopted)))
        if not died:
            break
    # dead before the rename, between rename and commit, and not at all
    assert outcomes == {(False, ()), (True, ("d_sub-bert",)), (True, ())}
    assert not died


def test_recover_spares_a_writer_that_is_alive(path):
    alive, dead = path / ".tmp-alive", path / ".tmp-dead"
    alive.mkdir()
    dead.mkdir()
    with locked(lock_of(alive)):
        recover(path)
        assert alive.exists()
        assert not dead.exists()
        assert "left by a writer" in open_store(path).verify()[0]
    recover(path)
    assert not list(path.glob(".tmp-*"))


def test_recover_in_the_middle_of_writing_takes_nothing_away(path, monkeypatch):
    """Another process may start a run on the same store at any moment."""
    moments = []

    def tidied_before(function):
        def call(*args, **kwargs):
            if not moments or not moments[-1]:
                moments.append(function.__name__)
                recover(path)
                moments.append("")
            return function(*args, **kwargs)

        return call

    names = ("mkdir", "fsync", "chmod", "rename", "unlink")
    with monkeypatch.context() as patched:
        for name in names:
            patched.setattr(os, name, tidied_before(getattr(os, name)))
        row = put(path, recording_of("1"))
    assert set(names) < set(moments)
    commit(path, [row])
    assert open_store(path).verify() == []
    assert not list(path.glob(".tmp-*"))


def test_a_lock_that_its_holder_removed_is_taken_anew(tmp_path, monkeypatch):
    def removed(file, how, flock=fcntl.flock):
        flock(file, how)
        if not opened:
            (tmp_path / "lock").unlink()
        opened.append(os.fstat(file.fileno()).st_ino)

    opened = []
    monkeypatch.setattr(fcntl, "flock", removed)
    with locked(tmp_path / "lock") as taken:
        assert taken
        assert (tmp_path / "lock").stat().st_ino == opened[-1]
    assert len(opened) == 2


def test_a_full_disk_leaves_the_old_index_and_nothing_beside_it(path, monkeypatch):
    row = put(path, recording_of("1"))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        commit(path, [row])
    assert not list(path.glob(".tmp-*"))
    assert len(open_store(path)) == 0


def test_recover_removes_what_was_to_replace_a_file(path):
    (path / ".tmp-report.csv-123").write_text("half of it")
    recover(path)
    assert not list(path.glob(".tmp-*"))


def test_recover_rebuilds_a_lost_index(path):
    rows = [put(path, recording_of(s)) for s in ("1", "2")]
    commit(path, rows)
    before = open_store(path).index
    (path / "index.parquet").unlink()
    with pytest.raises(StoreError, match=r"index.parquet is missing\n.*makes it anew"):
        open_store(path)
    assert recover(path) == ["d_sub-1", "d_sub-2"]
    assert open_store(path).index.equals(before)


def test_recover_forgets_what_was_deleted_and_leaves_what_is_damaged(path, caplog):
    commit(path, [put(path, recording_of(s)) for s in ("1", "2")])
    put(path, recording_of("3"))
    (path / "recordings/d_sub-1").rename(path.parent / "gone")
    (path / "recordings/d_sub-3/signal/c/0/0").write_bytes(b"short")
    assert recover(path) == []
    assert list(open_store(path).index["recording_id"]) == ["d_sub-2"]
    assert "dropped from the index: d_sub-1" in caplog.text
    assert "not adopted: d_sub-3: the index of shard" in caplog.text
    assert any("d_sub-3: not in the index" in line for line in open_store(path).verify())

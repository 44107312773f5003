"""Removing: gone from index and disk, or neither, at whatever moment the process dies."""

import os

import pytest

from neurofm.errors import StoreError
from neurofm.store.reader import open_store
from neurofm.store.remove import remove
from neurofm.store.writer import commit, recover


def ids(path):
    return list(open_store(path).index["recording_id"])


@pytest.fixture
def path(tmp_path, maker):
    return maker.store(tmp_path / "store", "anna", "bert", "berta")


def test_a_removed_recording_is_gone_from_index_and_disk(path):
    assert remove(path, ["d_sub-bert"]) == ("d_sub-bert",)
    assert ids(path) == ["d_sub-anna", "d_sub-berta"]
    assert not (path / "recordings/d_sub-bert").exists()
    assert not list(path.glob(".tmp-*"))
    assert open_store(path).verify() == []
    assert recover(path) == []


def test_a_pattern_takes_all_that_fit(path):
    assert remove(path, ["d_sub-b*"]) == ("d_sub-bert", "d_sub-berta")
    assert ids(path) == ["d_sub-anna"]


def test_an_id_that_fits_nothing_removes_nothing(path):
    with pytest.raises(StoreError, match=r"no recording 'd_sub-bart' in .*\n.*mean 'd_sub-bert'"):
        remove(path, ["d_sub-anna", "d_sub-bart"])
    assert len(ids(path)) == 3


def test_a_dry_run_only_tells(path):
    assert remove(path, ["*"], dry_run=True) == ("d_sub-anna", "d_sub-bert", "d_sub-berta")
    assert len(ids(path)) == 3


def test_a_removed_recording_can_be_written_again(path, maker):
    remove(path, ["d_sub-bert"])
    commit(path, maker.put(path, "bert", seed=3))
    assert len(ids(path)) == 3
    assert open_store(path).verify() == []


def test_what_was_deleted_by_hand_leaves_the_index_too(path):
    (path / "recordings/d_sub-bert").rename(path.parent / "away")
    assert remove(path, ["d_sub-bert"]) == ("d_sub-bert",)
    assert len(ids(path)) == 2


def test_a_disk_that_refuses_is_reported_and_the_store_consistent(path, monkeypatch):
    rename, calls = os.rename, []

    def refuse(source, target, *args, **kwargs):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(30, "Read-only file system")
        rename(source, target, *args, **kwargs)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(StoreError, match=r"cannot be removed from .*Read-only file system"):
        remove(path, ["d_sub-anna", "d_sub-bert"])
    assert ids(path) == ["d_sub-bert", "d_sub-berta"]
    assert open_store(path).verify() == []


def test_killed_at_any_moment_a_removal_leaves_whole_recordings_only(tmp_path, maker, dies):
    left = set()
    for n in range(1, 100):
        path = maker.store(tmp_path / str(n), "anna", "bert", "carl")
        code = f"remove({str(path)!r}, ['d_sub-anna', 'd_sub-bert'])"
        died = dies(code, ["fsync", "unlink", "rmdir", "rename", "replace"], n)
        assert recover(path) == []
        assert open_store(path).verify() == []
        assert {p.name for p in path.iterdir()} == {"index.parquet", "recordings", "zarr.json"}
        left.add(tuple(ids(path)))
        if not died:
            break
    assert not died
    assert left == {
        ("d_sub-anna", "d_sub-bert", "d_sub-carl"),
        ("d_sub-bert", "d_sub-carl"),
        ("d_sub-carl",),
    }

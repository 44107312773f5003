"""Nothing is put in place before the disk has it: a crash of the machine leaves no half file."""

import os
from pathlib import Path

import pytest
from torch import nn

from neurofm.nn.weights import write_beside_weights
from neurofm.store.merge import merge
from neurofm.store.writer import commit, create_store


@pytest.fixture
def moves(monkeypatch):
    """What is moved into place: what of it the disk has not been told of, and where it goes."""
    synced, found = set(), []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def noting(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def moving(move):
        def moved(self, target):
            parts = [self, *self.rglob("*")] if self.is_dir() else [self]
            missing = [p.name for p in parts if p.stat().st_ino not in synced]
            place = Path(target).parent.stat().st_ino
            synced.discard(place)  # it has to be told again, of the new name
            result = move(self, target)
            found.append((Path(target), missing, lambda: place in synced))
            return result

        return moved

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Path, "rename", moving(rename))
    monkeypatch.setattr(Path, "replace", moving(replace))
    return found


def check(moves, *names):
    for name in names:
        target, missing, told = next(m for m in moves if m[0].name == name)
        assert not missing, f"{target} was put in place before {missing} were on disk"
        assert told(), f"the folder of {target} was not told of it"


def test_a_recording_and_the_index_are_on_disk_before_they_have_their_names(maker, tmp_path, moves):
    create_store(tmp_path / "store", maker.contract)
    rows = maker.put(tmp_path / "store", "1")
    check(moves, "d_sub-1", "zarr.json")
    moves.clear()
    commit(tmp_path / "store", rows)
    check(moves, "index.parquet")


@pytest.mark.parametrize("link", [True, False])
def test_a_merged_recording_is_on_disk_before_it_has_its_name(maker, tmp_path, moves, link):
    source = maker.store(tmp_path / "a", "1")
    moves.clear()
    merge([source], tmp_path / "b", link=link)
    check(moves, "d_sub-1")


def test_weights_are_on_disk_before_they_have_their_name(tmp_path, moves):
    state = nn.Linear(2, 3).state_dict()
    for _ in range(2):  # the second takes the place of the first
        write_beside_weights(tmp_path / "model", "model.safetensors", state, {"config.json": "{}"})
    check([move for move in moves if move[0].name == "model"], "model")
    assert len(moves) == 3

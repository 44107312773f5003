"""Merging: everything arrives, nothing twice, and dying in between loses nothing."""

import dataclasses
import shutil

import numpy as np
import pytest
import zarr

from neurofm.errors import ContractError, StoreError
from neurofm.signals import Event
from neurofm.store.merge import merge
from neurofm.store.reader import open_store
from neurofm.store.staging import recordings_in
from neurofm.store.writer import commit, create_store, write_recording


def ids(path):
    return list(open_store(path).index["recording_id"])


def files_of(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def two(tmp_path, maker):
    return (
        maker.store(tmp_path / "a", "anna", "bert"),
        maker.store(tmp_path / "b", "carl", "dora", "emil"),
    )


@pytest.mark.parametrize("link", [True, False])
def test_a_merged_store_holds_every_recording_bit_by_bit(two, tmp_path, link):
    before = [files_of(path) for path in two]
    done = merge(two, tmp_path / "c", link=link)
    assert done.summary().endswith("c: 5 recordings added")
    merged = open_store(tmp_path / "c")
    assert merged.verify() == []
    assert ids(tmp_path / "c") == [f"d_sub-{s}" for s in ("anna", "bert", "carl", "dora", "emil")]
    for path in two:
        source = open_store(path)
        for name in source.index["recording_id"]:
            ours, theirs = merged.recording(name), source.recording(name)
            assert np.array_equal(ours.signal, theirs.signal)
            assert ours.sensors == theirs.sensors
            assert merged.provenance(name) == source.provenance(name)
            shard = f"recordings/{name}/signal/c/0/0"
            assert (tmp_path / "c" / shard).samefile(path / shard) == link
    assert [files_of(path) for path in two] == before


def test_plain_zarr_reads_a_merged_store(two, tmp_path):
    merge(two, tmp_path / "c")
    array = zarr.open(tmp_path / "c", mode="r")["recordings/d_sub-emil/signal"]
    scale = np.asarray(array.attrs["scale"], np.float32)[:, None]
    assert np.array_equal(array[:] * scale, open_store(two[1]).recording("d_sub-emil").signal)


def test_a_linked_store_outlives_its_source(two, tmp_path):
    merge(two, tmp_path / "c")
    shutil.rmtree(two[0])
    assert open_store(tmp_path / "c").verify() == []


def test_merging_into_one_of_the_stores_appends(two):
    done = merge(two, two[0])
    assert done.added == ("d_sub-carl", "d_sub-dora", "d_sub-emil")
    assert len(ids(two[0])) == 5
    assert open_store(two[0]).verify() == []


def test_merging_again_changes_nothing(two, tmp_path):
    merge(two, tmp_path / "c")
    before = files_of(tmp_path / "c")
    done = merge(two, tmp_path / "c")
    assert (done.added, len(done.same)) == ((), 5)
    assert "0 recordings added, 5 were there already" in done.summary()
    assert files_of(tmp_path / "c") == before


def test_order_and_number_of_merges_leave_no_trace(two, tmp_path):
    merge(two, tmp_path / "c")
    merge(two[1:], tmp_path / "d")
    merge(two[:1], tmp_path / "d")
    assert files_of(tmp_path / "c") == files_of(tmp_path / "d")


def test_the_same_recording_in_both_is_kept_once_wherever_it_came_from(tmp_path, maker):
    a = maker.store(tmp_path / "a", "anna", provenance={"source": "here.edf"})
    b = maker.store(tmp_path / "b", "anna", "bert", provenance={"source": "there.edf"})
    done = merge([a, b], tmp_path / "c")
    assert done.added == ("d_sub-anna", "d_sub-bert")
    assert open_store(tmp_path / "c").provenance("d_sub-anna")["source"] == "here.edf"


def test_two_names_for_the_same_bytes_are_told(tmp_path, maker):
    a = maker.store(tmp_path / "a", "anna", provenance={"source_hash": "1f"})
    b = maker.store(tmp_path / "b", "carl", provenance={"source_hash": "1f"})
    c = maker.store(tmp_path / "c", "dora", provenance={"source_hash": "2e"})
    assert merge([a, c], tmp_path / "d").twins == ()
    done = merge([b], tmp_path / "d")
    assert done.twins == (("d_sub-anna", "d_sub-carl"),)
    assert "1 pairs are made of the same bytes under two names" in done.summary()
    assert "\n  d_sub-anna = d_sub-carl" in done.summary()
    # only what this merge added
    assert merge([b], tmp_path / "d").twins == ()


def test_one_id_for_different_samples_is_refused_before_anything_is_written(tmp_path, maker):
    a = maker.store(tmp_path / "a", "anna", "bert")
    b = maker.store(tmp_path / "b", "anna", "carl", seed=1)
    match = r"1 recording id\(s\) stand for different recordings: d_sub-anna in .*a and .*b\n.*nothing was written"
    with pytest.raises(StoreError, match=match):
        merge([a, b], tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(StoreError, match="d_sub-anna in"):
        merge([b], a)
    assert ids(a) == ["d_sub-anna", "d_sub-bert"]


def put_anna(path, maker, **changes):
    create_store(path, maker.contract)
    recording = maker.recording("anna").evolve(**changes)
    commit(path, [write_recording(path, recording, quality={}, provenance={})])
    return path


def test_what_differs_in_samples_or_in_events_only_is_not_the_same(tmp_path, maker):
    a = put_anna(tmp_path / "a", maker)
    turned = put_anna(tmp_path / "b", maker, signal=-maker.recording("anna").signal)
    metadata = "recordings/d_sub-anna/signal/zarr.json"
    assert (a / metadata).read_bytes() == (turned / metadata).read_bytes()
    event = Event(onset_s=1.0, duration_s=0.0, description="x")
    marked = put_anna(tmp_path / "c", maker, events=(event,))
    for other in (turned, marked):
        with pytest.raises(StoreError, match="stand for different recordings: d_sub-anna"):
            merge([a, other], tmp_path / "d")


def test_stores_of_different_contracts_are_refused(two, tmp_path, maker):
    other = dataclasses.replace(maker, contract=maker.contract.model_copy(update={"clip": 7.0}))
    odd = other.store(tmp_path / "odd", "otto")
    with pytest.raises(ContractError, match="clip"):
        merge([two[0], odd], tmp_path / "c")
    with pytest.raises(ContractError, match="clip"):
        merge(two, odd)
    assert not (tmp_path / "c").exists()


def test_a_source_that_is_cut_off_is_refused_by_name(two, tmp_path):
    shard = two[1] / "recordings/d_sub-dora/signal/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(StoreError, match=r"d_sub-dora: its shards in .*b have \d+ bytes"):
        merge(two, tmp_path / "c")
    assert "d_sub-dora" not in recordings_in(tmp_path / "c")
    assert open_store(tmp_path / "c").verify() == []
    shard.unlink()
    with pytest.raises(StoreError, match=r"d_sub-dora: shard .* is missing"):
        merge(two, tmp_path / "c")


def test_no_store_at_all_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no store to merge was given"):
        merge([], tmp_path / "c")


def test_killed_at_any_moment_a_merge_is_completed_by_the_next(two, tmp_path, dies):
    merge(two, tmp_path / "whole")
    whole, found = files_of(tmp_path / "whole"), set()
    for n in range(1, 400, 5):
        target = tmp_path / f"killed{n}"
        code = f"merge({[str(path) for path in two]}, {str(target)!r})"
        died = dies(code, ["fsync", "link", "unlink", "rename", "replace"], n)
        if (target / "zarr.json").exists():
            for name in ids(target):
                open_store(target).recording(name)
            found.add(len(recordings_in(target)))
        merge(two, target)
        assert files_of(target) == whole
        if not died:
            break
    assert not died
    assert found == {0, 1, 2, 3, 4, 5}

"""Whoever changes what a store says of itself holds its lock meanwhile."""

import pytest

from neurofm.preprocessing import report
from neurofm.store import remove as remove_module
from neurofm.store import writer
from neurofm.store.layout import locked
from neurofm.store.remove import remove

ROW = {"dataset": "d", "path": "a.edf", "recording_id": "", "status": "refused", "reason": "no"}


@pytest.fixture
def held(monkeypatch):
    """Note, whenever a function is called, whether the store's lock is held."""
    found = []

    def watch(module, name, store):
        real = getattr(module, name)

        def call(*args, **kwargs):
            with locked(store / "zarr.json", wait=False) as free:
                found.append(not free)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)
        return found

    return watch


def test_one_process_at_a_time_changes_an_index(maker, tmp_path, held):
    path = maker.store(tmp_path / "store", "1", "2")
    found = held(writer, "change_index", path)
    writer.commit(path, maker.put(path, "3"))
    maker.put(path, "4")
    assert writer.recover(path) == ["d_sub-4"]
    held(remove_module, "change_index", path)
    remove(path, ["d_sub-1"])
    assert found == [True] * 3


def test_one_process_at_a_time_changes_a_report(maker, tmp_path, held):
    path = maker.store(tmp_path / "store", "1")
    found = held(report, "read_report", path)
    held(report, "replace_synced", path)
    report.merge_report(path, [ROW])
    assert found == [True] * 2


def test_a_report_keeps_what_other_runs_said_of_other_files(maker, tmp_path):
    path = maker.store(tmp_path / "store", "1")
    report.merge_report(path, [ROW, ROW | {"path": "b.edf"}])
    report.merge_report(
        path, [ROW | {"path": "b.edf", "reason": "another"}, ROW | {"path": "c.edf"}]
    )
    table = report.read_report(path)
    assert table["path"].tolist() == ["a.edf", "b.edf", "c.edf"]
    assert table["reason"].tolist() == ["no", "another", "no"]

"""Threads and memory of the processor while a run trains."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import pytest
import torch

from neurofm.training import processor
from neurofm.training.processor import kept_memory, torch_threads

MB = 2**20
glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc can be told what memory to keep"
)


@pytest.fixture
def untold(monkeypatch):
    """Nobody has told glibc what to keep."""
    for name in (*processor._OWN_SETTINGS, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def resident_mb() -> float:
    """Return the megabytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MB


def left_by_an_array(mb: int = 256) -> float:
    """Return the megabytes that stay with the process after an array is freed."""
    before = resident_mb()
    array = torch.ones(mb * MB // 4)
    del array
    return resident_mb() - before


def test_torch_has_its_threads_back_after_a_run():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with torch_threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


@glibc
def test_what_a_step_frees_is_kept_during_a_run_and_given_back_after_it(untold):
    before = resident_mb()
    with kept_memory():
        assert left_by_an_array() > 200
        assert abs(left_by_an_array(128)) < 50, "the next array lies where the last one lay"
    assert resident_mb() - before < 50


@glibc
def test_what_is_kept_is_given_back_when_a_run_fails(untold):
    before = resident_mb()
    with pytest.raises(ZeroDivisionError), kept_memory():
        assert left_by_an_array() > 200
        _ = 1 / 0
    assert resident_mb() - before < 50


@glibc
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
    ],
)
def test_who_has_told_glibc_what_to_keep_is_not_overruled(untold, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(processor, "_set", lambda *told: pytest.fail(f"overruled by {told}"))
    with kept_memory():
        assert torch.ones(3).sum() == 3


def test_without_glibc_a_run_trains_as_it_is(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_memory():
        assert torch.ones(3).sum() == 3

"""What a run takes of the processor: threads of torch, and memory that it keeps."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEEP = {_TRIM_THRESHOLD: -1, _MMAP_THRESHOLD: 2**30}  # -1: all that is free is kept
_USUAL = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25}  # the highest glibc itself goes to
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@contextmanager
def processor(threads: int | None) -> Iterator[None]:
    """Train while the block runs: with `torch_threads`, and with `kept_memory`."""
    with torch_threads(threads), kept_memory():
        yield


@contextmanager
def torch_threads(n: int | None) -> Iterator[None]:
    """Give torch `n` threads while the block runs; None leaves it as it is."""
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep what is freed for what comes next while the block runs, then give it back.

    A step of training frees large arrays, and glibc gives them back to the system at once, which
    clears them page by page before the next step has them again: up to a sixth of its time
    (docs/performance.md). Arrays of a gigabyte and more still come from the system.

    Nothing changes where memory is not glibc's, or where the environment sets one of glibc's
    thresholds (``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``): whoever did knows better.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, _KEEP)
    try:
        yield
    finally:
        _set(libc, _USUAL)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc and nobody has told it what to keep."""
    told = "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if told or any(name in os.environ for name in _OWN_SETTINGS):
        return None
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no library of the program itself
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def _set(libc: ctypes.CDLL, thresholds: dict[int, int]) -> None:
    for parameter, value in thresholds.items():
        libc.mallopt(parameter, value)

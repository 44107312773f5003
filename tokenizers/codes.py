"""Compute the codes of a store once, beside its signal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from neurofm.data.collate import collate
from neurofm.data.plan import WindowPlan, WindowRef
from neurofm.errors import ConfigError, SignalError
from neurofm.report.progress import progress
from neurofm.store.codes import MOST_CODES, CodesOf, StoredCodes, drop_codes, write_codes
from neurofm.store.reader import Store, open_store
from neurofm.tokenizers.saved import SavedTokenizer, architecture, load_tokenizer

MOST_SAMPLES = 1 << 19  # channels times samples that are coded at once


@dataclass(frozen=True)
class StoreCodes:
    """What there is to do in one store, or what was done.

    Attributes
    ----------
    store : str
        Its path.
    identity : str
        The tokenizer's.
    computed : tuple of str
        Recordings whose codes were missing.
    there : int
        Recordings that had them.
    without : int
        Recordings without a window that a loader would take.
    """

    store: str
    identity: str
    computed: tuple[str, ...]
    there: int
    without: int


def whose(saved: SavedTokenizer) -> CodesOf:
    """Return how the codes of a tokenizer are known in a store."""
    about = {**architecture(saved.config), "weights": saved.digest}
    return CodesOf(identity=saved.identity, about=about, n_times=saved.contract.n_times)


def stored_codes(store: Store, saved: SavedTokenizer) -> StoredCodes:
    """Return a reader of the codes that a store has of a tokenizer.

    Raises
    ------
    ContractError
        If store and tokenizer have different contracts.
    StoreError
        If a recording with windows lacks them.
    """
    store.contract.require_same(saved.contract, f"the store {store.path}", "the tokenizer")
    found = StoredCodes(store, whose(saved))
    found.require(windows_of(store))
    return found


def windows_of(store: Store) -> dict[str, list[int]]:
    """Return the first samples of all windows that ``cut: grid`` takes, of recordings with any."""
    windows = {}
    for number, name in enumerate(store.index["recording_id"]):
        if starts := grid_starts(store.index.iloc[[number]], store.contract.n_times):
            windows[name] = starts
    return windows


def grid_starts(row: pd.DataFrame, n_times: int) -> list[int]:
    """Return the first samples of a recording's windows, in order.

    Parameters
    ----------
    row : DataFrame
        Its row of an index.
    n_times : int
        Samples of a window.
    """
    budget = int(row["n_channels"].iloc[0]) * 1024
    try:
        plan = WindowPlan(row, n_times=n_times, patches=1, token_budget=budget, seed=0, cut="grid")
    except SignalError:  # no good span is as long as a window
        return []
    return sorted(ref.start for step in range(plan.steps_per_epoch) for ref in plan.batch(step))


def compute_codes(
    tokenizer: str | Path,
    stores: Sequence[str],
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dry_run: bool = False,
) -> tuple[StoreCodes, ...]:
    """Write the codes of every recording that has none of this tokenizer.

    A recording's codes are there complete or not at all; killed and run again, only what is
    missing is computed, as after recordings were added.

    Parameters
    ----------
    tokenizer : str or Path
        A folder that ``neurofm tokenize`` wrote.
    stores : sequence of str
        Their paths or URLs.
    device : "auto", "cpu" or "cuda"
        Where to compute: by default on a GPU if there is one.
    dry_run : bool
        Only tell what is missing.

    Raises
    ------
    CheckpointError
        If there is no whole tokenizer.
    ContractError
        If a store's contract is not the tokenizer's.
    ConfigError
        If the tokenizer has more codes than fit, or the device is not there.
    StoreUnwritable
        If a store cannot be written.
    """
    saved = load_tokenizer(tokenizer)
    if saved.parts.n_codes > MOST_CODES:
        raise ConfigError(
            f"{tokenizer} has {saved.parts.n_codes} codes a level; a store holds {MOST_CODES}",
            hint="train one with fewer codes, or let pretraining compute them as it goes",
        )
    opened = {path: open_store(path) for path in stores}
    for path, store in opened.items():
        store.contract.require_same(saved.contract, f"the store {path}", "the tokenizer")
    where = _device(device)
    saved.parts.to(where)
    return tuple(_of_store(path, s, saved, where, dry_run) for path, s in opened.items())


def forget_codes(tokenizer: str | Path, stores: Sequence[str]) -> dict[str, int]:
    """Delete the codes of a tokenizer; return of how many recordings, by store.

    Raises
    ------
    CheckpointError
        If there is no whole tokenizer.
    StoreUnwritable
        If they cannot be deleted.
    """
    identity = load_tokenizer(tokenizer).identity
    return {
        path: sum(
            drop_codes(store.path, name, identity) for name in store.index["recording_id"].tolist()
        )
        for path, store in ((path, open_store(path)) for path in stores)
    }


def _device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ConfigError("there is no CUDA device here", hint="use --device cpu")
    return torch.device("cuda" if there and device != "cpu" else "cpu")


def _of_store(
    path: str, store: Store, saved: SavedTokenizer, device: torch.device, dry_run: bool
) -> StoreCodes:
    mine = whose(saved)
    there, windows = StoredCodes(store, mine), windows_of(store)
    todo = [name for name in windows if not there.has(name)]
    if not dry_run:
        with progress("codes", len(todo)) as advance:
            for name in todo:
                codes = _codes(store, name, windows[name], saved, device)
                write_codes(store.path, name, mine, windows[name], codes)
                advance(1)
    return StoreCodes(
        store=path,
        identity=mine.identity,
        computed=tuple(todo),
        there=len(windows) - len(todo),
        without=len(store) - len(windows),
    )


def _codes(
    store: Store, name: str, starts: list[int], saved: SavedTokenizer, device: torch.device
) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the codes of each window, (S, P, M, Q)."""
    n_times, sfreq = store.contract.n_times, store.contract.sfreq
    at_once = max(1, MOST_SAMPLES // (len(store.sensors(name)) * n_times))
    for first in range(0, len(starts), at_once):
        refs = [WindowRef(name, start) for start in starts[first : first + at_once]]
        batch = collate(store, refs, n_times, sfreq=sfreq, scale_late=True).to(device)
        with torch.inference_mode():
            yield from saved.parts.codes_of(batch).cpu().numpy()


def codes(
    tokenizer: str | Path,
    stores: Sequence[str],
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dry_run: bool = False,
    remove: bool = False,
) -> str:
    """Do what the command does, and return what it prints.

    Parameters
    ----------
    tokenizer, stores, device, dry_run
        As in `compute_codes`.
    remove : bool
        Delete the codes of the tokenizer instead.

    Raises
    ------
    ConfigError
        If both `dry_run` and `remove` are asked for.
    """
    if remove and dry_run:
        raise ConfigError("--remove deletes, and --dry-run does not: give one of them")
    if remove:
        gone = forget_codes(tokenizer, stores)
        return "\n".join(f"{path}: codes of {n} recordings deleted" for path, n in gone.items())
    found = compute_codes(tokenizer, stores, device=device, dry_run=dry_run)
    verb = "would be computed" if dry_run else "computed"
    lines = []
    for one in found:
        without = f", {one.without} without a window" if one.without else ""
        lines.append(
            f"{one.store}: codes of {len(one.computed)} recordings {verb}, {one.there} had them"
            f"{without} (tokenizer {one.identity})"
        )
    return "\n".join(lines)

"""All trials of a task in memory, so that folds and epochs do not read the store again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from neurofm.errors import ProtocolError
from neurofm.finetune.features import trial_batches
from neurofm.finetune.trials import Trials
from neurofm.readers import WindowReader
from neurofm.signals import Batch

LIMIT_BYTES = 8 * 2**30


def load_bank(
    reader: WindowReader, trials: Trials, device: torch.device, *, limit: int = LIMIT_BYTES
) -> Batch:
    """Read every trial's standardised window into one batch, without labels.

    Parameters
    ----------
    reader : WindowReader
        The cohort.
    trials : Trials
        The windows.
    device : torch.device
        Where the batch is kept.
    limit : int
        Bytes that must suffice.

    Returns
    -------
    Batch
        One window a trial, in table order, padded to the widest montage.

    Raises
    ------
    ProtocolError
        If the windows would not fit.
    """
    used = reader.index["recording_id"].isin(trials.table["recording_id"])
    n_channels = int(reader.index.loc[used, "n_channels"].max())
    size = len(trials) * n_channels * trials.n_times * 4
    if size > limit:
        raise ProtocolError(
            f"full fine-tuning keeps all {len(trials)} trials in memory: "
            f"{size / 2**30:.1f} GiB, above the limit of {limit / 2**30:.1f} GiB",
            hint="shorten `task.window_s`, or leave adaptation `full` out",
        )
    parts = [_widened(batch, n_channels) for batch in trial_batches(reader, trials, 64)]
    tensors: dict[str, Any] = {
        f.name: torch.cat([getattr(part, f.name) for part in parts])
        for f in fields(Batch)
        if isinstance(getattr(parts[0], f.name), Tensor) and f.name != "target"
    }
    return Batch(**tensors, sfreq=parts[0].sfreq).to(device)


def rows_of(bank: Batch, rows: np.ndarray | Tensor) -> Batch:
    """Return some windows of a bank as a batch."""
    device = bank.signal.device
    index = torch.as_tensor(rows, device=device)
    chosen: dict[str, Any] = {
        f.name: value.index_select(0, index)
        for f in fields(bank)
        if isinstance(value := getattr(bank, f.name), Tensor)
    }
    return replace(bank, **chosen)


def in_batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut positions into consecutive batches."""
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _widened(batch: Batch, n_channels: int) -> Batch:
    missing = n_channels - batch.signal.shape[1]
    if not missing:
        return batch
    wider: dict[str, Any] = {
        name: pad(getattr(batch, name), (0, 0) * depth + (0, missing))
        for name, depth in (
            ("signal", 1),
            ("position", 1),
            ("orientation", 1),
            ("kind", 0),
            ("located", 0),
            ("oriented", 0),
            ("present", 0),
            ("name_code", 0),
            ("region_code", 0),
        )
        if getattr(batch, name) is not None
    }
    return replace(batch, **wider)

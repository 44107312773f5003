"""Features of all trials from a frozen encoder: computed once, cached for all folds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neurofm.config import digest_of
from neurofm.contract import SignalContract
from neurofm.data.loader import label_batches
from neurofm.data.plan import WindowRef
from neurofm.encoder import Encoder
from neurofm.errors import ProtocolError
from neurofm.finetune.covariances import shared_channels
from neurofm.finetune.encoders import Frozen
from neurofm.finetune.trials import Trials
from neurofm.nn.pool import MeanPool
from neurofm.readers import WindowReader
from neurofm.report.progress import progress
from neurofm.signals import Batch, Grid

PoolName = Literal["mean", "channels"]
BATCH_SIZE = 32


def signals_digest(reader: WindowReader, contract: SignalContract, trials: Trials) -> str:
    """Twelve characters that change when the recordings behind the trials do."""
    used = reader.index[reader.index["recording_id"].isin(trials.table["recording_id"])]
    rows = used[["recording_id", "n_times", "montage", "source_hash"]].sort_values("recording_id")
    return digest_of([contract.to_dict(), rows.astype(str).to_numpy().tolist()])


def trial_batches(reader: WindowReader, trials: Trials, batch_size: int) -> Iterator[Batch]:
    """Yield the trials' windows in table order, without their labels."""
    table = trials.table
    refs = [
        WindowRef(recording_id, int(start))
        for recording_id, start in zip(table["recording_id"], table["start"], strict=True)
    ]
    yield from label_batches(
        reader,
        refs,
        None,
        n_times=trials.n_times,
        sfreq=trials.sfreq,
        batch_size=batch_size,
    )


def trial_features(
    encoder: Encoder,
    reader: WindowReader,
    trials: Trials,
    *,
    signals: str,
    pool: PoolName,
    device: torch.device,
    cache: Path | None = None,
) -> np.ndarray:
    """Encode and pool every trial.

    Parameters
    ----------
    encoder : Encoder
        Frozen here; that nothing moved is checked.
    reader : WindowReader
        The cohort.
    trials : Trials
        The windows.
    signals : str
        `signals_digest` of the recordings.
    pool : "mean" or "channels"
        Mean over all tokens, or over time only, with the shared channels side by side.
    device : torch.device
        Where to compute.
    cache : Path, optional
        Folder of features computed before, by digest of weights, signals and windows.

    Returns
    -------
    ndarray of float32, shape (n_trials, D or C * D)
        In the order of the trials' table.

    Raises
    ------
    TrainingError
        If a weight moved.
    ProtocolError
        If features are not finite, or `pool` is ``channels`` and no channel is shared.
    """
    with Frozen(encoder) as frozen:
        path = None
        if cache is not None:
            path = cache / f"{frozen.digest}-{signals}-{trials.digest()}-{pool}.npy"
            if path.exists():
                return np.load(path, allow_pickle=False)
        features = _encode(encoder.to(device), reader, trials, pool, device)
        encoder.to("cpu")
    if not np.isfinite(features).all():
        raise ProtocolError(
            f"{int((~np.isfinite(features).all(axis=1)).sum())} trials have features that are "
            "not finite",
            hint="run `neurofm inspect --verify` on the store",
        )
    if path is not None:
        _save(path, features)
    return features


def _encode(
    encoder: Encoder, reader: WindowReader, trials: Trials, pool: PoolName, device: torch.device
) -> np.ndarray:
    order = _channel_order(reader, trials) if pool == "channels" else {}
    mean = MeanPool()
    rows: list[np.ndarray] = []
    with torch.inference_mode(), progress("features", len(trials)) as advance:
        for batch in trial_batches(reader, trials, BATCH_SIZE):
            grid = encoder(batch.to(device))
            if pool == "mean":
                pooled = mean(grid)
            else:
                pooled = _by_channel(grid, [order[r] for r in batch.recording_ids])
            rows.append(pooled.float().cpu().numpy())
            advance(len(batch))
    return np.concatenate(rows)


def _channel_order(reader: WindowReader, trials: Trials) -> dict[str, list[int]]:
    recordings = sorted(set(trials.table["recording_id"]))
    names = {r: reader.sensors(r).ch_names for r in recordings}
    shared = shared_channels(names, "probe with pool: channels")
    return {r: [names[r].index(n) for n in shared] for r in recordings}


def _by_channel(grid: Grid, order: list[list[int]]) -> Tensor:
    present = grid.present[..., None]
    total = torch.where(present, grid.content, 0.0).sum(2)
    sites = total / present.sum(2).clamp_min(1)  # (B, S, D)
    index = torch.tensor(order, device=sites.device)[..., None].expand(-1, -1, sites.shape[-1])
    return sites.gather(1, index).flatten(1)


def _save(path: Path, features: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    np.save(temporary, features, allow_pickle=False)
    temporary.replace(path)

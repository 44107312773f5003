"""How well a tokenizer gives back recordings, and what it makes of them.

B windows, C channels, N patches of L samples, S sources, K codes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from neurofm.config import Config
from neurofm.data.collate import collate
from neurofm.data.plan import WindowPlan
from neurofm.errors import SignalError
from neurofm.sensors import SensorKind, Sensors
from neurofm.signals import Batch
from neurofm.store.reader import Store
from neurofm.tokenizers.brain_parts import correlation, cut, standardise
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.patch import QUIET
from neurofm.tokenizers.reconstruction import shown
from neurofm.tokenizers.scores import MEASURES, Picture, Quality
from neurofm.tokenizers.spline import spline_matrix
from neurofm.training.seeding import step_generator

_PICTURED = 6  # channels of a picture, at most


class QualityConfig(Config):
    """How much is measured, and how.

    Parameters
    ----------
    recordings : int
        Recordings, at most, evenly over the list.
    windows : int
        Windows of each, at most.
    withhold : float
        Share of the channels of a recording that the encoder is not shown, where the tokenizer
        can give back such channels.
    """

    recordings: int = Field(default=40, ge=1)
    windows: int = Field(default=8, ge=1)
    withhold: float = Field(default=0.2, gt=0, lt=1)


@torch.no_grad()
def measure(
    config: QualityConfig,
    parts: Coder,
    stores: Mapping[str, Store],
    rows: pd.DataFrame,
    *,
    seed: int,
) -> Quality:
    """Reconstruct windows of recordings, with some channels withheld.

    Parameters
    ----------
    config : QualityConfig
        How much.
    parts : Coder
        In evaluation mode.
    stores : mapping of str to Store
        By path.
    rows : DataFrame
        Rows of their index: the recordings to choose from.
    seed : int
        Decides windows, and which channels are withheld.

    Returns
    -------
    Quality
        Scores, use of codes and pictures.

    Raises
    ------
    SignalError
        If no recording has a good window.
    """
    home = {name: store for store in stores.values() for name in store.index["recording_id"]}
    rows = rows.sort_values("recording_id")
    take = np.unique(np.linspace(0, len(rows) - 1, min(config.recordings, len(rows))).astype(int))
    counts = np.zeros((parts.n_levels, parts.n_codes), int)
    scores: list[dict[str, object]] = []
    pictures: dict[str, Picture] = {}
    skipped = []
    for i in take:
        row = rows.iloc[[i]]
        name = str(row["recording_id"].iloc[0])
        store = home[name]
        try:
            batch = _windows(store, row, config.windows, seed)
        except SignalError:
            skipped.append(name)
            continue
        generator = step_generator(seed, 0, f"withheld from {name}")
        withhold = config.withhold if parts.withholds else 0.0
        seen = shown(batch.present[:1], withhold, generator).expand(len(batch), -1)
        found = parts.rebuild(batch, seen)
        for level in range(len(counts)):
            codes = found.quantised.codes[..., level].flatten()
            counts[level] += torch.bincount(codes, minlength=counts.shape[1]).numpy()
        sensors, here = store.sensors(name), seen[0].numpy()
        signal, target = _of_one_size(found.signal, found.target)
        errors = _errors(signal, target)
        scores += _scores(name, sensors, here, errors)
        scores += _spline_scores(name, store, batch, here, errors, target.shape[-1])
        for kind in sensors.kinds:
            if kind not in pictures:
                pictures[kind] = _picture(
                    name, kind, sensors, here, target, signal, parts.looks(batch)
                )
    if not scores:
        raise SignalError("no recording has a good window, to be measured on")
    return Quality(pd.DataFrame(scores), counts, list(pictures.values()), skipped)


def _windows(store: Store, row: pd.DataFrame, most: int, seed: int) -> Batch:
    n_times, sfreq = store.contract.n_times, store.contract.sfreq
    budget = most * int(row["n_channels"].iloc[0])
    chosen = WindowPlan(row, n_times=n_times, patches=1, token_budget=budget, seed=seed)
    return collate(store, chosen.batch(0), n_times, sfreq=sfreq)


def _of_one_size(signal: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring patches (..., L) of the target to deviations of one, and the signal with them."""
    mean = target.mean(-1, keepdim=True)
    # a silent patch stays silent: what came back for it is not blown up
    size = target.std(-1, keepdim=True).clamp_min(QUIET)
    return (signal - mean) / size, (target - mean) / size


def _errors(signal: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """Return each measure by channel, (C,), of signals (B, C, N, L)."""
    window = torch.hamming_window(signal.shape[-1])
    got, wanted = (torch.fft.rfft(x * window, norm="ortho").abs() for x in (signal, target))
    spectral = (got - wanted).abs().mean((0, 2, 3)) / wanted.mean((0, 2, 3)).clamp_min(1e-6)
    power = target.square().mean((0, 2, 3)).clamp_min(1e-6)
    explained = 1 - (signal - target).square().mean((0, 2, 3)) / power
    return {
        "mae": (signal - target).abs().mean((0, 2, 3)).numpy(),
        "pearson": correlation(signal, target).mean((0, 2)).numpy(),
        "spectral": spectral.numpy(),
        "explained": explained.numpy(),
    }


def _scores(
    name: str, sensors: Sensors, seen: np.ndarray, errors: dict[str, np.ndarray]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for kind in np.unique(sensors.kind):
        for channels, which in (("seen", seen), ("withheld", ~seen)):
            at = (sensors.kind == kind) & which
            if at.any():
                rows.append(
                    _row(name, SensorKind(kind).label, channels, "tokenizer", "all", errors, at)
                )
    return rows


def _spline_scores(  # noqa: PLR0913 - one recording, as seen by two methods
    name: str,
    store: Store,
    batch: Batch,
    seen: np.ndarray,
    errors: dict[str, np.ndarray],
    length: int,
) -> list[dict[str, object]]:
    targets, matrix = spline_matrix(store.sensors(name), seen)
    if not len(targets):
        return []
    volts = torch.from_numpy(store.divisor(name)).double()[:, None]
    potential = torch.from_numpy(matrix) @ (batch.signal.double() * volts)
    # a window is standardised before it is compared: the unit does not matter, if it is not tiny
    signal = standardise(cut((potential / volts[targets]).float(), length))
    target = standardise(cut(batch.signal[:, targets], length))
    theirs = _errors(signal, target)
    ours = {key: value[targets] for key, value in errors.items()}
    every = np.ones(len(targets), bool)
    return [
        _row(name, "eeg", "withheld", "tokenizer", "both", ours, every),
        _row(name, "eeg", "withheld", "spline", "both", theirs, every),
    ]


def _row(  # noqa: PLR0913 - the columns of a table
    name: str,
    kind: str,
    channels: str,
    method: str,
    on: str,
    errors: dict[str, np.ndarray],
    at: np.ndarray,
) -> dict[str, object]:
    means = {key: float(errors[key][at].mean()) for key in MEASURES}
    keys = {"recording_id": name, "kind": kind, "channels": channels, "method": method, "on": on}
    return {**keys, "n": int(at.sum()), **means}


def _picture(  # noqa: PLR0913 - one window, as it was and as it came back
    name: str,
    kind: str,
    sensors: Sensors,
    seen: np.ndarray,
    target: Tensor,
    signal: Tensor,
    looks: Tensor | None,
) -> Picture:
    of_kind = np.flatnonzero(np.array([SensorKind(k).label == kind for k in sensors.kind]))
    half = _PICTURED // 2
    parts = [of_kind[seen[of_kind]][:half], of_kind[~seen[of_kind]][:half]]
    chosen = np.concatenate(parts)
    return Picture(
        recording_id=name,
        kind=kind,
        ch_names=tuple(sensors.ch_names[i] for i in chosen),
        seen=seen[chosen],
        target=target[0, chosen].flatten(1).numpy(),
        signal=signal[0, chosen].flatten(1).numpy(),
        sensors=sensors.select(of_kind),
        looks=None if looks is None else looks[:, of_kind].numpy(),
    )

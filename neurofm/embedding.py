"""Recordings or MNE objects in, one vector a window out: the contract applied to new data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, TypeAlias

import mne
import numpy as np
import torch
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.encoder import Encoder
from neurofm.errors import ConfigError, SignalError, unknown_name
from neurofm.nn.pool import MeanPool
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.harmonise import dropped_channels, harmonise
from neurofm.sensors import Sensors, brain_picks
from neurofm.signals import Batch, Entities, Event, Recording, subject_code

_log = logging.getLogger("neurofm")

Source: TypeAlias = mne.io.BaseRaw | mne.BaseEpochs | Recording

POOLS: dict[str, type[MeanPool]] = {"mean": MeanPool}


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Windows of one montage, standardised under a contract.

    Attributes
    ----------
    signal : ndarray of float32, shape (N, C, T)
        Unitless.
    sensors : Sensors
        The channels.
    sfreq : float
        Sampling rate in hertz.
    subject : int
        As `neurofm.signals.subject_code` has it; 0 where it is not known.
    """

    signal: np.ndarray
    sensors: Sensors
    sfreq: float
    subject: int = 0

    def __len__(self) -> int:
        return len(self.signal)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the windows in order, `batch_size` at a time."""
        for start in range(0, len(self), batch_size):
            signal = self.signal[start : start + batch_size]
            yield make_batch(signal, self.sensors, self.sfreq, subject=self.subject)


def make_batch(signal: np.ndarray, sensors: Sensors, sfreq: float, *, subject: int = 0) -> Batch:
    """Make a batch of windows that share a montage.

    Parameters
    ----------
    signal : ndarray, shape (B, C, T)
        Standardised windows.
    sensors : Sensors
        The channels.
    sfreq : float
        Sampling rate in hertz.
    subject : int
        Whose they are; 0 where that is not known.

    Returns
    -------
    Batch
        Without padding.
    """

    def share(values: np.ndarray, dtype: torch.dtype) -> Tensor:
        row = torch.as_tensor(np.ascontiguousarray(values)).to(dtype)
        return row.expand(len(signal), *row.shape)

    return Batch(
        signal=torch.as_tensor(np.ascontiguousarray(signal, np.float32)),
        position=share(sensors.position, torch.float32),
        orientation=share(sensors.orientation, torch.float32),
        kind=share(sensors.kind, torch.int64),
        located=share(sensors.located, torch.bool),
        oriented=share(sensors.oriented, torch.bool),
        present=torch.ones(signal.shape[:2], dtype=torch.bool),
        sfreq=sfreq,
        name_code=share(sensors.name_code, torch.int64),
        region_code=share(sensors.region_code, torch.int64),
        subject_code=torch.full((len(signal),), subject),
    )


def embed_batch(encoder: Encoder, batch: Batch, pool: nn.Module) -> Tensor:
    """Encode and pool windows without dropout and without gradient.

    Parameters
    ----------
    encoder : Encoder
        Left in the mode it was in.
    batch : Batch
        Standardised windows, on any device.
    pool : Module
        Grid to (B, D).

    Returns
    -------
    Tensor of float32, shape (B, D)
        On the encoder's device.
    """
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        with torch.no_grad():
            return pool(encoder(batch.to(encoder.mask_token.device))).float()
    finally:
        for module, training in modes.items():
            module.training = training


def embed(
    encoder: Encoder,
    contract: SignalContract,
    source: Source,
    *,
    pool: str = "mean",
    batch_size: int = 32,
    **reading: Any,
) -> np.ndarray:
    """Apply a contract to new data and encode them; see `Checkpoint.embed`."""
    if pool not in POOLS:
        raise unknown_name("pool", pool, POOLS)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; at least one window a batch is needed")
    windows = windows_of(source, contract, **reading)
    pooled = [embed_batch(encoder, b, POOLS[pool]()).cpu() for b in windows.batches(batch_size)]
    return torch.cat(pooled).numpy()


# ---------------------------------------------------------------------------------------
# New data under a contract


def windows_of(
    source: Source,
    contract: SignalContract,
    *,
    unit_scale: float = 1.0,
    allow_unlocated: bool = False,
    subject: str | None = None,
) -> Windows:
    """Make windows of new data exactly as preprocessing and loading make them of a store.

    Parameters
    ----------
    source : mne.io.BaseRaw, mne.BaseEpochs or Recording
        A continuous recording is tiled from its first sample and what is left at its end
        dropped; window ``i`` covers ``i * window_s`` to ``(i + 1) * window_s``, also where an
        annotation calls it bad. An epoch is a window, so it must be as long as one (the
        extra sample that MNE's ``tmax`` includes is dropped); it is filtered and resampled
        for itself, and edges of short epochs suffer: filter before cutting where that
        matters. Scale and mains are found over all epochs together.
    contract : SignalContract
        What the windows are to be.
    unit_scale : float
        Factor that brings the samples of an MNE object to volts or tesla.
    allow_unlocated : bool
        Accept an MNE object of which no channel has a position.
    subject : str, optional
        Dataset and subject as recordings of a store are named, ``dataset_sub-subject``: for
        encoders that know subjects. By default that of a `Recording`; an MNE object's is not known.

    Returns
    -------
    Windows
        With the channels that preprocessing would have kept.

    Raises
    ------
    SignalError
        If amplitudes are implausible, an epoch is not as long as a window, the recording is
        shorter than one, or no channel can be used.
    SensorError
        If nothing has a position.
    """
    reading: dict[str, Any] = {
        "unit_scale": unit_scale,
        "allow_unlocated": allow_unlocated,
        "ctf_grade": contract.ctf_grade,
    }
    if isinstance(source, Recording):
        if unit_scale != 1.0:
            source = source.evolve(signal=source.signal * np.float32(unit_scale))
        found = _tiled(source, contract)
        subject = subject or source.recording_id
    elif isinstance(source, mne.BaseEpochs):
        found = _from_epochs(source, contract, reading)
    elif isinstance(source, mne.io.BaseRaw):
        found = _tiled(recording_from_raw(source, _entities(source), **reading), contract)
    else:
        raise SignalError(
            f"embed takes an mne.io.Raw, an mne.Epochs or a Recording, not {type(source).__name__}",
            hint="wrap an array with mne.io.RawArray: units and sensors have to be known",
        )
    return replace(found, subject=subject_code(subject or ""))


def _tiled(recording: Recording, contract: SignalContract) -> Windows:
    recording = _harmonised(recording, contract)
    n = contract.n_times
    starts = np.arange(recording.n_times // n) * n
    return _cut(recording, contract, starts)


def _from_epochs(
    epochs: mne.BaseEpochs, contract: SignalContract, reading: dict[str, Any]
) -> Windows:
    sfreq = float(epochs.info["sfreq"])
    picks = brain_picks(epochs.info)
    data = epochs.get_data(picks=picks, verbose="error") if picks else np.empty((0, 0, 0))
    if not data.size:
        raise SignalError(f"nothing to embed: {len(data)} epochs of {len(picks)} brain channels")
    exact = contract.window_s * sfreq
    if not exact - 1e-6 <= data.shape[2] <= exact + 1 + 1e-6:
        raise SignalError(
            f"epochs are {data.shape[2] / sfreq:g} s long, the model's windows "
            f"{contract.window_s:g} s",
            hint=f"cut epochs of tmax - tmin = {contract.window_s:g} s, or crop them",
        )
    n = ceil(exact - 1e-6)
    info = mne.pick_info(epochs.info, picks, verbose="error")
    joined = mne.io.RawArray(np.concatenate(data[:, :, :n], axis=1), info, verbose="error")
    recording = recording_from_raw(joined, _entities(epochs), **reading)
    # edges, which no filter crosses
    cuts = (Event(onset_s=k * n / sfreq, duration_s=0.0, description="EDGE epoch")
            for k in range(1, len(data)))  # fmt: skip
    recording = _harmonised(recording.evolve(events=tuple(cuts)), contract)
    starts = np.ceil(np.arange(len(data)) * n * (contract.sfreq / sfreq) - 1e-6).astype(int)
    return _cut(recording, contract, starts)


def _harmonised(recording: Recording, contract: SignalContract) -> Recording:
    """Apply the contract, and say which channels had no part in it."""
    recording = harmonise(recording, contract)
    if dropped := dropped_channels(recording):
        reasons = "; ".join(f"{name}: {why}" for name, why in dropped.items())
        _log.warning("%s: channels left out: %s", recording.recording_id, reasons)
    return recording


def _cut(recording: Recording, contract: SignalContract, starts: np.ndarray) -> Windows:
    divisor = contract.divisor(recording.signal, recording.sensors.kind)
    if not (divisor > 0).all():
        silent = np.asarray(recording.sensors.ch_names)[~(divisor > 0)]
        raise SignalError(
            f"{recording.recording_id}: no scale can be found for {', '.join(silent)}: silent for "
            "most of the recording",
            hint="mark them bad, or crop the recording to where they were connected",
        )
    standard = recording.signal / divisor[:, None]
    np.clip(standard, -contract.clip, contract.clip, out=standard)
    pieces = np.lib.stride_tricks.sliding_window_view(standard, contract.n_times, axis=1)
    return Windows(
        signal=pieces[:, starts].swapaxes(0, 1), sensors=recording.sensors, sfreq=contract.sfreq
    )


def _entities(source: mne.io.BaseRaw | mne.BaseEpochs) -> Entities:
    """Name new data after their file, for messages."""
    filename = source.filenames[0] if isinstance(source, mne.io.BaseRaw) else source.filename
    return Entities(dataset="new", subject=Path(filename).stem if filename else "data")

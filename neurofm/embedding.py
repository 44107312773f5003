"""Recordings or MNE objects in, one vector a window out: the contract applied to new data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.encoder import Encoder
from neurofm.nn.pool import MeanPool
from neurofm.sensors import SensorKind, Sensors
from neurofm.signals import Batch

if TYPE_CHECKING:
    pass

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
    """

    signal: np.ndarray
    sensors: Sensors
    sfreq: float

    def __len__(self) -> int:
        return len(self.signal)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the windows in order, `batch_size` at a time."""
        for start in range(0, len(self), batch_size):
            yield make_batch(self.signal[start : start + batch_size], self.sensors, self.sfreq)


def make_batch(signal: np.ndarray, sensors: Sensors, sfreq: float) -> Batch:
    """Make a batch of windows that share a montage.

    Parameters
    ----------
    signal : ndarray, shape (B, C, T)
        Standardised windows.
    sensors : Sensors
        The channels.
    sfreq : float
        Sampling rate in hertz.

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


# ---------------------------------------------------------------------------------------
# The witness of a checkpoint

_WITNESS_KINDS = (
    SensorKind.EEG,
    SensorKind.EEG,
    SensorKind.MAG,
    SensorKind.GRAD_PLANAR,
    SensorKind.SEEG,
    SensorKind.ECOG,
)


def witness(encoder: Encoder, contract: SignalContract) -> Tensor:
    """Encode a fixed synthetic batch: the same weights and code give the same numbers.

    The batch holds located and unlocated, oriented and unoriented sites of several kinds,
    and padding, so that a change in how any of them is treated shows.

    Parameters
    ----------
    encoder : Encoder
        In float32.
    contract : SignalContract
        Gives rate and length of the windows.

    Returns
    -------
    Tensor of float32, shape (2, D)
        Mean-pooled output.
    """
    shape = (2, len(_WITNESS_KINDS))
    # raw bits: the one stream of numpy that is promised never to change
    bits = np.random.PCG64(20)
    draw = _uniform(bits, (*shape, contract.n_times)) * np.sqrt(12)  # unit variance
    position = _uniform(bits, (*shape, 3)) * 0.2  # a cube of 20 cm
    normal = _uniform(bits, (*shape, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    kind = torch.tensor(_WITNESS_KINDS).expand(shape)
    present = torch.ones(shape, dtype=torch.bool)
    present[1, -1] = False
    located = present.clone()
    located[:, 1] = False
    batch = Batch(
        signal=torch.from_numpy(draw).float() * present[..., None],
        position=torch.from_numpy(position).float() * located[..., None],
        orientation=torch.from_numpy(normal).float(),
        kind=kind,
        located=located,
        oriented=(kind == SensorKind.MAG) | (kind == SensorKind.GRAD_PLANAR),
        present=present,
        sfreq=contract.sfreq,
    )
    return embed_batch(encoder, batch, MeanPool())


def _uniform(bits: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(11)
    return (raw.astype(np.float64) * 2.0**-53 - 0.5).reshape(shape)

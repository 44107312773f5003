"""Spatial operators: what mixes, moves or drops channels, as one matrix a recording.

Dropping, interpolating and re-referencing channels are all ``y = matrix @ x``, sample by sample.
They are composed before anything is computed, and cost one pass however many they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from neurofm.config import Config
from neurofm.errors import SensorError
from neurofm.sensors import Sensors
from neurofm.signals import Recording

# Samples multiplied at a time when a recording is made in memory.
_BLOCK = 65_536


@dataclass(frozen=True, eq=False)
class Spatial:
    """A linear map from channels to channels: ``y = matrix @ x``.

    Attributes
    ----------
    matrix : ndarray of float64, shape (C_out, C_in)
        What each channel that comes out is made of.
    sensors : Sensors
        The channels that come out.
    step : dict
        What the recording's history remembers.
    earlier : tuple of dict
        What it remembers of the operators that this one has been composed with, first to last.

    Raises
    ------
    SensorError
        If the matrix has not one row for each sensor, or holds something that is no number.
    """

    matrix: np.ndarray
    sensors: Sensors
    step: dict[str, Any]
    earlier: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        name = self.step.get("step", "spatial operator")
        if self.matrix.ndim != 2 or len(self.matrix) != len(self.sensors):
            raise SensorError(
                f"{name}: a matrix of shape {self.matrix.shape} for {len(self.sensors)} channels"
            )
        if not np.isfinite(self.matrix).all():
            raise SensorError(f"{name}: its matrix holds values that are not finite")

    @property
    def steps(self) -> tuple[dict[str, Any], ...]:
        """Everything a history is to remember, in the order of application."""
        return (*self.earlier, self.step)

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Return ``matrix @ block`` in the block's own precision.

        Parameters
        ----------
        block : ndarray of float, shape (C_in, n)
            Samples. Channels that nothing is made of are not looked at: what is dropped may
            hold NaN.

        Returns
        -------
        ndarray, shape (C_out, n)
            A new array.
        """
        if self._picked is not None:
            return block[self._picked]
        used, parts = self._parts
        if used is not None:
            block = block[used]
        if (common := self._common) is not None:
            return np.asarray(block + common.astype(block.dtype) @ block)
        return np.asarray(parts.astype(block.dtype, copy=False) @ block)

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with these channels, its signal in memory."""
        self._require_input(len(recording.sensors), recording.recording_id)
        signal = np.empty((len(self.sensors), recording.n_times), np.float32)
        for start, block in recording.blocks(_BLOCK):
            signal[:, start : start + block.shape[1]] = self.apply(block)
        return replace(
            recording,
            signal=signal,
            sensors=self.sensors,
            history=(*recording.history, *self.steps),
        )

    def lazily(self, recording: Recording) -> Recording:
        """Return the recording with these channels, each sample mixed when it is asked for.

        Its signal slices as an array does, and holds nothing but what it was made of. Applied
        one after another, operators become one matrix.
        """
        self._require_input(len(recording.sensors), recording.recording_id)
        base, whole = recording.signal, self
        if isinstance(base, MixedSignal):
            base, whole = base.base, self.after(base.spatial)
        return replace(
            recording,
            signal=MixedSignal(base, whole),  # type: ignore[arg-type]
            sensors=self.sensors,
            history=(*recording.history, *self.steps),
        )

    def after(self, first: Spatial) -> Spatial:
        """Return the operator that does `first`, then this one."""
        self._require_input(len(first.sensors), str(first.step.get("step")))
        return Spatial(
            self.matrix @ first.matrix, self.sensors, self.step, (*first.steps, *self.earlier)
        )

    @cached_property
    def _picked(self) -> np.ndarray | None:
        """Rows to take, where the matrix does nothing but take rows."""
        n_used = (self.matrix != 0).sum(axis=1)
        if len(self.matrix) and (n_used == 1).all() and (self.matrix.max(axis=1) == 1.0).all():
            return self.matrix.argmax(axis=1)
        return None

    @cached_property
    def _parts(self) -> tuple[np.ndarray | None, np.ndarray]:
        """The channels something is made of (None for all), and the matrix from them alone."""
        used = (self.matrix != 0).any(axis=0)
        if used.all():
            return None, np.ascontiguousarray(self.matrix)
        return np.flatnonzero(used), np.ascontiguousarray(self.matrix[:, used])

    @cached_property
    def _common(self) -> np.ndarray | None:
        """What is added to every channel alike, where that is all: an average reference."""
        _, parts = self._parts
        if parts.shape[0] != parts.shape[1] or len(parts) < 2:
            return None
        common = np.roll(parts, -1, axis=0).diagonal()  # in each column, what is below the diagonal
        alike = np.allclose(parts, np.eye(len(parts)) + common, rtol=0, atol=1e-15)
        return np.array(common) if alike else None

    def _require_input(self, n_channels: int, where: str) -> None:
        if self.matrix.shape[1] != n_channels:
            raise SensorError(
                f"{where}: an operator ({self.step.get('step')}) for {self.matrix.shape[1]} "
                f"channels meets {n_channels}"
            )


class MixedSignal:
    """A signal and what is to be made of it: slices like the array ``matrix @ base``.

    Parameters
    ----------
    base : array-like of float32, shape (C_in, T)
        In memory or in a file.
    spatial : Spatial
        What its samples become.
    """

    def __init__(self, base: Any, spatial: Spatial):
        self.base = base
        self.spatial = spatial
        self.shape = (len(spatial.sensors), int(base.shape[1]))
        self.ndim = 2
        self.dtype = base.dtype
        self.remembered: dict[str, np.ndarray] = {}
        self._thin: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, times = index if isinstance(index, tuple) else (index, slice(None))
        step = times.step if times.start is None and times.stop is None else None
        if step is None or step == 1:
            return np.asarray(self._mixed(times)[rows])
        # every scale is measured on the same few samples
        if self._thin is None or self._thin[0] != step:
            self._thin = step, self._mixed(times)
        return np.asarray(self._thin[1][rows])

    def _mixed(self, times: slice) -> np.ndarray:
        return self.spatial.apply(np.asarray(self.base[:, times]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:, :].astype(dtype or self.dtype, copy=False)


def selection(sensors: Sensors, index: Sequence[int] | np.ndarray, step: dict[str, Any]) -> Spatial:
    """Return the operator that keeps the channels at `index`, in that order, and no others."""
    at = np.asarray(index, dtype=int)
    matrix = np.zeros((len(at), len(sensors)))
    matrix[np.arange(len(at)), at] = 1.0
    return Spatial(matrix, sensors.select(at), step)


class SpatialStep(Config, ABC):
    """A step that is a spatial operator, once it has seen the recording."""

    @abstractmethod
    def operator(self, recording: Recording) -> Spatial | None:
        """Return what the step does to this recording; None if nothing is to be done."""

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with the operator applied in memory."""
        spatial = self.operator(recording)
        return recording if spatial is None else spatial(recording)

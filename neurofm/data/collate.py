"""Windows together: one batch, filled in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neurofm.data.plan import WindowRef
from neurofm.errors import SensorError
from neurofm.sensors import Sensors
from neurofm.signals import Batch, WindowReader


def collate(
    reader: WindowReader,
    refs: Sequence[WindowRef],
    n_times: int,
    *,
    sfreq: float,
    targets: Sequence[int] | None = None,
    n_channels: int | None = None,
) -> Batch:
    """Read windows into one batch.

    Parameters
    ----------
    reader : WindowReader
        Where the samples are.
    refs : sequence of WindowRef
        Which windows. None makes a batch of length zero.
    n_times : int
        Samples in a window.
    sfreq : float
        Sampling rate in hertz.
    targets : sequence of int, optional
        Class of each window.
    n_channels : int, optional
        Channels of the batch; by default those of its widest montage.

    Returns
    -------
    Batch
        Freshly allocated, in pinned memory where there is a GPU to copy it to.

    Raises
    ------
    SensorError
        If a recording has more than `n_channels` channels.
    StoreError
        If a window cannot be read.
    """
    sensors = [reader.sensors(ref.recording_id) for ref in refs]
    widest = max((len(s) for s in sensors), default=n_channels or 0)
    if n_channels is not None and widest > n_channels:
        wide = next(r.recording_id for r, s in zip(refs, sensors, strict=True) if len(s) == widest)
        raise SensorError(f"{wide} has {widest} channels, more than the {n_channels} of the batch")
    shape = (len(refs), n_channels or widest)
    signal = _samples((*shape, n_times))
    samples = signal.numpy()
    for i, (ref, montage) in enumerate(zip(refs, sensors, strict=True)):
        try:
            reader.read_standard_into(ref.recording_id, ref.start, samples[i, : len(montage)])
        except Exception as error:
            error.add_note(f"while reading {ref.recording_id} from sample {ref.start}")
            raise
        samples[i, len(montage) :] = 0
    return Batch(
        signal=signal,
        **_channels(sensors, shape),
        sfreq=sfreq,
        recording_ids=tuple(ref.recording_id for ref in refs),
        start_s=tuple(ref.start / sfreq for ref in refs),
        target=None if targets is None else torch.tensor(targets, dtype=torch.int64),
    )


def _samples(shape: tuple[int, ...]) -> Tensor:
    """Return memory to read into, fresh each time: the consumer may keep a batch."""
    if torch.cuda.is_available():
        return torch.empty(shape, pin_memory=True)
    # numpy asks the system for huge pages, which torch does not
    return torch.from_numpy(np.empty(shape, np.float32))


def _channels(sensors: Sequence[Sensors], shape: tuple[int, int]) -> dict[str, Tensor]:
    """Return what is known of each channel; zeros and False where there is none."""
    table: dict[str, np.ndarray] = {
        "position": np.zeros((*shape, 3), np.float32),
        "orientation": np.zeros((*shape, 3), np.float32),
        "kind": np.zeros(shape, np.int64),
        "located": np.zeros(shape, bool),
        "oriented": np.zeros(shape, bool),
        "present": np.zeros(shape, bool),
    }
    for i, montage in enumerate(sensors):
        here = slice(len(montage))
        table["position"][i, here] = montage.position
        table["orientation"][i, here] = montage.orientation
        table["kind"][i, here] = montage.kind
        table["located"][i, here] = montage.located
        table["oriented"][i, here] = montage.oriented
        table["present"][i, here] = True
    return {name: torch.from_numpy(values) for name, values in table.items()}

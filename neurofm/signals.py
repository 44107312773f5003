"""The nouns every stage shares: recordings in SI units, batches and token grids without units.

Shape letters: B windows, C channels, T samples, S sites, P patches, D width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from neurofm.errors import ConfigError, SignalError
from neurofm.sensors import Sensors, text_code

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened: an annotation or a trigger.

    Attributes
    ----------
    onset_s : float
        Seconds from the first sample of the recording.
    duration_s : float
        Seconds; zero for a trigger.
    description : str
        The event's name.
    label : str
        The class that a map of labels made of it; empty without one.
    """

    onset_s: float
    duration_s: float
    description: str
    label: str = ""


_SAFE = re.compile(r"[^A-Za-z0-9.+]+")


@dataclass(frozen=True, kw_only=True)
class Entities:
    """Who and what a recording is, in BIDS words. Only dataset and subject must be given."""

    dataset: str
    subject: str
    session: str = ""
    task: str = ""
    run: str = ""

    def __post_init__(self) -> None:
        for name in ("dataset", "subject"):
            if not getattr(self, name):
                raise ConfigError(
                    f"a recording without a {name}",
                    hint="give it in the config: `dataset`, or a `pattern` with {subject}",
                )

    @property
    def recording_id(self) -> str:
        """A name for the recording that is safe as a folder name and unique in a store."""
        parts = [_SAFE.sub("-", self.dataset), f"sub-{_SAFE.sub('-', self.subject)}"]
        for key, value in (("ses", self.session), ("task", self.task), ("run", self.run)):
            if value:
                parts.append(f"{key}-{_SAFE.sub('-', value)}")
        return "_".join(parts)


def subject_of(recording_id: str) -> str:
    """Return dataset and subject of a recording, ``dataset_sub-subject``, from its name."""
    return "_".join(recording_id.split("_", 2)[:2])


@lru_cache(65536)
def subject_code(recording_id: str) -> int:
    """Return a number for dataset and subject of a recording, the same everywhere."""
    return text_code(subject_of(recording_id))


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """One continuous recording and what was done to it.

    Attributes
    ----------
    signal : ndarray of float32, shape (C, T)
        Samples in SI units: volts, tesla or tesla per metre, by the channel's kind.
    sfreq : float
        Sampling rate in hertz.
    sensors : Sensors
        The channels.
    entities : Entities
        Dataset, subject, session, task and run.
    events : tuple of Event
        Annotations and triggers, by onset.
    history : tuple of dict
        Every step applied, as plain values.
    """

    signal: np.ndarray
    sfreq: float
    sensors: Sensors
    entities: Entities
    events: tuple[Event, ...] = ()
    history: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.signal.ndim != 2 or self.signal.shape[0] != len(self.sensors):
            raise SignalError(
                f"{self.recording_id}: signal has shape {self.signal.shape} "
                f"for {len(self.sensors)} channels"
            )
        if self.signal.dtype != np.float32:
            raise SignalError(f"{self.recording_id}: signal is {self.signal.dtype}, not float32")
        if not self.sfreq > 0:
            raise SignalError(
                f"{self.recording_id}: sampling rate is {self.sfreq:g} Hz",
                hint="the file's header is damaged; exclude the file",
            )

    @property
    def recording_id(self) -> str:
        """The name of the recording in a store."""
        return self.entities.recording_id

    @property
    def n_times(self) -> int:
        """Number of samples."""
        return int(self.signal.shape[1])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_times / self.sfreq

    def evolve(self, step: dict[str, Any] | None = None, **changes: Any) -> Recording:
        """Return a changed copy; `step` is remembered in `history`."""
        history = self.history if step is None else (*self.history, step)
        return replace(self, history=history, **changes)

    def blocks(self, n_times: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the signal a stretch at a time: its first sample, and (C, up to n_times).

        What is computed of a recording by blocks needs memory for a block only, also where
        `signal` lies in a file and not in memory.
        """
        for start in range(0, self.n_times, n_times):
            yield start, np.asarray(self.signal[:, start : start + n_times])

    def good_spans(self) -> tuple[tuple[float, float], ...]:
        """Seconds covered by no ``BAD`` annotation, nor cut by a boundary, in order."""
        return good_spans(self.events, self.duration_s)


def good_spans(events: Iterable[Event], duration_s: float) -> tuple[tuple[float, float], ...]:
    """Return the stretches between ``BAD…`` and ``EDGE…`` events, in seconds.

    Parameters
    ----------
    events : iterable of Event
        All events of the recording. As in MNE, a description that begins with ``bad`` or
        ``edge`` (in any case) says that windows must not touch it.
    duration_s : float
        Length of the recording.

    Returns
    -------
    tuple of (float, float)
        Start and stop of each good stretch.
    """
    bad = sorted(
        (e.onset_s, e.onset_s + e.duration_s)
        for e in events
        if e.description.upper().startswith(("BAD", "EDGE"))
    )
    spans, start = [], 0.0
    for onset, stop in [*bad, (duration_s, duration_s)]:
        onset = min(onset, duration_s)
        if onset > start:
            spans.append((start, onset))
        start = max(start, stop)
    return tuple(spans)


def whole_samples(seconds: float, sfreq: float) -> int:
    """Convert seconds to a whole number of samples, or refuse.

    Raises
    ------
    ConfigError
        If `seconds` is not a positive whole number of samples at `sfreq`.
    """
    n = seconds * sfreq
    if abs(n - round(n)) > 1e-6 * max(1.0, n) or round(n) < 1:
        raise ConfigError(
            f"{seconds:g} s is {n:g} samples at {sfreq:g} Hz, not a whole number",
            hint=f"try {max(round(n), 1) / sfreq:g} s",
        )
    return round(n)


# ---------------------------------------------------------------------------------------
# Tensors


class _Movable:
    """Tensors that travel together."""

    def to(self, device: torch.device | str) -> Any:
        """Return a copy with every tensor on `device`."""
        import torch

        moved = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch(_Movable):
    """Windows of equal length; channels padded to the widest montage of the batch.

    Attributes
    ----------
    signal : Tensor of float32, shape (B, C, T)
        Standardised and clipped by the contract, hence unitless; zeros where padded. Where
        `scale` is given it is int16 counts that `to` or `standardised` has yet to scale.
    position : Tensor of float32, shape (B, C, 3)
        Metres in the head frame.
    orientation : Tensor of float32, shape (B, C, 3)
        Unit coil normals.
    kind : Tensor of int64, shape (B, C)
        `SensorKind` codes.
    located, oriented : Tensor of bool, shape (B, C)
        Where `position` and `orientation` are known.
    present : Tensor of bool, shape (B, C)
        False where a channel is padding.
    sfreq : float
        Sampling rate in hertz.
    recording_ids : tuple of str
        The recording of each window.
    start_s : tuple of float
        Where each window starts in its recording.
    target : Tensor of int64, shape (B,), optional
        Class of each window.
    scale : Tensor of float32, shape (B, C), optional
        Standard units per count.
    clip : float, optional
        Largest magnitude once scaled; given with `scale`.
    name_code, region_code : Tensor of int64, shape (B, C), optional
        What `Sensors` has under these names: for tokenizers whose places are rows of a table.
    subject_code : Tensor of int64, shape (B,), optional
        Whose each window is, as `subject_code` has it: for tokenizers that know subjects.
    codes : Tensor of int16, shape (B, S, P, M, Q), optional
        What the encoder's tokenizer makes of each window, where that was computed before.
    whole : bool
        Whether it is known that no channel is padding; `to` finds out where that costs nothing,
        and a copy with other tensors has forgotten it.
    """

    signal: Tensor
    position: Tensor
    orientation: Tensor
    kind: Tensor
    located: Tensor
    oriented: Tensor
    present: Tensor
    sfreq: float
    recording_ids: tuple[str, ...] = ()
    start_s: tuple[float, ...] = ()
    target: Tensor | None = None
    scale: Tensor | None = None
    clip: float | None = None
    name_code: Tensor | None = None
    region_code: Tensor | None = None
    subject_code: Tensor | None = None
    codes: Tensor | None = None
    whole: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return int(self.signal.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """Return a copy on `device`, standardised there: counts are half as much to move."""
        whole = self.whole or (self.present.device.type == "cpu" and bool(self.present.all()))
        moved: Batch = super().to(device).standardised()
        object.__setattr__(moved, "whole", whole)
        return moved

    def standardised(self) -> Batch:
        """Return the batch with float32 samples, whether it came as counts or not."""
        if self.scale is None:
            return self
        signal = self.signal.float().mul_(self.scale[..., None])
        if self.clip is not None:
            signal.clamp_(-self.clip, self.clip)
        return replace(self, signal=signal, scale=None, clip=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid(_Movable):
    """Tokens of a batch on a grid of sites and patches.

    Content and place are kept apart so that a masked token keeps its place.

    Attributes
    ----------
    content : Tensor, shape (B, S, P, D)
        What was measured.
    place : Tensor, shape (B, S, 1 or P, D)
        Where: an encoding of each site's position, orientation and kind.
    present : Tensor of bool, shape (B, S, P)
        False where a token is padding.
    position : Tensor of float32, shape (B, S, 3), optional
        Metres in the head frame, where sites have one.
    located : Tensor of bool, shape (B, S), optional
        Where `position` is known.
    whole : bool
        Whether it is known, without asking the device, that no token is padding.
    """

    content: Tensor
    place: Tensor
    present: Tensor
    position: Tensor | None = None
    located: Tensor | None = None
    whole: bool = False

    @property
    def tokens(self) -> Tensor:
        """Content with its place added, shape (B, S, P, D)."""
        return self.content + self.place

    @property
    def mask(self) -> Tensor | None:
        """`present` for attention; None where all are, which costs an answer from the device.

        What is compiled or exported cannot wait for one, and masks unless the grid is known to
        be `whole`.
        """
        import torch

        if self.whole:
            return None
        compiling = torch.compiler.is_compiling()
        return None if not compiling and bool(self.present.all()) else self.present

    def evolve(self, **changes: Any) -> Grid:
        """Return a copy with some tensors replaced."""
        if "present" in changes:
            changes.setdefault("whole", False)
        return replace(self, **changes)

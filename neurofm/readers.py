"""What a loader asks of whatever holds recordings: metadata in one table, samples by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from neurofm.sensors import Sensors

if TYPE_CHECKING:
    import pandas as pd


class WindowReader(Protocol):
    """What a loader asks of a store: metadata in one table, samples by position.

    A store offers it; so can anything else that holds recordings.
    """

    @property
    def index(self) -> pd.DataFrame:
        """One row a recording (see design: store)."""

    def sensors(self, recording_id: str) -> Sensors:
        """Return the channels of a recording."""

    def expect(self, windows: Sequence[tuple[str, int]], n_times: int) -> None:
        """Be told what this thread is about to read, recordings and first samples.

        What lies on a disk may be asked for all at once; nothing has to be done.
        """

    def read_standard_into(self, recording_id: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) float32 with standardised, clipped samples from `start` on."""


@runtime_checkable
class CodeReader(Protocol):
    """Codes of a tokenizer that were computed before, by position."""

    def read_codes(self, recording_id: str, start: int) -> np.ndarray:
        """Return codes (S, P, M, Q) of the window from sample `start` on, int16.

        Sites, patches, moments of a patch, levels.
        """


@runtime_checkable
class CountReader(WindowReader, Protocol):
    """A `WindowReader` whose samples are stored as counts, which may be scaled later."""

    @property
    def clip(self) -> float:
        """Largest magnitude of a standardised sample."""

    def read_counts_into(self, recording_id: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) int16 with counts from sample `start` on."""

    def standard_scale(self, recording_id: str) -> np.ndarray:
        """Return standard units per count of each channel, float32 (C,)."""

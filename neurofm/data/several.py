"""Several stores read as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd

from neurofm.errors import StoreError
from neurofm.readers import CountReader, WindowReader
from neurofm.sensors import Sensors


class SeveralReaders:
    """One `WindowReader` over others, in the order given.

    Parameters
    ----------
    readers : mapping of str to WindowReader
        Name (a store's path) and reader.

    Raises
    ------
    StoreError
        If there is none, or a recording is in more than one of them.
    """

    def __init__(self, readers: Mapping[str, WindowReader]):
        if not readers:
            raise StoreError("no store was given", hint="name at least one under `stores`")
        self._readers = tuple(readers.values())
        self._home: dict[str, WindowReader] = {}
        self._index = pd.concat([reader.index for reader in readers.values()], ignore_index=True)
        for name, reader in readers.items():
            for recording_id in reader.index["recording_id"]:
                if recording_id in self._home:
                    raise StoreError(
                        f"recording {recording_id!r} is in {name} and in a store before it",
                        hint="a recording seen twice would weigh twice; name each store once",
                    )
                self._home[recording_id] = reader

    @property
    def index(self) -> pd.DataFrame:
        """One row a recording, over all stores."""
        return self._index

    def sensors(self, recording_id: str) -> Sensors:
        """Return the channels of a recording."""
        return self._home[recording_id].sensors(recording_id)

    def expect(self, windows: Sequence[tuple[str, int]], n_times: int) -> None:
        """Tell each reader which of its windows this thread is about to read."""
        if len(self._readers) == 1:
            self._readers[0].expect(windows, n_times)
            return
        for reader in self._readers:
            reader.expect([w for w in windows if self._home[w[0]] is reader], n_times)

    def read_standard_into(self, recording_id: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) with standardised samples from `start` on."""
        self._home[recording_id].read_standard_into(recording_id, start, out)

    @property
    def forkable(self) -> bool:
        """Whether all of them may be read after a fork."""
        return all(getattr(reader, "forkable", False) for reader in self._readers)

    @property
    def clip(self) -> float:
        """Largest magnitude of a standardised sample, the same in all of them."""
        if len(self._clips) != 1:
            raise StoreError(f"the stores clip at different magnitudes: {sorted(self._clips)}")
        (clip,) = self._clips
        return clip

    @cached_property
    def _clips(self) -> set[float]:
        return {reader.clip for reader in set(self._counting.values())}

    def read_counts_into(self, recording_id: str, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) with counts from sample `start` on."""
        self._counting[recording_id].read_counts_into(recording_id, start, out)

    def standard_scale(self, recording_id: str) -> np.ndarray:
        """Return standard units per count of each channel."""
        return self._counting[recording_id].standard_scale(recording_id)

    @cached_property
    def _counting(self) -> dict[str, CountReader]:
        """The home of each recording, once it is known that all of them hold counts."""
        for reader in self._readers:
            if not isinstance(reader, CountReader):
                raise StoreError(f"a {type(reader).__name__} holds no counts")
        return cast(dict[str, CountReader], self._home)

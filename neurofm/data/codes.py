"""Readers whose windows come with codes that were computed before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neurofm.data.several import SeveralReaders
from neurofm.readers import CodeReader, WindowReader


class ReadersWithCodes(SeveralReaders):
    """Several readers as one, and the codes of their windows.

    Parameters
    ----------
    readers : mapping of str to WindowReader
        Name (a store's path) and reader.
    codes : mapping of str to CodeReader
        The codes of each, by the same names.

    Raises
    ------
    StoreError
        As `SeveralReaders`.
    """

    def __init__(self, readers: Mapping[str, WindowReader], codes: Mapping[str, CodeReader]):
        super().__init__(readers)
        self._codes = {
            recording_id: codes[name]
            for name, reader in readers.items()
            for recording_id in reader.index["recording_id"]
        }

    def read_codes(self, recording_id: str, start: int) -> np.ndarray:
        """Return codes (S, P, M, Q) of the window from sample `start` on."""
        return self._codes[recording_id].read_codes(recording_id, start)

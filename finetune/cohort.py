"""The recordings of one or several stores of one contract, with their events."""

from __future__ import annotations

from collections.abc import Sequence

from neurofm.data.several import SeveralReaders
from neurofm.signals import Event, Recording
from neurofm.store.reader import Store
from neurofm.store.several import open_stores


class Cohort(SeveralReaders):
    """Stores read as one, events and whole recordings included.

    Parameters
    ----------
    paths : sequence of str
        The stores.

    Raises
    ------
    ContractError
        If two stores have different contracts.
    StoreError
        If a store cannot be opened, or a recording is in two of them.
    """

    def __init__(self, paths: Sequence[str]):
        stores, self.contract = open_stores(paths)
        super().__init__(stores)
        self.name = " + ".join(stores)
        self._stores: dict[str, Store] = {
            recording_id: store
            for store in stores.values()
            for recording_id in store.index["recording_id"]
        }

    def events(self, recording_id: str) -> tuple[Event, ...]:
        """Return the events of a recording."""
        return self._stores[recording_id].events(recording_id)

    def recording(self, recording_id: str) -> Recording:
        """Return a whole recording in SI units."""
        return self._stores[recording_id].recording(recording_id)

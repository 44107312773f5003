"""The recordings of one or several stores of one contract, with their events."""

from __future__ import annotations

from collections.abc import Sequence

from neurofm.contract import SignalContract
from neurofm.data.several import SeveralReaders
from neurofm.signals import Event, Recording
from neurofm.store.reader import Store, open_store


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
        stores = {path: open_store(path) for path in paths}
        super().__init__(stores)
        (first, store), *others = stores.items()
        for path, other in others:
            store.contract.require_same(other.contract, first, path)
        self.name = " + ".join(stores)
        self.contract: SignalContract = store.contract
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

"""Several stores of one contract."""

from __future__ import annotations

from collections.abc import Sequence

from neurofm.contract import SignalContract
from neurofm.errors import StoreError
from neurofm.store.reader import Store, open_store


def open_stores(paths: Sequence[str]) -> tuple[dict[str, Store], SignalContract]:
    """Open stores, which must have one contract.

    Parameters
    ----------
    paths : sequence of str
        Folders or URLs.

    Returns
    -------
    dict of str to Store
        By path, in the order given.
    SignalContract
        That of all of them.

    Raises
    ------
    StoreError
        If no path is given, or a store cannot be opened.
    ContractError
        If two of them have different contracts.
    """
    if not paths:
        raise StoreError("no store was given", hint="name at least one under `stores`")
    stores = {path: open_store(path) for path in paths}
    (first, store), *others = stores.items()
    for path, other in others:
        store.contract.require_same(other.contract, first, path)
    return stores, store.contract

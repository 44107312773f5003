"""What a store says of itself, in its root group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import StoreError
from neurofm.store.layout import FORMAT, ROOT_KEY, read_json
from neurofm.store.remote import Location


def read_root(store: Location) -> tuple[dict[str, Any], SignalContract]:
    """Read what a store says of itself: (format, contract, chunk_s), and the contract parsed.

    Raises
    ------
    StoreError
        If there is no store, or one of another format.
    """
    try:
        here = (store / "zarr.json").is_file()
    except OSError as error:
        raise StoreError(
            f"the store {store} cannot be reached: {error}",
            hint="check the address, the network, and who may read there",
        ) from None
    if not here and not (isinstance(store, Path) and store.is_dir()):
        raise StoreError(
            f"there is no store at {store}",
            hint="`neurofm preprocess` makes one; is the path relative to another folder?",
        )
    if not here:
        raise StoreError(f"{store} is not a store: it has no zarr.json")
    attributes = read_json(store / "zarr.json", f"store {store}").get("attributes")
    about = attributes.get(ROOT_KEY) if isinstance(attributes, dict) else None
    if not isinstance(about, dict):
        raise StoreError(f"{store} is Zarr, but not a neurofm store")
    if about.get("format") != FORMAT:
        raise StoreError(
            f"the store {store} has format {about.get('format')!r}; this version reads {FORMAT}",
            hint="use the version of neurofm that wrote it, or preprocess the recordings again",
        )
    return about, parse_config(SignalContract, about["contract"], where=f"contract of {store}")

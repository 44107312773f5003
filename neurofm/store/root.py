"""What a store says of itself, in its root group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import StoreError
from neurofm.store.layout import FORMAT, ROOT_KEY, read_json


def read_root(store: Path) -> tuple[dict[str, Any], SignalContract]:
    """Read what a store says of itself: (format, contract, chunk_s), and the contract parsed.

    Raises
    ------
    StoreError
        If there is no store, or one of another format.
    """
    if not store.is_dir():
        raise StoreError(
            f"there is no store at {store}",
            hint="`neurofm preprocess` makes one; is the path relative to another folder?",
        )
    if not (store / "zarr.json").is_file():
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

"""BIDS: what the tables beside a recording say about it, read through mne-bids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import mne

from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import Reader
from neurofm.preprocessing.verify import companions

_RECORDING = re.compile(r"^sub-[^/]+/(?:ses-[^/]+/)?(?P<kind>eeg|meg|ieeg)/[^/]+_(?P=kind)\.[^/]+$")
_SIDECARS = (
    "channels.tsv", "events.tsv", "events.json", "electrodes.tsv", "coordsystem.json",
    "_eeg.json", "_meg.json", "_ieeg.json",
)  # fmt: skip


class BidsReader(Reader):
    """A recording of a BIDS dataset.

    Types, bad channels, electrode positions and events come from the dataset's own tables and
    win over what the file's header says.
    """

    name: Literal["bids"]

    library: ClassVar[str] = "mne-bids"

    def claims(self, inside: str) -> bool:
        """Tell whether a path is a recording of the dataset itself, not of a derivative."""
        return _RECORDING.search(inside) is not None

    def companions(self, path: Path) -> list[Path]:
        """Return the files of the recording and the tables that describe it."""
        return [*companions(path), *sidecars(path)]

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Read through mne-bids."""
        try:
            from mne_bids import get_bids_path_from_fname, read_raw_bids
        except ImportError:
            raise ConfigError(
                f"{path}: BIDS datasets need mne-bids, which is not installed",
                hint="pip install 'neurofm[bids]'",
            ) from None
        root = dataset_root(path)
        bids_path = get_bids_path_from_fname(path, check=False, verbose="error")
        bids_path.update(root=root, check=False)
        raw = read_raw_bids(bids_path, verbose="warning")
        facts.notes += _unit_notes(raw, path)
        return raw


def dataset_root(path: Path) -> Path:
    """Return the folder of the dataset a recording is in.

    Raises
    ------
    SourceError
        If no folder above it holds a ``dataset_description.json``.
    """
    for folder in path.parents:
        if (folder / "dataset_description.json").is_file():
            return folder
    raise SourceError(
        f"{path}: no folder above it holds a dataset_description.json: no BIDS dataset",
        hint="write one, or read the files without `reader: {name: bids}`",
    )


def sidecars(path: Path) -> list[Path]:
    """Return the tables that mne-bids takes into account for a recording, sorted."""
    return sorted(
        {p for p in _beside(path) if p.name.endswith(_SIDECARS + ("eeg.json", "meg.json"))}
    )


def _beside(path: Path) -> Iterator[Path]:
    """Yield tables whose entities are all entities of the recording: BIDS inheritance."""
    own = set(path.name.split(".")[0].split("_"))
    root = dataset_root(path)
    folder = path.parent
    while True:
        for table in folder.glob("*_*.*"):
            if table.suffix in (".tsv", ".json") and table.is_file():
                entities = table.name.split(".")[0].split("_")[:-1]
                if all(e in own or e.startswith("space-") for e in entities):
                    yield table
        if folder == root:
            return
        folder = folder.parent


def _unit_notes(raw: mne.io.BaseRaw, path: Path) -> list[str]:
    return []

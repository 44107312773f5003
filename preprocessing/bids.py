"""BIDS: what the tables beside a recording say about it, read through mne-bids."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import mne

from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.bids_required import names_that_differ, require_complete
from neurofm.preprocessing.bids_tables import (
    length_notes,
    participant_of,
    place_electrodes,
    read_reference,
    settle_events,
    unit_notes,
)
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import Reader
from neurofm.preprocessing.verify import companions

_RECORDING = re.compile(r"^sub-[^/]+/(?:ses-[^/]+/)?(?P<kind>eeg|meg|ieeg)/[^/]+_(?P=kind)\.[^/]+$")
_SIDECARS = (
    "channels.tsv", "events.tsv", "events.json", "electrodes.tsv", "coordsystem.json",
    "eeg.json", "meg.json", "ieeg.json",
)  # fmt: skip
_ABOUT = ("dataset_description.json", "participants.tsv", "participants.json", "README", "CHANGES")
# `split` tells the parts of one recording apart
_NAMED = ("sub", "ses", "task", "run", "split")
# what mne-bids says of sidecars that need not be there
_OPTIONAL = r"Did not find any (?:electrodes\.tsv|coordsystem\.json)|.*HED annotations"


class BidsReader(Reader):
    """A recording of a BIDS dataset.

    Types, bad channels, electrode positions, regions, reference, events and what is known of the
    person come from the dataset's own tables and win over what the file's header says.

    Parameters
    ----------
    ch_names : "match" or "table"
        What is done if ``channels.tsv`` has other names than the file: refuse the recording, or
        give the file's channels, in their order, the names of the table. The same names in
        another order are no difference.
    """

    name: Literal["bids"]
    ch_names: Literal["match", "table"] = "match"

    library: ClassVar[str] = "mne-bids"

    def claims(self, inside: str) -> bool:
        """Tell whether a path is a recording of the dataset itself, not of a derivative."""
        return super().claims(inside) and _RECORDING.search(inside) is not None

    def names(self, inside: str) -> dict[str, str]:
        """Return a run that tells apart recordings which differ in acquisition or the like."""
        entities = dict(re.findall(r"(?:^|_)([a-z]+)-([^_.]+)", inside.rpartition("/")[2]))
        more = [f"{key}-{value}" for key, value in entities.items() if key not in _NAMED]
        return {"run": "+".join([*more, entities.get("run", "")]).strip("+")} if more else {}

    def companions(self, path: Path) -> list[Path]:
        """Return the files of the recording and the tables that describe it."""
        return [*companions(path), *sidecars(path)]

    def about(self, path: Path) -> list[Path]:
        """Return what describes the dataset and the session, but not how to read this file."""
        root = dataset_root(path)
        above = [folder for folder in path.parents if folder == root or root in folder.parents]
        tables = [p for folder in above for p in folder.glob("*_s*s.*") if p.is_file()]
        return [root / name for name in _ABOUT] + tables

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Read through mne-bids; positions by the landmarks beside them.

        Raises
        ------
        ConfigError
            If mne-bids is not installed.
        SourceError
            If tables are incomplete, or name other channels than the file.
        """
        try:
            from mne_bids import get_bids_path_from_fname, read_raw_bids
        except ImportError:
            raise ConfigError(
                f"{path}: BIDS datasets need mne-bids, which is not installed",
                hint="pip install 'neurofm[bids]'",
            ) from None
        bids_path = get_bids_path_from_fname(path, check=False, verbose="error")
        root, tables = dataset_root(path), sidecars(path)
        bids_path.update(root=root, check=False)
        people = root / "participants.tsv"
        require_complete([*tables, *([people] if people.is_file() else [])])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_OPTIONAL)
            # `open_raw` tells shielded recordings from others
            fif = path.name.endswith((".fif", ".fif.gz"))
            more = {"extra_params": {"allow_maxshield": "yes"}} if fif else {}
            read = partial(read_raw_bids, bids_path, verbose="warning", **more)
            try:  # the same names in another order say the same
                raw = read(on_ch_mismatch="reorder")
            except (ValueError, RuntimeError):
                names = read(on_ch_mismatch="warn", verbose="error").ch_names
                differing = names_that_differ(names, tables)
                if not differing:
                    raise
                if self.ch_names == "match":
                    raise SourceError(
                        f"{path}: {differing}",
                        hint="correct the table, or go by it, channel by channel in the file's "
                        "order, with `reader: {name: bids, ch_names: table}`",
                    ) from None
                raw = read(on_ch_mismatch="rename")
                facts.notes.append(f"{differing}: named by the table, in its order")
        place_electrodes(raw, tables, facts)
        facts.reference = read_reference(tables)
        facts.participant = participant_of(people, bids_path.subject)
        facts.notes += unit_notes(raw, tables) + length_notes(raw, tables)
        facts.notes += settle_events(raw, tables)
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
    """Return the tables that say how to read a recording, the nearest first."""
    return [table for table in _inherited(path) if table.name.endswith(_SIDECARS)]


def _inherited(path: Path) -> Iterator[Path]:
    """Yield tables all of whose entities are the recording's: BIDS lets them lie further up."""
    own = set(path.name.split(".")[0].split("_"))
    root = dataset_root(path)
    for folder in path.parents:
        for table in sorted([*folder.glob("*.tsv"), *folder.glob("*.json")]):
            entities = table.name.split(".")[0].split("_")[:-1]
            if all(entity in own or entity.startswith("space-") for entity in entities):
                yield table
        if folder == root:
            return

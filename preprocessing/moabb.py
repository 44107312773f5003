"""MOABB: its datasets by name, a recording a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import mne
from pydantic import Field

from neurofm.config import HomePath, digest_of
from neurofm.errors import ConfigError, SourceError, unknown_name
from neurofm.files import write_atomically
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import READER_FAILURES, Reader

if TYPE_CHECKING:
    from moabb.datasets.base import BaseDataset

Value = str | int | float | bool | list[str] | list[int] | list[float]


class MoabbReader(Reader):
    """A dataset of MOABB, which downloads it where it is not there yet.

    Every run is written to a cache as FIF first, so that a run of preprocessing that is
    stopped, or repeated, loads no subject twice.

    Parameters
    ----------
    dataset : str
        Name of a class of `moabb.datasets`.
    subjects : tuple of int
        Which; by default all.
    options : dict
        What the class takes, as plain values.
    cache : str
        Folder of the cache.
    """

    name: Literal["moabb"]
    dataset: str
    subjects: tuple[int, ...] = ()
    options: dict[str, Value] = Field(default_factory=dict)
    cache: HomePath = "~/.cache/neurofm/moabb"

    library: ClassVar[str] = "MOABB"

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Open one cached run."""
        return mne.io.read_raw_fif(path, preload=False, verbose="warning")

    def runs(self) -> Iterator[tuple[Path, dict[str, str]]]:
        """Yield the file and the entities of every run, loading subjects that are not cached.

        Raises
        ------
        ConfigError
            If MOABB is not installed, or knows no such dataset.
        SourceError
            If a subject is not in it, or cannot be loaded.
        """
        dataset = open_dataset(self.dataset, self.options)
        folder = Path(self.cache) / f"{self.dataset}-{digest_of(self.options)}"
        there = [int(subject) for subject in dataset.subject_list]
        for subject in self.subjects or there:
            if subject not in there:
                raise SourceError(
                    f"{self.dataset} has no subject {subject}; it has {there[0]} to {there[-1]}"
                )
            table = folder / f"sub-{subject}.json"
            if not table.is_file():
                _load(dataset, subject, table)
            for file, entities in json.loads(table.read_text(encoding="utf-8")):
                yield folder / file, entities


def open_dataset(name: str, options: dict[str, Any]) -> BaseDataset:
    """Make a dataset of MOABB from its name.

    Raises
    ------
    ConfigError
        If MOABB is not installed, knows no such dataset, or does not take the options.
    """
    try:
        import moabb.datasets
        from moabb.datasets.base import BaseDataset
    except ImportError:
        raise ConfigError(
            f"the dataset {name!r} needs MOABB, which is not installed",
            hint="pip install 'neurofm[moabb]'",
        ) from None
    known = {
        key: value
        for key, value in vars(moabb.datasets).items()
        if isinstance(value, type) and issubclass(value, BaseDataset)
    }
    if name not in known:
        raise unknown_name("MOABB dataset", name, known)
    try:
        return known[name](**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the MOABB dataset {name!r} does not take its options: {error}",
            hint="correct `options` in the source's reader",
        ) from error


def _load(dataset: BaseDataset, subject: int, table: Path) -> None:
    from neurofm.preprocessing.memory import write_fif

    try:
        sessions = dataset.get_data(subjects=[subject])[subject]
    except READER_FAILURES as error:
        raise SourceError(
            f"MOABB cannot load subject {subject} of {type(dataset).__name__}: "
            f"{type(error).__name__}: {error}",
            hint="its data are downloaded on first use: is there a network, and room on the disk?",
        ) from error
    table.parent.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, dict[str, str]]] = []
    for session, runs in sessions.items():
        for run, raw in runs.items():
            entities = {"subject": str(subject), "session": str(session), "run": str(run)}
            file = f"sub-{subject}_{len(rows)}_raw.fif"
            begun = table.with_name(f"{os.getpid()}-{file}")
            write_fif(_with_names(raw, dataset), begun)
            begun.replace(table.with_name(file))
            rows.append((file, entities))
    write_atomically(table, json.dumps(rows))


def _with_names(raw: mne.io.BaseRaw, dataset: BaseDataset) -> mne.io.BaseRaw:
    """Return the recording with its events as annotations only, under MOABB's names."""
    stim = [raw.ch_names[i] for i in mne.pick_types(raw.info, meg=False, stim=True)]
    named = raw.copy().drop_channels(stim) if stim else raw.copy()
    if set(raw.annotations.description) & set(dataset.event_id) or not stim:
        return named
    events = mne.find_events(raw, stim_channel=stim[0], shortest_event=0, verbose="error")
    if len(events):
        names = {code: name for name, code in dataset.event_id.items()}
        made = mne.annotations_from_events(
            events, raw.info["sfreq"], event_desc=names, first_samp=raw.first_samp,
            orig_time=raw.info["meas_date"],
        )  # fmt: skip
        named.set_annotations(raw.annotations + made, verbose="error")
    return named

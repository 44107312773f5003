"""Sources: where recordings lie, which files they are, and what each is called."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from neurofm.config import Config
from neurofm.contract import KindName
from neurofm.electrodes import montage_positions
from neurofm.errors import NeurofmError, SourceError
from neurofm.preprocessing.channels import ChannelType
from neurofm.preprocessing.events import EventsConfig, companion_path
from neurofm.preprocessing.moabb import MoabbReader
from neurofm.preprocessing.naming import (
    FIELDS,
    entities_of,
    matches,
    pattern_regex,
    relative_to,
    require_text,
)
from neurofm.preprocessing.read import READER_FAILURES, AutoReader
from neurofm.preprocessing.readers import AnyReader
from neurofm.preprocessing.roles import walk
from neurofm.preprocessing.sss import SssConfig
from neurofm.preprocessing.units import Units
from neurofm.signals import Entities

# what a source says that a store made before it could be said does not know of
_LATER = ("reader", "units", "reference", "frame", "sss", "rename", "montage")

_Factor = Annotated[float, Field(gt=0)]


class SourceConfig(Config):
    """One set of files that are read alike.

    Parameters
    ----------
    root : str
        Folder of the files, relative to the config's own `root`.
    dataset : str
        Name of the data set, where it is not the config's.
    reader : Reader
        How the files are read, chosen by `name`: ``auto`` (by extension), ``bids``, ``moabb``,
        ``epochs``, ``bti``, ``kit``, ``nicolet``, ``array``, ``table`` or ``xdf``.
    include, exclude : tuple of str
        Globs over the path relative to `root`, with ``*``, ``?`` and ``**``; square brackets
        stand for themselves. By default every file with an extension that is read.
    pattern : str, optional
        Where subject, session, task and run are in the path (`naming.pattern_regex`).
        By default BIDS entities are read from the path.
    subject, session, task, run : str
        Entities that are the same for all files of the source.
    unit_scale : float or dict
        Factor that brings the samples to SI units, where a header is wrong about them; or one for
        each kind that it is wrong about.
    units : "check", "repair" or "trust"
        What is done where amplitudes are not plausible for their kind: refuse the recording and
        name the likely mistake; multiply by the power of 1000 that makes them so; or take them
        as they are. The last two are recorded.
    reference : str
        What potentials are taken against, such as ``Cz`` or ``average``, where neither channel
        names nor a file says it.
    frame : "head", "mni" or "scan", optional
        Frame of electrode positions, where no table beside the file says it. That of contacts
        inside the head, in a file without landmarks of the head, is otherwise taken for one of
        which nothing is known (``scan``).
    sss : SssConfig, optional
        Signal space separation of MEG before anything else. Recordings with internal active
        shielding (MaxShield) are refused without it.
    rename : dict
        Name of a channel in the files -> its name, such as the electrode that was plugged into
        an amplifier's input: ``{A1: Fp1}``. All that follows goes by the new names.
    montage : str, optional
        MNE's name of the cap, such as ``biosemi128``: its positions are used, and marked as a
        template, where the files have none. By default those of the 10-05 system, by name.
    channels : dict
        Channel name or glob -> type, or ``drop``: repairs what the file says.
    events : EventsConfig
        Companion files, carried labels and names of events.
    allow_unlocated : bool
        Accept recordings of which no channel has a position.
    """

    root: str = "."
    dataset: str = ""
    reader: AnyReader = AutoReader()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pattern: str | None = None
    subject: str = ""
    session: str = ""
    task: str = ""
    run: str = ""
    unit_scale: _Factor | dict[KindName, _Factor] = 1.0
    units: Units = "check"
    reference: str = ""
    frame: Literal["head", "mni", "scan"] | None = None
    sss: SssConfig | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    montage: str | None = None
    channels: dict[str, ChannelType] = Field(default_factory=dict)
    events: EventsConfig = EventsConfig()
    allow_unlocated: bool = False

    @field_validator("montage")
    @classmethod
    def _is_a_cap(cls, value: str | None) -> str | None:
        if value is not None:
            montage_positions(value)
        return value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            pattern_regex(value)
        return value

    def reading(self) -> dict[str, Any]:
        """Return, as plain values, what is done to a file of this source wherever it lies."""
        said = {"unit_scale", "channels", "events", "allow_unlocated"}
        fields = type(self).model_fields
        said |= {
            name
            for name in _LATER
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        }
        values = self.model_dump(mode="json", include=said)
        if not self.events.classes:
            del values["events"]["classes"]
        return values

    def files(self, path: Path) -> list[Path]:
        """Return every file a recording is made of, there or not; the recording first."""
        own = [] if path.is_dir() else [path]
        pattern = self.events.companion
        events = [companion_path(path, pattern)] if pattern else []
        return own + self.reader.companions(path) + events


@dataclass(frozen=True, kw_only=True)
class Found:
    """One input file, before it is opened.

    Attributes
    ----------
    path : Path
        The file, or the folder of a format that is one.
    relative : str
        Its path relative to the config's root, with forward slashes.
    source : SourceConfig
        How to read it.
    entities : Entities or None
        What it is called; None if that is not known, or if it is no recording.
    problem : NeurofmError or None
        Why it cannot be read.
    skipped : str
        Why it is no recording of its own.
    role : str
        What it is, for the report, if it is no recording: ``companion`` or ``other``.
    nothing : bool
        True if this stands for a source without files.
    """

    path: Path
    relative: str
    source: SourceConfig
    entities: Entities | None = None
    problem: NeurofmError | None = None
    skipped: str = ""
    role: str = ""
    nothing: bool = False


def discover(root: Path, dataset: str, sources: Sequence[SourceConfig]) -> list[Found]:
    """Find the files of all sources, by path.

    Nothing is opened but HDF5 files that hold several recordings, and MOABB's datasets.

    Parameters
    ----------
    root : Path
        Folder that the sources' roots are relative to.
    dataset : str
        The name of the data set.
    sources : sequence of SourceConfig
        Where to look.

    Returns
    -------
    list of Found
        Every file that a source asks for, with its entities or why it has none. Files that
        would have the same recording id all carry a problem.

    Raises
    ------
    SourceError
        If a root is not a folder, or no file is found at all.
    """
    found: list[Found] = []
    for source in sources:
        found += _of_moabb(dataset, source) or _of_folder(root, dataset, source)
    if all(item.nothing for item in found):
        raise SourceError(
            "; ".join(item.skipped for item in found),
            hint="check `root`, `include` and `exclude`",
        )
    return _refuse_duplicates(found)


def _nothing(folder: Path, source: SourceConfig) -> Found:
    globs = ", ".join(source.include) or "every extension that is read"
    without = f" without {', '.join(source.exclude)}" if source.exclude else ""
    endings = Counter(path.suffix.lower() or "no extension" for path in walk(folder))
    most = sorted(endings.items(), key=lambda item: (-item[1], item[0]))[:5]
    there = "there are " + (", ".join(f"{n} {ending}" for ending, n in most) or "none at all")
    advice = "".join(f"; {_advice(folder, glob)}" for glob in source.include[:1])
    return Found(
        path=folder,
        relative=f"{source.root}/{globs}",
        source=source,
        skipped=f"no file under {str(folder)!r} matches {globs}{without}: {there}{advice}",
        nothing=True,
    )


def _advice(folder: Path, glob: str) -> str:
    """Return what is likely meant by a glob that matches nothing."""
    if Path(glob).is_absolute():
        return "globs are relative to the source's `root`"
    if (folder / glob).is_dir():
        return f"{glob!r} is a folder: write {glob.rstrip('/')}/**"
    if any(sign in glob for sign in "[{"):
        return "brackets and braces in a glob stand for themselves: write several"
    if "/" not in glob and any(matches(p.name, (glob,)) for p in walk(folder)):
        return f"{glob!r} looks in the folder itself: write **/{glob}"
    return "`*` stays within a folder, `**/` crosses folders, and case counts"


def _of_moabb(dataset: str, source: SourceConfig) -> list[Found]:
    if not isinstance(source.reader, MoabbReader):
        return []
    name = source.dataset or dataset
    return [
        Found(
            path=path,
            relative=f"moabb/{source.reader.dataset}/{path.name}",
            source=source,
            entities=Entities(dataset=name, **{"task": source.task, **entities}),
        )
        for path, entities in source.reader.runs()
    ]


def _of_folder(root: Path, dataset: str, source: SourceConfig) -> list[Found]:
    folder = root / source.root
    if not folder.is_dir():
        raise SourceError(
            f"source root {str(folder)!r} is not a folder",
            hint="say where the recordings are: root=/path/to/them",
        )
    found: list[Found] = []
    for path in walk(folder):
        inside = path.relative_to(folder).as_posix()
        asked = matches(inside, source.include) if source.include else source.reader.claims(inside)
        if not asked or matches(inside, source.exclude):
            continue
        item = Found(path=path, relative=relative_to(path, root), source=source)
        if why := source.reader.skips(path):
            # a companion that nobody asked for by name deserves no row
            if source.include:
                found.append(replace(item, skipped=why))
            continue
        try:
            found += _named(item, inside, dataset)
        except NeurofmError as error:
            found.append(replace(item, problem=error))
    return found or [_nothing(folder, source)]


def _named(item: Found, inside: str, dataset: str) -> list[Found]:
    """Return what a file holds, each with its entities."""
    require_text(inside)
    if item.path.exists() and not (item.path.is_file() or item.path.is_dir()):
        raise SourceError(f"{item.path}: a device, pipe or socket, not a file", hint="exclude it")
    source = item.source
    try:
        parts = source.reader.parts(item.path)
    except NeurofmError:
        raise
    except READER_FAILURES as error:
        raise SourceError(
            f"{item.path}: what it holds cannot be read: {type(error).__name__}: {error}",
            hint="the file is probably damaged; get it again, or exclude it",
        ) from error
    given = {name: value for name in FIELDS if (value := getattr(source, name))}

    def entities(told: dict[str, str]) -> Entities:
        return entities_of(
            inside,
            dataset=source.dataset or dataset,
            pattern=source.pattern,
            fixed=source.reader.names(inside) | told | given,
        )

    if parts is None:
        return [replace(item, entities=entities({}))]
    return [
        replace(
            item,
            relative=f"{item.relative}::{part.name}",
            source=source.model_copy(update={"reader": part.reader}),
            entities=entities(part.entities),
        )
        for part in parts
    ]


def _refuse_duplicates(found: list[Found]) -> list[Found]:
    by_id: defaultdict[str, list[Found]] = defaultdict(list)
    for item in found:
        if item.entities is not None:
            by_id[item.entities.recording_id].append(item)
    out = []
    for item in found:
        twins = by_id[item.entities.recording_id] if item.entities else []
        if len(twins) > 1 and item.entities:
            names = ", ".join(twin.relative for twin in twins)
            problem = SourceError(
                f"{len(twins)} files have the recording id {item.entities.recording_id!r}: {names}",
                hint="tell them apart with {session} or {run} in `pattern`, or exclude one",
            )
            item = replace(item, problem=problem)
        out.append(item)
    return out

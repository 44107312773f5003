"""Recordings that are MNE objects: written down once, then read like any other."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mne

from neurofm.errors import SourceError
from neurofm.preprocessing.epochs import continuous
from neurofm.preprocessing.sources import Found, SourceConfig
from neurofm.signals import Entities

if TYPE_CHECKING:
    from neurofm.preprocessing.run import PreprocessConfig, PreprocessResult

_ID_STRUCT = 31  # a tag that tells which machine wrote the file, and when


def preprocess_raws(
    raws: Iterable[tuple[mne.io.BaseRaw | mne.BaseEpochs, Entities]], config: PreprocessConfig
) -> PreprocessResult:
    """Preprocess MNE objects instead of files.

    Parameters
    ----------
    raws : iterable of (mne.io.BaseRaw or mne.BaseEpochs, Entities)
        The recordings, and what each is called. They are not changed, and only one is needed
        at a time. Epochs follow each other with an edge between them.
    config : PreprocessConfig
        What to make of them; its first source says how they are read. `root` and what names
        files are not used.

    Returns
    -------
    PreprocessResult
        As of `run`.

    Raises
    ------
    SourceError
        If there is none, one is no such object, two have the same name, or none could be kept.
    """
    from neurofm.preprocessing.run import run

    with TemporaryDirectory(prefix="neurofm-raws-") as folder:
        return run(config, found=found_in_memory(raws, Path(folder), config.sources[0]))


def found_in_memory(
    raws: Iterable[tuple[mne.io.BaseRaw | mne.BaseEpochs, Entities]],
    folder: Path,
    source: SourceConfig,
) -> Sequence[Found]:
    """Write recordings into a folder and return what a source would have found there.

    Raises
    ------
    SourceError
        If there is none, one is no such object, or two have the same name.
    """
    found: dict[str, Found] = {}
    for item in raws:
        raw, entities = _required(item)
        name = entities.recording_id
        if name in found:
            raise SourceError(
                f"two of the recordings are called {name!r}",
                hint="tell them apart by session or run in their Entities",
            )
        path = folder / f"{name}_raw.fif"
        if isinstance(raw, mne.BaseEpochs):
            raw, _ = continuous(raw, name)
        write_fif(raw, path)
        found[name] = Found(path=path, relative=f"memory/{name}", source=source, entities=entities)
    if not found:
        raise SourceError("no recording was given")
    return list(found.values())


def _required(item: Any) -> tuple[mne.io.BaseRaw | mne.BaseEpochs, Entities]:
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Entities):
        if isinstance(item[0], mne.io.BaseRaw | mne.BaseEpochs):
            return item[0], item[1]
        what = f"{type(item[0]).__name__} of {item[1].recording_id}"
    else:
        what = type(item).__name__
    raise SourceError(
        f"a recording is a pair of an mne.io.Raw or mne.Epochs and its Entities, not {what}",
        hint="preprocess_raws([(raw, Entities(dataset='d', subject='1'))], config)",
    )


def write_fif(raw: mne.io.BaseRaw, path: Path) -> None:
    """Write a recording such that the same recording always gives the same bytes."""
    raw.save(path, fmt="double", overwrite=True, verbose="error")
    stem = path.name.removesuffix(".fif")
    for part in sorted([path, *path.parent.glob(f"{stem}-[0-9]*.fif")]):
        _forget_writing(part)


def _forget_writing(path: Path) -> None:
    """Set to zero what tells when and where a FIF file was written."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        at = 0
        while at < size:
            file.seek(at)
            _, kind, n_bytes, following = struct.unpack(">iiii", file.read(16))
            if kind == _ID_STRUCT and n_bytes == 20:
                file.seek(at + 20)  # past the tag's header and the version
                file.write(bytes(16))
            if following == -1:
                return
            at = following if following > 0 else at + 16 + n_bytes

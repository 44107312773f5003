"""Open a continuous recording, whatever its format, or say why not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import mne

from neurofm.config import Config
from neurofm.errors import NeurofmError, SourceError
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.roles import FILES, FOLDERS, not_its_own
from neurofm.preprocessing.sss import SssConfig
from neurofm.preprocessing.verify import companions, is_bci2000, verify

# Readers of binary formats fail in whatever way the bytes lead them to, and raise `Exception`
# itself, too.
READER_FAILURES = (Exception,)


@dataclass(frozen=True)
class Part:
    """One of several recordings in a file.

    Attributes
    ----------
    name : str
        What it is called within the file.
    reader : Reader
        Reads this one.
    entities : dict
        What its name says of it.
    """

    name: str
    reader: Reader
    entities: dict[str, str]


class Reader(Config):
    """How a file becomes an MNE recording.

    A reader looks at the bytes first, then opens the file without reading its samples.
    """

    library: ClassVar[str] = "MNE"
    endings: ClassVar[tuple[str, ...]] = FOLDERS + FILES

    def look(self, path: Path) -> Facts:
        """Check the file before anyone opens it; see `verify.verify`."""
        return verify(path)

    def companions(self, path: Path) -> list[Path]:
        """Return the files that are read with it, there or not."""
        return companions(path)

    @property
    def part(self) -> str:
        """What of a file is read; empty if the whole of it is."""
        return ""

    def parts(self, path: Path) -> list[Part] | None:
        """Return the recordings in one file; None if the file is one recording."""
        return None

    def about(self, path: Path) -> list[Path]:
        """Return files that describe the recording but do not change how it is read."""
        return []

    def claims(self, inside: str) -> bool:
        """Tell whether a path below the source's root is a recording, where no glob says it."""
        return inside.lower().endswith(self.endings)

    def skips(self, path: Path) -> str:
        """Return why a file is no recording of its own; empty if it may be one."""
        return not_its_own(path)

    def names(self, inside: str) -> dict[str, str]:
        """Return entities that the path holds in a way of this reader's own."""
        return {}

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Open the file; what is worth knowing is added to `facts`."""
        raise NotImplementedError


class AutoReader(Reader):
    """By the file's extension, as `mne.io.read_raw` does; XDF through pyxdf."""

    name: Literal["auto"] = "auto"

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Open whatever MNE has a reader for."""
        if path.suffix.lower() == ".xdf":
            from neurofm.preprocessing.xdf import XdfReader

            return XdfReader().raw(path, facts)
        # `open_raw` tells shielded recordings from others, and what to do about them
        more = {"allow_maxshield": "yes"} if path.name.endswith((".fif", ".fif.gz")) else {}
        if is_bci2000(path):  # MNE reads it as a whole or not at all
            return mne.io.read_raw_bci2k(path, preload=True, verbose="warning")
        return mne.io.read_raw(path, preload=False, verbose="warning", **more)


def open_raw(
    path: Path, reader: Reader | None = None, sss: SssConfig | None = None
) -> tuple[mne.io.BaseRaw, Facts]:
    """Open a recording without reading its samples.

    Parameters
    ----------
    path : Path
        A file, or the folder of a format that is one.
    reader : Reader, optional
        How to read it. By default its extension decides.
    sss : SssConfig, optional
        Signal space separation; the recording is then read into memory.

    Returns
    -------
    raw : mne.io.BaseRaw
        The recording, not preloaded.
    facts : Facts
        What a look at the bytes found, and what MNE warned of.

    Raises
    ------
    SourceError
        If the file is not what its name says, is cut short, lacks a companion file, or MNE
        cannot read it, or its internal active shielding has not been taken out.
    SignalError
        If signal space separation fails.
    """
    reader = reader or AutoReader()
    facts = reader.look(path)
    for companion in reader.companions(path):
        if not companion.is_file():
            raise SourceError(
                f"{path}: its companion file {companion.name!r} is missing",
                hint="copy both files, or exclude the recording",
            )
    with warnings.catch_warnings(record=True) as caught, _listening() as logged:
        warnings.simplefilter("always")
        try:
            raw = reader.raw(path, facts)
        except NeurofmError:
            raise
        except FileNotFoundError as error:
            raise SourceError(
                f"{path}: a companion file is missing: {error}",
                hint="copy all files of the recording, or exclude it",
            ) from error
        except READER_FAILURES as error:
            raise SourceError(
                f"{path}: {reader.library} cannot read it: {type(error).__name__}: {error}",
                hint="convert the recording with MNE or MNE-BIDS first, or exclude it",
            ) from error
    facts.notes += _messages(caught) + list(dict.fromkeys(logged))
    if not raw.info["sfreq"] > 0:
        raise SourceError(f"{path}: the sampling rate in the header is {raw.info['sfreq']:g} Hz")
    if raw.info.get("maxshield") and sss is None:
        raise SourceError(
            f"{path}: recorded with internal active shielding (MaxShield): what the coils measured "
            "is distorted until signal space separation takes the shielding out",
            hint="separate it with MaxFilter, or by `sss: {}` in the source",
        )
    if sss is not None:
        raw, notes = sss.apply(raw, str(path))
        facts.notes += notes
    return raw, facts


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect what libraries log as warnings or errors: it belongs to the file, not on a screen."""
    logged: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(record.getMessage().split())
            logged.append(f"{record.name.split('.')[0]}: {text[:200]}")

    ear = Ear(logging.WARNING)
    logging.getLogger().addHandler(ear)
    try:
        yield logged
    finally:
        logging.getLogger().removeHandler(ear)


def _messages(caught: list[warnings.WarningMessage]) -> list[str]:
    texts = dict.fromkeys(
        " ".join(str(w.message).split())
        for w in caught
        if issubclass(w.category, RuntimeWarning | UserWarning)
    )
    return [f"MNE: {text[:200]}" for text in texts]

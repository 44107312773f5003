"""Formats whose files do not say all that a reader has to know."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import mne

from neurofm.preprocessing.events import companion_path
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import Reader


class BtiReader(Reader):
    """BTi/4D Magnes: the data file has no extension and names none of the others.

    Parameters
    ----------
    config_file : str
        Name of the configuration beside the data.
    head_shape : str, optional
        Name of the head shape file; without one there is no device-to-head transform.
    """

    name: Literal["bti"]
    config_file: str = "config"
    head_shape: str | None = "hs_file"

    def companions(self, path: Path) -> list[Path]:
        """Return the configuration and the head shape."""
        return [path.with_name(name) for name in (self.config_file, self.head_shape) if name]

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Open the three files."""
        return mne.io.read_raw_bti(
            path,
            path.with_name(self.config_file),
            path.with_name(self.head_shape) if self.head_shape else None,
            preload=False,
            verbose="warning",
        )


class KitReader(Reader):
    """KIT/Yokogawa: where the head was is in files of their own.

    Parameters
    ----------
    markers : tuple of str
        Names of marker files (``.sqd``, ``.mrk``), with ``{stem}`` for the recording's stem.
    elp, hsp : str, optional
        Names of the files with the digitised coils and head shape.
    """

    name: Literal["kit"]
    markers: tuple[str, ...] = ()
    elp: str | None = None
    hsp: str | None = None

    def companions(self, path: Path) -> list[Path]:
        """Return the marker, coil and head shape files."""
        return [companion_path(path, n) for n in (*self.markers, self.elp, self.hsp) if n]

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Open the recording with its digitisation."""
        markers = [str(companion_path(path, name)) for name in self.markers]
        return mne.io.read_raw_kit(
            path,
            mrk=markers or None,
            elp=companion_path(path, self.elp) if self.elp else None,
            hsp=companion_path(path, self.hsp) if self.hsp else None,
            preload=False,
            verbose="warning",
        )


class NicoletReader(Reader):
    """Nicolet ``.data``: the header does not say what kind the channels are.

    Parameters
    ----------
    ch_type : "eeg", "seeg" or "ecog"
        The kind of all channels whose name does not say otherwise.
    """

    name: Literal["nicolet"]
    ch_type: Literal["eeg", "seeg", "ecog"] = "eeg"

    endings: ClassVar[tuple[str, ...]] = (".data",)

    def companions(self, path: Path) -> list[Path]:
        """Return the header."""
        return [path.with_suffix(".head")]

    def raw(self, path: Path, facts: Facts) -> mne.io.BaseRaw:
        """Open the recording."""
        return mne.io.read_raw_nicolet(path, ch_type=self.ch_type, preload=False, verbose="warning")

"""Signal space separation: MEG of what is inside the helmet, through MNE. Optional."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import mne
from pydantic import Field

from neurofm.config import Config
from neurofm.errors import SignalError, SourceError


class SssConfig(Config):
    """Signal space separation (SSS, tSSS) of Elekta, MEGIN and other helmets.

    The whole recording is held in memory, twice, in double precision.

    Parameters
    ----------
    st_duration_s : float, optional
        Length of the stretches of temporal SSS (tSSS); none is applied without it.
    find_bads : bool
        Find bad channels first, as the noise of one is spread over all by SSS.
    calibration, cross_talk : str, optional
        The site's fine calibration and cross-talk files.
    origin : "auto" or (float, float, float)
        Centre of the expansion in metres; ``auto`` fits a sphere to the digitised head.
    frame : "head" or "meg"
        Frame of the origin. A file without a device-to-head transform, such as an empty room,
        needs ``meg``.
    """

    st_duration_s: float | None = Field(default=None, gt=0)
    find_bads: bool = True
    calibration: str | None = None
    cross_talk: str | None = None
    origin: Literal["auto"] | tuple[float, float, float] = "auto"
    frame: Literal["head", "meg"] = "head"

    def apply(self, raw: mne.io.BaseRaw, where: str) -> tuple[mne.io.BaseRaw, list[str]]:
        """Return the separated recording, in memory, and what is worth noting.

        Parameters
        ----------
        raw : mne.io.BaseRaw
            Not changed.
        where : str
            The file, for messages.

        Raises
        ------
        SourceError
            If the calibration or the cross-talk file is not there.
        SignalError
            If MNE cannot do it: no MEG, done before, no head position.
        """
        for file in (self.calibration, self.cross_talk):
            if file is not None and not Path(file).is_file():
                raise SourceError(
                    f"{where}: {file}, named by its `sss`, is not there",
                    hint="correct the path in the source's `sss`",
                )
        common = {
            "calibration": self.calibration,
            "cross_talk": self.cross_talk,
            "origin": self.origin,
            "coord_frame": self.frame,
            "verbose": "error",
        }
        raw = raw.copy().load_data(verbose="error")
        notes = []
        try:
            if self.find_bads:
                noisy, flat = mne.preprocessing.find_bad_channels_maxwell(
                    raw, h_freq=None, **common
                )
                raw.info["bads"] = sorted({*raw.info["bads"], *noisy, *flat})
            if raw.info["bads"]:
                notes.append(f"SSS without, and rebuilding, {', '.join(raw.info['bads'])}")
            done = mne.preprocessing.maxwell_filter(raw, st_duration=self.st_duration_s, **common)
        except (ValueError, RuntimeError) as error:
            raise SignalError(
                f"{where}: signal space separation failed: {error}",
                hint="correct the source's `sss`; `frame: meg` with an origin is for files "
                "without a head position",
            ) from error
        return done, notes

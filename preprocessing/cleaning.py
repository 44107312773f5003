"""Cleaning: what becomes of bad channels and bad moments.

A contract says what a model needs; cleaning is the choice of who prepares the data. It is
written into the store's provenance and not into its contract.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurofm.config import Config
from neurofm.errors import SignalError
from neurofm.preprocessing.artefacts import MarkArtefacts
from neurofm.preprocessing.bad_channels import BadChannel, FindBadChannels, Policy
from neurofm.preprocessing.history import marked_bad
from neurofm.preprocessing.interpolate import Interpolate
from neurofm.preprocessing.optional import AutoReject, Ica, Ransac
from neurofm.preprocessing.spatial import Spatial, SpatialStep, selection
from neurofm.signals import Recording


class BadChannels(FindBadChannels, SpatialStep):
    """Find bad channels, and do something about them.

    Parameters
    ----------
    policy : "drop", "interpolate", "mark" or "keep"
        ``drop`` leaves bad channels out. ``interpolate`` replaces them from their neighbours,
        and drops those for which that is not possible. ``mark`` keeps them and says so: they
        have no part in an average reference, and make no artefact. ``keep`` looks for none.
        Channels that the file itself calls bad are treated in the same way, and marked by
        ``keep``. A channel without any signal cannot be kept.
    ransac : Ransac, optional
        Another way to find bad EEG channels, besides the limits.
    """

    # Samples that no brain made are no use to a model that takes any set of sensors, and
    # interpolated ones add nothing to it. The limits catch what is truly broken.
    policy: Policy = "drop"
    ransac: Ransac | None = None

    def find(self, recording: Recording) -> tuple[BadChannel, ...]:
        """Return bad channels by the limits, and by RANSAC where that is asked for."""
        found = super().find(recording)
        if self.ransac is None:
            return found
        known = marked_bad(recording) | {bad.name: bad.why for bad in found}
        return found + self.ransac.find(recording, known)

    def operator(self, recording: Recording) -> Spatial | None:
        """Return what becomes of bad channels; None if there are none.

        Raises
        ------
        SignalError
            If no channel would be left.
        """
        marked = marked_bad(recording)
        found = () if self.policy == "keep" else self.find(recording)
        why = marked | {bad.name: bad.why for bad in found}
        if not why:
            return None
        step: dict[str, Any] = {
            "step": "bad_channels",
            "policy": self.policy,
            "found": [bad.to_dict() for bad in found],
        }
        everything = np.arange(len(recording.sensors))
        if self.policy in ("mark", "keep"):
            step["bad"] = why
            step["notes"] = [f"bad, and kept: {_listed(why)}"]
            return selection(recording.sensors, everything, step)
        if len(why) == len(recording.sensors):
            raise SignalError(
                f"{recording.recording_id}: every channel is bad: {_listed(why)}",
                hint="exclude the recording, or change the limits in `cleaning.bad_channels`",
            )
        if self.policy == "drop":
            keep = np.flatnonzero([name not in why for name in recording.sensors.ch_names])
            return selection(recording.sensors, keep, step | {"dropped": why})
        made = Interpolate(names=tuple(why)).operator(recording)
        kept = {name: why[name] for name in made.step["interpolated"]}
        step |= {"interpolated": kept, "notes": [f"interpolated {_listed(kept)}"] if kept else []}
        if lost := made.step.get("dropped", {}):
            step["dropped"] = {name: f"{why[name]}; {reason}" for name, reason in lost.items()}
        return Spatial(made.matrix, made.sensors, step)


class CleaningConfig(Config):
    """What is done about bad channels and artefacts.

    Parameters
    ----------
    bad_channels : BadChannels
        How they are found, and what becomes of them.
    artefacts : MarkArtefacts, optional
        How moments are found and marked that windows must not touch.
    ica : Ica, optional
        Independent components of eyes, heart and muscles to be taken out, before moments are
        judged.
    autoreject : AutoReject, optional
        Another way to find bad moments.
    """

    bad_channels: BadChannels = BadChannels()
    # Which moments are artefacts depends on what is to be learned, and marking them takes
    # windows away: nobody should lose any without having asked.
    artefacts: MarkArtefacts | None = None
    ica: Ica | None = None
    autoreject: AutoReject | None = None

    def find_bad(self, recording: Recording) -> tuple[BadChannel, ...]:
        """Return what is wrong with which channels of a band-passed recording."""
        return self.bad_channels.find(recording)

    def spatial(self, recording: Recording) -> Spatial | None:
        """Return what becomes of bad channels, as an operator; None if there are none."""
        return self.bad_channels.operator(recording)

    def channels(self, recording: Recording) -> Recording:
        """Return the recording without its bad channels, mixed when samples are asked for."""
        spatial = self.spatial(recording)
        return recording if spatial is None else spatial.lazily(recording)

    def moments(self, recording: Recording) -> Recording:
        """Return the recording, filtered and referenced, with its artefacts out or marked."""
        if self.ica is not None and (spatial := self.ica.operator(recording)) is not None:
            recording = spatial.lazily(recording)
        for marker in (self.artefacts, self.autoreject):
            if marker is not None:
                recording = marker(recording)
        return recording


def _listed(why: dict[str, str], most: int = 4) -> str:
    items = [f"{name} ({reason})" for name, reason in list(why.items())[:most]]
    return ", ".join(items) + (f" and {len(why) - most} more" if len(why) > most else "")

"""What later steps read in a recording's history."""

from __future__ import annotations

import numpy as np

from neurofm.signals import Recording


def marked_bad(recording: Recording) -> dict[str, str]:
    """Return the channels that a history marks as bad, and why; not those interpolated since."""
    marked: dict[str, str] = {}
    for step in recording.history:
        marked |= step.get("bad", {})
        for name in step.get("interpolated", ()):
            marked.pop(name, None)
    return {name: why for name, why in marked.items() if name in recording.sensors.ch_names}


def at_limits(recording: Recording) -> dict[str, float]:
    """Return, by channel, the share of samples at its limits as it was recorded."""
    for step in recording.history:
        if "at_limits" in step:
            return dict(step["at_limits"])
    return {}


def clipped(recording: Recording) -> list[tuple[float, float]]:
    """Return when some channel was at its limits as it was recorded, in seconds.

    What became of a channel that was found bad is nobody's moment.
    """
    runs: dict[str, list[list[float]]] = {}
    for step in recording.history:
        runs = dict(step.get("clipped_s", runs))
        if step.get("step") == "bad_channels":
            for name in (*step.get("dropped", ()), *step.get("interpolated", ())):
                runs.pop(name, None)
    bad = marked_bad(recording)
    return sorted((start, stop) for name in runs if name not in bad for start, stop in runs[name])


def band_passed(recording: Recording) -> tuple[float, float, list[float]]:
    """Return what a history says of a recording's band: both edges, and notches in it, in hertz."""
    low, high, notches = 0.0, np.inf, []
    for step in recording.history:
        if step.get("step") == "band_pass":
            low, high = max(low, step["low_hz"]), min(high, step["high_hz"])
        if step.get("step") == "notch":
            notches += list(step["freqs_hz"])
    return low, high, notches

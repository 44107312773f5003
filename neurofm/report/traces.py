"""Signals over one another, and weights of sources on a head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from neurofm.report.figures import COLOURS

_APART = 5.0  # deviations between traces
_COLUMNS = 8


def overlay_plot(
    first: np.ndarray,
    second: np.ndarray,
    names: Sequence[str],
    *,
    sfreq: float,
    labels: Sequence[str],
) -> Figure:
    """Draw two versions of each signal, one above the other.

    Parameters
    ----------
    first, second : ndarray, shape (n, T)
        In standard deviations.
    names : sequence of str
        Of the signals, from top to bottom.
    sfreq : float
        Sampling rate in hertz.
    labels : sequence of str
        What the two versions are.

    Returns
    -------
    Figure
        The figure.
    """
    figure = Figure(figsize=(9.0, 0.6 + 0.7 * len(names)), layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    time = np.arange(first.shape[1]) / sfreq
    base = -_APART * np.arange(len(names))
    for values, label, colour in zip((first, second), labels, ("#999999", COLOURS[1]), strict=True):
        lines = ax.plot(time, (values + base[:, None]).T, color=colour, linewidth=0.9)
        lines[0].set_label(label)
    ax.set_yticks(base, list(names), fontsize=8, parse_math=False)
    ax.set_xlabel("s", fontsize=8)
    ax.legend(fontsize=7, loc="upper right", ncols=2)
    return figure


def weights_plot(position: np.ndarray, weights: np.ndarray) -> Figure:
    """Draw how much each source looks at each sensor, seen from above.

    Parameters
    ----------
    position : ndarray, shape (C, 3)
        Metres in the head frame.
    weights : ndarray, shape (S, C)
        Each row is scaled by its largest.

    Returns
    -------
    Figure
        A small head for each source; the nose is up.
    """
    n_rows = -(-len(weights) // _COLUMNS)
    n_columns = min(_COLUMNS, len(weights))
    figure = Figure(figsize=(1.25 * n_columns, 1.35 * n_rows), layout="constrained")
    axes = np.atleast_1d(np.asarray(figure.subplots(n_rows, n_columns))).ravel()
    order = np.argsort(position[:, 2])  # what lies above is drawn above
    for number, ax in enumerate(axes):
        ax.set_axis_off()
        ax.set_aspect("equal")
        if number < len(weights):
            row = weights[number] / max(float(weights[number].max()), 1e-12)
            x, y = position[order, 0], position[order, 1]
            ax.scatter(x, y, c=row[order], s=14, cmap="viridis", vmin=0, vmax=1)
            ax.set_title(f"source {number + 1}", fontsize=6)
    return figure

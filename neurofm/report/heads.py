"""Where sensors lie on a head, seen from above and from the side."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from neurofm.report.figures import COLOURS
from neurofm.sensors import Knowledge, SensorKind, Sensors

HEAD_RADIUS_MM = 95.0
MOST_NAMES = 40
VIEWS = (("from above", 0, 1, "left – right"), ("from the right", 1, 2, "back – front"))


def sensor_plot(sensors: Sensors, *, title: str = "") -> Figure:
    """Draw where the sensors of a recording are, in millimetres in the head frame.

    Parameters
    ----------
    sensors : Sensors
        The channels. Positions of a template are drawn hollow, those in the frame of the device
        as crosses; how many have no position is written above.
    title : str
        Above the figure.

    Returns
    -------
    Figure
        Two views; a colour for each kind, names where they are few.
    """
    figure = Figure(figsize=(7.4, 3.9), layout="constrained")
    located = np.flatnonzero(sensors.located)
    for ax, (view, across, up, label) in zip(figure.subplots(1, 2), VIEWS, strict=True):
        _frame(ax, view, label)
        for number, kind in enumerate(np.unique(sensors.kind)):
            colour = COLOURS[number % len(COLOURS)]
            of_kind = located[sensors.kind[located] == kind]
            name = f"{SensorKind(kind).label} ({int((sensors.kind == kind).sum())})"
            # sensors of a helmet share a place: the later ones are drawn smaller, above
            look = {"label": name, "colour": colour, "size": max(4.0, 22.0 - 9 * number)}
            _points(ax, sensors, of_kind, (across, up), look)
        if len(located) <= MOST_NAMES:
            for i in located:
                at = 1e3 * sensors.position[i, [across, up]]
                text = ax.text(at[0] + 1, at[1] + 1, sensors.ch_names[i], fontsize=5)
                text.set_parse_math(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside lower center", ncols=6, frameon=False)
    missing = len(sensors) - len(located)
    without = f"{missing} of {len(sensors)} without a position" if missing else ""
    figure.suptitle("  ".join(t for t in (title, without) if t), fontsize=9, parse_math=False)
    return figure


def _frame(ax: Axes, view: str, label: str) -> None:
    ax.add_patch(Circle((0, 0 if view == "from above" else 40), HEAD_RADIUS_MM, fill=False, lw=0.6))
    ax.set_aspect("equal")
    ax.set_title(view, fontsize=8)
    ax.set_xlabel(f"{label} (mm)", fontsize=7)
    ax.tick_params(labelsize=6)
    ax.spines[["top", "right"]].set_visible(False)


def _points(
    ax: Axes, sensors: Sensors, rows: np.ndarray, axes: tuple[int, int], look: dict[str, Any]
) -> None:
    known, colour = sensors.known[rows], look["colour"]
    styles: dict[Knowledge, dict[str, Any]] = {
        Knowledge.MEASURED: {"marker": "o", "facecolors": colour},
        Knowledge.TEMPLATE: {"marker": "o", "facecolors": "none", "edgecolors": colour},
        Knowledge.DEVICE: {"marker": "x", "color": colour},
    }
    ax.scatter([], [], s=12, color=colour, label=look["label"])
    for how, style in styles.items():
        x, y = 1e3 * sensors.position[rows[known == how]][:, axes].T
        ax.scatter(x, y, s=look["size"], linewidths=0.7, **style)

"""Figures from plain tables. No global state: figures are objects, text is never mathematics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")


def subject_plot(values: pd.DataFrame, *, ylabel: str, chance: float | None = None) -> Figure:
    """One column of dots a model: a dot a subject, lines joining a subject's dots.

    Parameters
    ----------
    values : DataFrame
        One row a subject, one column a model.
    ylabel : str
        What is plotted.
    chance : float, optional
        Where a dashed line is drawn.

    Returns
    -------
    Figure
        The figure.
    """
    n_models = values.shape[1]
    figure, ax = _figure(max(4.5, 1.3 * n_models + 1), 4.0)
    x = np.arange(n_models)
    table = values.to_numpy(float)
    ax.plot(x, table.T, color="#bbbbbb", linewidth=0.6, zorder=1)
    for i in range(n_models):
        colour = COLOURS[i % len(COLOURS)]
        ax.scatter(np.full(len(table), i), table[:, i], s=16, color=colour, zorder=2)
        middle = np.nanmean(table[:, i]) if np.isfinite(table[:, i]).any() else np.nan
        ax.hlines(middle, i - 0.25, i + 0.25, color=colour, linewidth=2.5, zorder=3)
    if chance is not None:
        ax.axhline(chance, color="black", linestyle="--", linewidth=0.8)
    labels = [str(c).replace(" ", "\n") for c in values.columns]
    ax.set_xticks(x, labels, fontsize=8, parse_math=False)
    ax.set_ylabel(ylabel, parse_math=False)
    ax.set_xlim(-0.6, n_models - 0.4)
    return figure


def confusion_plot(matrix: np.ndarray, classes: Sequence[str], *, title: str) -> Figure:
    """Confusion matrix: rows are the truth and sum to one.

    Parameters
    ----------
    matrix : ndarray, shape (K, K)
        Counts or shares; rows are true classes.
    classes : sequence of str
        Names by code.
    title : str
        Above the figure.

    Returns
    -------
    Figure
        The figure.
    """
    total = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    n = len(classes)
    figure, ax = _figure(1.0 * n + 1.6, 0.9 * n + 1.3)
    ax.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row in range(n):
        for column in range(n):
            dark = shares[row, column] > 0.5
            text = f"{shares[row, column]:.2f}"
            ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    ax.set_xticks(range(n), list(classes), fontsize=8, rotation=30, parse_math=False)
    ax.set_yticks(range(n), list(classes), fontsize=8, parse_math=False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(title, fontsize=9, parse_math=False)
    return figure


def curve_plot(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, xlabel: str, ylabel: str
) -> Figure:
    """Lines by name; many lines are drawn thin, and without a legend.

    Parameters
    ----------
    curves : mapping of str to (x, y)
        The points of each line.
    xlabel, ylabel : str
        What the axes are.

    Returns
    -------
    Figure
        The figure.
    """
    figure, ax = _figure(5.5, 3.4)
    few = len(curves) <= len(COLOURS)
    for i, (name, (x, y)) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)] if few else "#4c72b0"
        ax.plot(x, y, color=colour, linewidth=1.5 if few else 0.5, label=name)
    if few and len(curves) > 1:
        for text in ax.legend(fontsize=8).get_texts():
            text.set_parse_math(False)
    ax.set_xlabel(xlabel, parse_math=False)
    ax.set_ylabel(ylabel, parse_math=False)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax

"""The report of a tokenizer: one page that can be mailed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurofm.report.figures import curve_plot
from neurofm.report.page import Page
from neurofm.report.traces import overlay_plot, weights_plot
from neurofm.tokenizers.scores import Quality


def make_page(
    quality: Quality,
    metrics: Sequence[Mapping[str, float]],
    environment: Mapping[str, Any],
    *,
    sfreq: float,
    held_out: bool,
) -> Page:
    """Build the report.

    Parameters
    ----------
    quality : Quality
        What was measured.
    metrics : sequence of mapping
        One row a step.
    environment : mapping
        Versions and git state.
    sfreq : float
        Sampling rate in hertz.
    held_out : bool
        Whether the recordings were not trained on.
    """
    page = Page("neurofm tokenizer")
    page.section("Reconstruction")
    if not held_out:
        page.warning("No recording was held out: these are recordings the tokenizer has seen.")
    page.text(
        "Signals are standardised by channel and patch, so that every channel weighs the same: the "
        "mean absolute error is in standard deviations. The spectral error is that of the "
        "amplitude spectrum, as a share of it. Explained is the share of the variance of the "
        "original that the error is short of. Means over recordings."
    )
    page.table(quality.by_kind())
    _spline(page, quality)
    if quality.skipped:
        page.text(f"Without a good window: {', '.join(quality.skipped)}.")
    page.section("Codes")
    page.table(quality.codes(), caption="Share of codes in use, and perplexity, by level")
    _pictures(page, quality, sfreq)
    page.section("Training")
    steps = [row["step"] for row in metrics]
    curves = {"loss": ["loss"], "terms of the loss": _terms(metrics), "perplexity": ["perplexity"]}
    page.figures(
        [
            (
                curve_plot(
                    {name: (steps, [row[name] for row in metrics]) for name in names},
                    xlabel="step",
                    ylabel=label,
                ),
                f"Training: {label}.",
            )
            for label, names in curves.items()
        ]
    )
    page.section("Recordings")
    with page.folded("Scores of every recording"):
        page.table(quality.scores)
    page.section("Environment")
    page.code("\n".join(f"{k}: {v}" for k, v in environment.items()))
    return page


def _terms(metrics: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the columns that are neither the sum, nor of another scale."""
    return [name for name in metrics[0] if name not in {"step", "loss", "lr", "perplexity"}]


def _spline(page: Page, quality: Quality) -> None:
    table = quality.against_spline()
    if not len(table):
        page.text("No withheld electrode could be interpolated by spherical splines.")
        return
    page.section("Withheld electrodes, against spherical splines")
    page.text("The same electrodes, patches and measures; splines as MNE computes them.")
    page.table(table)
    pearson = table.set_index("method")["pearson"]
    ahead = pearson["tokenizer"] - pearson["spline"]
    if ahead > 0:
        page.text(f"The tokenizer's correlation is higher by {ahead:.3f}.")
    else:
        page.warning(f"The tokenizer's correlation is not yet as high: {ahead:+.3f}.")


def _pictures(page: Page, quality: Quality, sfreq: float) -> None:
    for picture in quality.pictures:
        page.section(f"{picture.kind}: {picture.recording_id}")
        names = [
            f"{name}{'' if seen else ' (withheld)'}"
            for name, seen in zip(picture.ch_names, picture.seen, strict=True)
        ]
        labels = ("original", "reconstruction")
        plot = overlay_plot(picture.target, picture.signal, names, sfreq=sfreq, labels=labels)
        hidden = [n for n, seen in zip(picture.ch_names, picture.seen, strict=True) if not seen]
        caption = "One window, standardised by patch."
        if hidden:
            caption += f" Not shown to the encoder: {', '.join(hidden)}."
        figures = [(plot, caption)]
        located = picture.sensors.located
        if located.any() and picture.looks is not None:
            drawn = weights_plot(picture.sensors.position[located], picture.looks[:, located])
            figures.append((drawn, "What each latent source looks at, seen from above."))
        page.figures(figures)

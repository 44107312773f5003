"""The report of a fine-tuning run: one page that can be mailed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neurofm.finetune.metrics import MAIN, TITLES
from neurofm.finetune.protocols import Folds
from neurofm.finetune.results import difference_table, per_subject, score_table
from neurofm.finetune.trials import Trials
from neurofm.report.figures import confusion_plot, curve_plot, subject_plot
from neurofm.report.page import Page


@dataclass(frozen=True, eq=False)
class Material:
    """All that a report shows.

    Attributes
    ----------
    title : str
        The task's name.
    trials : Trials
        The trials.
    protocols : tuple of Folds
        The folds.
    entries : list of dict
        What `results.summarise` returned.
    results, predictions, curves, missing : DataFrame
        What was scored.
    provenance : list of str
        Sentences on where the weights come from; those that begin with ``!`` stand out.
    pretraining_loss : list of (step, loss)
        From the checkpoint, if it tells.
    environment : dict
        Versions and git state.
    """

    title: str
    trials: Trials
    protocols: tuple[Folds, ...]
    entries: list[dict[str, Any]]
    results: pd.DataFrame
    predictions: pd.DataFrame
    curves: pd.DataFrame
    missing: pd.DataFrame
    provenance: list[str]
    pretraining_loss: list[list[float]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)


def make_page(material: Material) -> Page:
    """Build the report."""
    page = Page(f"neurofm fine-tuning: {material.title}")
    page.section("Scores")
    page.text(
        "Each metric is computed by subject (mean over its folds and seeds) and then averaged over "
        "subjects; intervals are 95 % bootstrap intervals over subjects."
    )
    page.table(score_table(material.entries))
    for sentence in material.provenance:
        (page.warning if sentence.startswith("!") else page.text)(sentence.lstrip("! "))
    differences = difference_table(material.entries)
    if len(differences):
        page.section("Paired differences of balanced accuracy")
        page.text("By subject; p values from a two-sided sign-flip test over subjects.")
        page.table(differences)
    for folds in material.protocols:
        _protocol(page, material, folds)
    _curves(page, material)
    _trials(page, material)
    page.section("Environment")
    page.code("\n".join(f"{k}: {v}" for k, v in material.environment.items()))
    return page


def _protocol(page: Page, material: Material, folds: Folds) -> None:
    page.section(f"Protocol {folds.name}")
    subjects = per_subject(material.results)
    chosen = subjects[(subjects["protocol"] == folds.name) & (subjects["metric"] == MAIN)].copy()
    chosen["who"] = chosen["dataset"] + "/" + chosen["subject"]
    chosen["which"] = chosen["model"] + " " + chosen["adaptation"].replace("none", "")
    wide = chosen.pivot_table(index="who", columns="which", values="value", sort=False)
    wide = wide.rename_axis(index="subject", columns=None)
    chance = 1 / len(material.trials.classes)
    plot = subject_plot(wide, ylabel=TITLES[MAIN], chance=chance)
    page.figures([(plot, "A dot a subject, a bar at the mean; dashed: chance.")])
    page.table(wide, caption=f"{TITLES[MAIN]} by subject", index=True)
    page.figures(_confusions(material, folds.name))
    page.code(str(folds))


def _confusions(material: Material, protocol: str) -> list[tuple[Figure, str]]:
    classes = list(material.trials.classes)
    code = {name: i for i, name in enumerate(classes)}
    here = material.predictions[material.predictions["protocol"] == protocol]
    figures = []
    for (model, adaptation), rows in here.groupby(["model", "adaptation"], sort=False):
        matrix = np.zeros((len(classes), len(classes)))
        np.add.at(matrix, (rows["y"].map(code), rows["predicted"].map(code)), 1)
        name = str(model) if adaptation == "none" else f"{model}, {adaptation}"
        figures.append((confusion_plot(matrix, classes, title=name), f"{name}: all test trials"))
    return figures


def _curves(page: Page, material: Material) -> None:
    figures = []
    if len(material.curves):
        keys = ["model", "adaptation", "protocol", "fold", "seed"]
        for protocol, rows in material.curves.groupby("protocol", sort=False):
            lines = {
                " ".join(map(str, key)): (part["epoch"].tolist(), part["train_loss"].tolist())
                for key, part in rows.groupby(keys, sort=False)
            }
            plot = curve_plot(lines, xlabel="epoch", ylabel="training loss")
            figures.append((plot, f"Full fine-tuning, {protocol}: a line a fold and seed."))
    if material.pretraining_loss:
        steps, losses = np.asarray(material.pretraining_loss, float).T.tolist()
        plot = curve_plot({"loss": (steps, losses)}, xlabel="step", ylabel="pretraining loss")
        figures.append((plot, "Pretraining, as the checkpoint tells it."))
    if figures:
        page.section("Loss curves")
        page.figures(figures)


def _trials(page: Page, material: Material) -> None:
    page.section("Trials")
    page.table(material.trials.counts(), caption="Trials by subject and class", index=True)
    dropped = material.trials.dropped
    if len(dropped):
        table = dropped.groupby(["label", "reason"]).size().rename("trials").reset_index()
        page.table(table, caption="Windows that matched a rule and could not be used")
    if len(material.missing):
        columns = ["protocol", "fold", "model", "adaptation", "metric", "reason"]
        page.table(material.missing[columns], caption="Metrics that are not defined")

"""From rows of scores to what they say of a cohort: means over subjects with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from neurofm.finetune.metrics import MAIN, TITLES
from neurofm.finetune.statistics import bootstrap, paired_difference

KEY = ["protocol", "model", "adaptation"]
REFERENCES = ("random_init", "ts_lr")


def per_subject(results: pd.DataFrame) -> pd.DataFrame:
    """Average folds and seeds of a subject.

    Parameters
    ----------
    results : DataFrame
        As written to ``results.csv``.

    Returns
    -------
    DataFrame
        Columns protocol, model, adaptation, metric, dataset, subject, value, in the order in
        which models were scored.
    """
    keys = [*KEY, "metric", "dataset", "subject"]
    return results.groupby(keys, sort=False)["value"].mean().reset_index()


def summarise(results: pd.DataFrame, transductive: Mapping[tuple[str, str], bool]) -> list[dict]:
    """Return one plain entry a protocol, model, adaptation and metric.

    Parameters
    ----------
    results : DataFrame
        As written to ``results.csv``.
    transductive : mapping
        Whether (model, adaptation) used unlabelled test trials.

    Returns
    -------
    list of dict
        mean, low, high (95 % interval over subjects), n_subjects, seeds, seed_sd, and
        differences: for each reference model, ours minus theirs by subject.
    """
    subjects = per_subject(results)
    runs = dict(iter(results.groupby([*KEY, "metric"], sort=False)))
    entries = []
    for key, rows in subjects.groupby([*KEY, "metric"], sort=False):
        protocol, model, adaptation, metric = (str(part) for part in key)
        by_seed = runs[key].groupby("seed", sort=False)["value"].mean()
        entries.append(
            {
                "protocol": protocol,
                "model": model,
                "adaptation": adaptation,
                "transductive": transductive[model, adaptation],
                "metric": metric,
                **bootstrap(rows["value"].to_numpy()).to_dict(),
                "seeds": by_seed.index.tolist(),
                "seed_sd": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
                "differences": _differences(subjects, protocol, model, adaptation, metric),
            }
        )
    return entries


def _differences(
    subjects: pd.DataFrame, protocol: str, model: str, adaptation: str, metric: str
) -> dict[str, dict[str, Any]]:
    here = subjects[(subjects["protocol"] == protocol) & (subjects["metric"] == metric)]
    wide = here.pivot_table(
        index=["dataset", "subject"], columns=["model", "adaptation"], values="value"
    )
    found = {}
    for column in wide.columns:
        name, how = str(column[0]), str(column[1])
        if not name.startswith(REFERENCES) or (name, how) == (model, adaptation):
            continue
        if name == "random_init" and how != adaptation and (name, adaptation) in wide.columns:
            continue  # like is compared with like where there is one
        pair = wide[[(model, adaptation), (name, how)]].dropna()
        if len(pair):
            ours, theirs = pair.to_numpy(float).T
            found[f"{name}/{how}"] = paired_difference(ours, theirs).to_dict()
    return found


def score_table(entries: Sequence[dict]) -> pd.DataFrame:
    """One row a protocol, model and adaptation, one text column a metric; protocols together."""
    order = list(dict.fromkeys(entry["protocol"] for entry in entries))
    entries = sorted(entries, key=lambda entry: order.index(entry["protocol"]))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for entry in entries:
        name = entry["model"] + (" (transductive)" if entry["transductive"] else "")
        row = rows.setdefault(
            (entry["protocol"], entry["model"], entry["adaptation"]),
            {"protocol": entry["protocol"], "model": name, "adaptation": entry["adaptation"]},
        )
        title = TITLES[entry["metric"]]
        if entry["metric"] == MAIN:
            row[f"{title} [95 % CI]"] = _with_interval(entry)
        else:
            row[title] = f"{entry['mean']:.3f}"
    return pd.DataFrame(list(rows.values())).fillna("–")


def difference_table(entries: Sequence[dict]) -> pd.DataFrame:
    """One row a comparison of balanced accuracies."""
    rows = [
        {
            "protocol": entry["protocol"],
            "model": f"{entry['model']}/{entry['adaptation']}",
            "minus": other,
            "difference [95 % CI]": _with_interval(difference, "+.3f"),
            "p (sign flip)": difference["p_value"],
            "subjects": difference["n_subjects"],
        }
        for entry in entries
        if entry["metric"] == MAIN and entry["model"] in {"pretrained", "random_init"}
        for other, difference in entry["differences"].items()
    ]
    return pd.DataFrame(rows)


def _with_interval(entry: Mapping[str, Any], form: str = ".3f") -> str:
    if entry["low"] is None:
        return f"{entry['mean']:{form}} [one subject]"
    return f"{entry['mean']:{form}} [{entry['low']:{form}}, {entry['high']:{form}}]"


def aligned(table: pd.DataFrame) -> str:
    """Return a table as text, with columns aligned to the left."""
    cells = [[str(c) for c in table.columns], *table.astype(str).to_numpy().tolist()]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)

"""The README of a published checkpoint, from the plain values of its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def model_card(name: str, values: Mapping[str, Any]) -> str:
    """Write a model card in Markdown, with the front matter that model hubs read.

    Parameters
    ----------
    name : str
        Title.
    values : mapping
        What ``config.json`` of the checkpoint holds.

    Returns
    -------
    str
        The card.
    """
    contract, width, licence = values["contract"], values["encoder"]["width"], values["licence"]
    what = (
        f"A pretrained encoder for brain signals, made with neurofm {values['neurofm']}: "
        f"{values['parameters']:,} parameters, weights `{values['weights']}`. It turns windows of "
        f"{contract['window_s']:g} s into vectors of {width} numbers. It is a research model and "
        "diagnoses nothing."
    )
    terms = f"Weights: {licence}. The recordings they were trained on have terms of their own."
    front = {
        "license": licence,
        "library_name": "neurofm",
        "tags": ["neurofm", *(kind for kind in contract["kinds"])],
    }
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
            "---",
            f"# {name}",
            "",
            what,
            "",
            "## Load it",
            "",
            "```python",
            "import neurofm",
            'checkpoint = neurofm.load("path/to/this/folder")  # or hf://owner/name',
            f"vectors = checkpoint.embed(raw)  # an mne.io.Raw; (n_windows, {width})",
            "```",
            "",
            "## Signal contract",
            "",
            "`embed` brings recordings to this form, and refuses those that cannot be.",
            "",
            *_table({key: _plain(value) for key, value in contract.items()}),
            "",
            "## Architecture",
            "",
            *_table(_flatten(values["encoder"])),
            "",
            "## What it was trained on",
            "",
            *_provenance(values["provenance"]),
            "",
            "## Training",
            "",
            *_training(values["training"]),
            "",
            "## Licence",
            "",
            terms,
            "",
        ]
    )


def _table(rows: Mapping[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flatten(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for key, value in values.items():
        path = f"{above}{key}"
        rows |= _flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: _plain(value)}
    return rows


def _provenance(provenance: Mapping[str, Any]) -> list[str]:
    subjects = provenance.get("subjects", {})
    if not subjects:
        return ["Not recorded. Assume that any public recording may have been seen."]
    lines = ["Do not report scores on these subjects as if they were new to the model.", ""]
    counts = {
        dataset: f"{len(names)} subjects: {_plain(list(names))}"
        for dataset, names in subjects.items()
    }
    lines += _table(counts)
    if "recordings" in provenance:
        lines += ["", f"Recordings: {len(provenance['recordings'])}, named in `config.json`."]
    return lines


def _training(training: Mapping[str, Any]) -> list[str]:
    plain = {key: value for key, value in training.items() if key != "loss"}
    lines = _table(_flatten(plain)) if plain else ["Not recorded."]
    loss = training.get("loss")
    if isinstance(loss, list) and loss:
        last = loss[-1][-1] if isinstance(loss[-1], list | tuple) else loss[-1]
        lines += ["", f"Last loss: {_plain(last)}."]
    return lines

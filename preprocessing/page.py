"""The report as a page: what was kept, refused and repaired, and what the signals look like.

Its size is bounded: of many recordings, some are shown, evenly chosen; the table of all of them
is ``report.csv`` beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from neurofm.errors import StoreError
from neurofm.preprocessing.report import FILE_NAME, read_report
from neurofm.report.page import Page
from neurofm.report.svg import density_drawing, head_drawing, histogram_drawing
from neurofm.sensors import SensorKind, Sensors
from neurofm.store.layout import replace_synced
from neurofm.store.reader import Store, open_store
from neurofm.store.remote import Location
from neurofm.store.staging import index_lock

PAGE_NAME = "report.html"
_SHOWN = 200  # recordings with drawings of their own
_ROWS = 500  # of a table
_MONTAGES = 48
_CHOSEN = ("path", "reason", "hint")


def write_page(store: Location) -> None:
    """Write the page of a store from its report, its index and what its recordings say.

    Parameters
    ----------
    store : Path or RemotePath
        The store; the page is put beside its ``report.csv``.
    """
    page = make_page(open_store(store), read_report(store)).html()
    with index_lock(store):
        replace_synced(store / PAGE_NAME, page.encode())


def make_page(store: Store, report: pd.DataFrame) -> Page:
    """Build the page.

    Parameters
    ----------
    store : Store
        Whose recordings are shown.
    report : DataFrame
        Its report, as `report.read_report` gives it.
    """
    index = store.index
    page = Page(f"Preprocessing: {', '.join(sorted(set(report['dataset']))) or 'nothing'}")
    counts = report["status"].value_counts()
    page.text(
        f"{len(report)} files: "
        + ", ".join(f"{n} {status}" for status, n in counts.items())
        + f". {len(index)} recordings, {index['duration_s'].sum() / 3600:.2f} hours in the store. "
        f"Every file has a row in {FILE_NAME}."
    )
    page.section("Totals")
    page.table(totals(index))
    _refused(page, report)
    _repaired(page, report)
    shown = index.iloc[_evenly(len(index), _SHOWN)]
    about, damaged = _readable(store, shown["recording_id"])
    if damaged:
        page.text(
            f"Damaged, and not shown: {', '.join(damaged[:10])}. `neurofm inspect --verify` lists "
            "everything that is."
        )
        shown = shown[shown["recording_id"].isin(about)]
    _overview(page, shown, about)
    heads = _heads(page, store, index)
    _recordings(page, shown, about, report, heads)
    if len(shown) < len(index):
        page.text(f"{len(shown)} of {len(index)} recordings are shown, evenly chosen.")
    return page


def _readable(store: Store, names: Iterable[str]) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """Return what recordings say of themselves, and those that are damaged."""
    about: dict[str, Mapping[str, Any]] = {}
    damaged = []
    for name in names:
        try:
            about[name] = store.attributes(name)
        except StoreError:
            damaged.append(name)
    return about, damaged


def totals(index: pd.DataFrame) -> pd.DataFrame:
    """Sum recordings, subjects and hours by data set and kind of sensor.

    Parameters
    ----------
    index : DataFrame
        Of the store. A recording with several kinds counts for each of them.
    """
    by_kind = index.assign(kind=index["kinds"].str.split(",")).explode("kind")
    groups = by_kind.groupby(["dataset", "kind"], sort=True)
    rows = [_total(str(dataset), str(kind), part) for (dataset, kind), part in groups]
    return pd.DataFrame([*rows, _total("all", "all", index)])


def _total(dataset: str, kind: str, part: pd.DataFrame) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "kind": kind,
        "recordings": len(part),
        "subjects": len(part[["dataset", "subject"]].drop_duplicates()),
        "hours": float(part["duration_s"].sum() / 3600),
    }


def _refused(page: Page, report: pd.DataFrame) -> None:
    for status, heading in (("refused", "Refused"), ("skipped", "Skipped")):
        part = report[report["status"] == status]
        if len(part):
            page.section(heading)
            _bounded(page, part[list(_CHOSEN)])


def _repaired(page: Page, report: pd.DataFrame) -> None:
    worth = (report["notes"] != "") | (report["dropped"] != "")
    told = report[(report["status"] == "kept") & worth]
    if len(told):
        page.section("Kept, with channels left out or something to know")
        _bounded(page, told[["path", "dropped", "notes"]])


def _bounded(page: Page, table: pd.DataFrame) -> None:
    page.table(table.head(_ROWS))
    if len(table) > _ROWS:
        page.text(f"and {len(table) - _ROWS} more, in {FILE_NAME}.")


def _evenly(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


# ---------------------------------------------------------------------------------------
# Drawings


def _overview(page: Page, shown: pd.DataFrame, about: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw spectra and amplitudes of each data set and kind, over the recordings shown."""
    page.section("Spectra and amplitudes")
    page.text("Grey is before, blue after; the area holds 80 % of the channels.")
    drawings = []
    for dataset, part in shown.groupby("dataset", sort=True):
        mine = [about[name] for name in part["recording_id"]]
        for kind in sorted({kind for item in mine for kind in _amplitudes(item)}):
            unit = SensorKind[kind.upper()].unit
            said = f"{dataset}, {kind}"
            before, after = (_pooled(mine, when, kind) for when in ("before", "after"))
            drawings.append((density_drawing(before, after, unit), said))
            sizes = [v for item in mine for v in _amplitudes(item).get(kind, ())]
            drawings.append((histogram_drawing(sizes, unit), f"{said}: robust SD"))
    page.drawings(drawings)


def _pooled(
    items: Sequence[Mapping[str, Any]], when: str, kind: str
) -> dict[str, list[float]] | None:
    """Return the median over recordings, on the frequencies of the first that has any."""
    found = [spectrum for item in items if (spectrum := _spectrum(item, when, kind))]
    if not found:
        return None
    hz = found[0]["hz"]
    pooled = {
        name: np.median([np.interp(hz, s["hz"], s[name]) for s in found], axis=0).tolist()
        for name in ("low", "median", "high")
    }
    return {"hz": hz, **pooled}


def _spectrum(item: Mapping[str, Any], when: str, kind: str) -> dict[str, list[float]] | None:
    spectrum = item["quality"].get("spectrum", {}).get(when, {}).get(kind)
    if not spectrum or any(None in row for row in spectrum.values()):
        return None
    return dict(spectrum)


def _amplitudes(item: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the robust SD of every channel, by kind."""
    out: dict[str, list[float]] = {}
    sizes = item["quality"].get("robust_sd", [])
    for kind, value in zip(item["sensors"]["kind"], sizes, strict=False):
        out.setdefault(str(kind), []).append(float(value))
    return out


def _heads(page: Page, store: Store, index: pd.DataFrame) -> dict[str, str]:
    """Draw each montage once; return what shows it again, by montage."""
    page.section("Sensors on the head")
    groups = index.groupby("montage", sort=False)
    heads, drawings = {}, []
    for number, (montage, part) in enumerate(groups):
        if number == _MONTAGES:
            page.text(f"{groups.ngroups - _MONTAGES} more montages are not shown.")
            break
        about, _ = _readable(store, part["recording_id"].iloc[:3])
        if not about:
            continue
        sensors = Sensors.from_dict(next(iter(about.values()))["sensors"])
        drawing = head_drawing(sensors)
        if not drawing:
            continue
        mark = f"montage-{number}"
        drawings.append(
            (
                drawing.replace("<svg ", f'<svg id="{mark}" ', 1),
                f"{len(sensors)} channels; {len(part)} recordings, {part['dataset'].iloc[0]}",
            )
        )
        heads[str(montage)] = f'<svg width="160" height="160"><use href="#{mark}"/></svg>'
    page.drawings(drawings)
    return heads


def _recordings(
    page: Page,
    shown: pd.DataFrame,
    about: Mapping[str, Mapping[str, Any]],
    report: pd.DataFrame,
    heads: Mapping[str, str],
) -> None:
    page.section("Recordings")
    told = report[report["status"] == "kept"].drop_duplicates("recording_id")
    rows = told.set_index("recording_id")
    for name, montage in zip(shown["recording_id"], shown["montage"], strict=True):
        item = about[name]
        with page.folded(name):
            if name in rows.index:
                page.text(_sentence(rows.loc[name]))
            drawings = [(heads.get(montage, ""), "")]
            for kind, sizes in _amplitudes(item).items():
                unit = SensorKind[kind.upper()].unit
                before, after = (_spectrum(item, when, kind) for when in ("before", "after"))
                said = f"{kind}: {len(sizes)} channels, robust SD {np.median(sizes):.3g} {unit}"
                drawings.append((density_drawing(before, after, unit), said))
            page.drawings(drawings)


def _sentence(row: pd.Series) -> str:
    """Say what was read, and what became of it."""
    parts = [f"{row['path']}: {row['duration_s']:g} s"]
    if not pd.isna(row["sfreq_in"]):
        parts.append(f"{row['sfreq_in']:g} Hz, now {row['sfreq_out']:g} Hz")
    parts += [f"{row['n_channels']} channels", f"{row['n_events']} events"]
    if not pd.isna(row["line_hz"]):
        parts.append(f"mains at {row['line_hz']:g} Hz")
    if row["dropped"]:
        parts.append(f"left out: {row['dropped']}")
    if row["notes"]:
        parts.append(f"notes: {row['notes']}")
    return "; ".join(parts) + "."

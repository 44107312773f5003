"""`neurofm inspect`: what a store or a checkpoint holds, as text, as a page, as a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from neurofm.errors import ConfigError, NeurofmError, StoreError

if TYPE_CHECKING:
    import pandas as pd

    from neurofm.store.reader import Store
    from neurofm.store.remote import Location

MOST_MONTAGES = 12  # drawn on a page
MOST_ROWS = 2000  # of recordings on a page
FIGURES = (".png", ".svg", ".pdf")


def inspect(
    path: str | Location,
    *,
    verify: bool = False,
    recordings: bool = False,
    report: str | Path | None = None,
    plot: str | Path | None = None,
) -> str:
    """Describe a store or a checkpoint.

    Parameters
    ----------
    path : str, Path or RemotePath
        Folder of either, or URL of a store.
    verify : bool
        Read every sample of a store, or every weight of a checkpoint, and check it.
    recordings : bool
        List every recording of a store.
    report : str or Path, optional
        HTML file to write: totals, sensors of the montages, recordings.
    plot : str or Path, optional
        Figure to write, PNG, SVG or PDF: sensors of the montage most recordings have.

    Returns
    -------
    str
        Text for a terminal.

    Raises
    ------
    NeurofmError
        If it is neither, or `verify` finds a fault.
    ConfigError
        If a page or a figure is asked of a checkpoint, or the figure in an unknown format.
    """
    from neurofm.store.remote import location

    place = location(path)
    if isinstance(place, Path) and _is_checkpoint(place):
        if recordings or report or plot:
            raise ConfigError(f"{place} is a checkpoint: it has no recordings to list or draw")
        return _checkpoint(place, verify)
    if isinstance(place, Path) and not (place / "zarr.json").exists():
        raise NeurofmError(
            f"{place} is neither a store (no zarr.json) nor a checkpoint (no config.json)",
            hint="give the folder that `neurofm preprocess` or `neurofm pretrain` wrote",
        )
    from neurofm.store.reader import open_store

    store = open_store(place)
    lines = [_store(store)]
    if recordings:
        lines.append(_rows(store.index).to_string(index=False))
    if verify:
        lines.append(_verified(store))
    if plot:
        lines.append(f"sensors: {_plot(store, Path(plot))}")
    if report:
        lines.append(f"report: {_page(store, Path(report))}")
    return "\n".join(lines)


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "model.safetensors").exists() or (folder / "config.json").exists()


# ---------------------------------------------------------------------------------------
# A store


def _store(store: Store) -> str:
    index = store.index
    hours = index["duration_s"].sum() / 3600
    lines = [
        f"store {store.path}: {len(index)} recordings, {hours:.2f} h",
        "contract: " + json.dumps(store.contract.to_dict()),
    ]
    if len(index):
        subjects = len(index[["dataset", "subject"]].drop_duplicates())
        as_float = 4 * (index["n_channels"].astype(float) * index["n_times"]).sum()
        n_bytes = int(index["n_bytes"].sum())
        lines += [
            f"{subjects} subjects, {index['montage'].nunique()} montages",
            f"{n_bytes / 1e9:.3g} GB, {as_float / max(1, n_bytes):.1f} times less than as float32",
            totals(index, ["dataset", "kinds"]).to_string(index=False),
            _by_kind(index).to_string(index=False),
        ]
    return "\n".join(lines)


def totals(index: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Sum up the index of a store.

    Parameters
    ----------
    index : DataFrame
        Rows of recordings.
    by : list of str
        Columns whose values make the rows of the result.

    Returns
    -------
    DataFrame
        Subjects, recordings, hours, channels (from - to) and events of each.
    """
    people = index["dataset"] + "/" + index["subject"]
    return (
        index.assign(person=people)
        .groupby(by, as_index=False)
        .agg(
            subjects=("person", "nunique"),
            recordings=("recording_id", "size"),
            hours=("duration_s", lambda s: round(s.sum() / 3600, 3)),
            channels=("n_channels", lambda n: "-".join(str(v) for v in sorted({n.min(), n.max()}))),
            events=("n_events", "sum"),
        )
    )


def _by_kind(index: pd.DataFrame) -> pd.DataFrame:
    """Sum up by kind of sensor: the hours of a recording with two kinds count for both."""
    rows = index.assign(kind=index["kinds"].str.split(",")).explode("kind")
    return totals(rows, ["kind"]).drop(columns="channels")  # those of other kinds are in it


def _rows(index: pd.DataFrame) -> pd.DataFrame:
    columns = ["recording_id", "kinds", "n_channels", "duration_s", "n_events", "source"]
    return index[columns].round({"duration_s": 2})


def _verified(store: Store) -> str:
    problems = store.verify()
    if problems:
        raise StoreError(
            f"{store.path}: {len(problems)} fault(s):\n" + "\n".join(problems),
            hint="`neurofm remove` the recordings named and run `neurofm preprocess` again",
        )
    return f"verified: every sample of {len(store)} recordings reads, and all metadata agree"


def _montages(index: pd.DataFrame) -> list[tuple[str, int]]:
    """Return a recording of each montage and how many have it, the most common first."""
    groups = index.groupby("montage")["recording_id"].agg(["first", "size"])
    ordered = groups.sort_values(["size", "first"], ascending=[False, True])
    return [(str(first), int(size)) for first, size in ordered.itertuples(index=False)]


def _plot(store: Store, file: Path) -> Path:
    from neurofm.report.heads import sensor_plot

    if file.suffix not in FIGURES:
        raise ConfigError(f"{file}: a figure ends in {', '.join(FIGURES)}")
    if not len(store):
        raise StoreError(f"{store.path} has no recordings, so no sensors to draw")
    name, size = _montages(store.index)[0]
    figure = sensor_plot(store.sensors(name), title=f"{name}: {size} of {len(store)} recordings")
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error}") from None
    return file


def _page(store: Store, file: Path) -> Path:
    from neurofm.report.heads import sensor_plot
    from neurofm.report.page import Page

    index, page = store.index, Page(f"Store {store.path}")
    page.text(f"{len(index)} recordings, {index['duration_s'].sum() / 3600:.2f} h")
    page.section("Contract")
    page.code(json.dumps(store.contract.to_dict(), indent=2))
    if len(index):
        page.section("Totals")
        page.table(totals(index, ["dataset", "kinds"]), caption="by dataset and kinds")
        page.table(_by_kind(index), caption="by kind")
        montages = _montages(index)
        page.section("Sensors")
        if len(montages) > MOST_MONTAGES:
            page.text(f"The {MOST_MONTAGES} most common of {len(montages)} montages.")
        page.figures(
            [
                (sensor_plot(store.sensors(name), title=name), f"{size} recordings, as {name}")
                for name, size in montages[:MOST_MONTAGES]
            ]
        )
        page.section("Recordings")
        if len(index) > MOST_ROWS:
            page.text(f"The first {MOST_ROWS} of {len(index)}.")
        page.table(_rows(index.head(MOST_ROWS)))
    try:
        return page.write(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error}") from None


# ---------------------------------------------------------------------------------------
# A checkpoint


def _checkpoint(folder: Path, verify: bool) -> str:
    from neurofm.checkpoint import load

    if verify:
        load(folder)  # checks names, shapes, digest, and that the code still computes the same
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    checked = "\nverified: all weights load, and give the recorded output" if verify else ""
    return f"checkpoint {folder}\n{json.dumps(values, indent=2)}{checked}"

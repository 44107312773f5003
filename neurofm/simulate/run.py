"""Write a simulated cohort as a BIDS-like tree, with its truth beside it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from neurofm.config import digest_of
from neurofm.errors import ConfigError
from neurofm.simulate.activity import make_activity, make_blinks, make_trials
from neurofm.simulate.anatomy import PATCHES, Anatomy, make_anatomy
from neurofm.simulate.artefacts import add_artefacts, draw_bad_channels
from neurofm.simulate.config import SimulateConfig, rng_for
from neurofm.simulate.devices import DEVICES, Device, make_info, recorded_name
from neurofm.simulate.files import CODES, Run, write_run
from neurofm.simulate.forward import gain

CONFIG = SimulateConfig
VERSION = 1  # of what is simulated: a folder of another version is not the same cohort


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulateResult:
    """What was written.

    Attributes
    ----------
    folder : Path
        Root of the tree.
    recordings : DataFrame
        One row a file.
    written : bool
        False if the same cohort was there already.
    """

    folder: Path
    recordings: pd.DataFrame
    written: bool

    def summary(self) -> str:
        """Return a table of devices for a person to read."""
        did = "wrote" if self.written else "already there, nothing written:"
        table = self.recordings
        head = (
            f"{did} {len(table)} recordings of {table.subject.nunique()} subjects, "
            f"{table.duration_s.sum() / 60:.0f} minutes, in {self.folder}"
        )
        lines = [head]
        for device, rows in table.groupby("device", sort=False):
            lines.append(
                f"  {device:6} {rows.subject.nunique():3} subjects  {len(rows):3} files "
                f"({DEVICES[str(device)].extension})  {rows.n_channels.iloc[0]:3} channels at "
                f"{rows.sfreq.iloc[0]:g} Hz  {rows.n_events.sum():4} trials  "
                f"{rows.n_bad.sum():2} bad channels"
            )
        lines.append(f"  truth: {self.folder / 'truth.json'}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    label: str
    device: Device
    number: int


def plan(config: SimulateConfig) -> str:
    """Say what `run` would write."""
    subjects = list(_subjects(config))
    motor = config.trials_per_class * len(CODES) * (config.trial_s + sum(config.gap_s) / 2)
    minutes = len(subjects) * (config.runs * motor + config.resting_s) / 60
    files = len(subjects) * (config.runs + (config.resting_s > 0))
    by_device = ", ".join(
        f"{count} {name}" for name, count in config.subjects.to_dict().items() if count
    )
    return (
        f"simulate {len(subjects)} subjects ({by_device}): {files} recordings, "
        f"about {minutes:.0f} minutes, in {config.folder}"
    )


def run(config: SimulateConfig) -> SimulateResult:
    """Simulate the cohort and write it, all or nothing.

    Parameters
    ----------
    config : SimulateConfig
        The cohort.

    Returns
    -------
    SimulateResult
        What is in the folder now.

    Raises
    ------
    ConfigError
        If the folder holds anything but this same cohort.
    """
    folder = Path(config.folder)
    if _holds_same(folder, config):
        truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        return _result(folder, truth, written=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    whole = folder.resolve()
    building = whole.with_name(f".{whole.name}.{os.getpid()}")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        truth = _write_tree(building, config)
        if folder.exists():
            folder.rmdir()  # empty: `_holds_same` refused anything else
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return _result(folder, truth, written=True)


def _holds_same(folder: Path, config: SimulateConfig) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"folder {str(folder)!r} is there already and holds no simulated cohort",
            hint="choose another folder",
        ) from None
    if found != _digest(config):
        raise ConfigError(
            f"folder {str(folder)!r} holds another simulated cohort",
            hint="choose another folder, or delete it",
        )
    return True


def _digest(config: SimulateConfig) -> str:
    values = config.to_dict()
    del values["folder"]
    return digest_of({**values, "version": VERSION})


def _subjects(config: SimulateConfig) -> Iterator[_Subject]:
    count = 0
    for name, device in DEVICES.items():
        for number in range(getattr(config.subjects, name)):
            count += 1
            yield _Subject(label=f"{count:02d}", device=device, number=number)


# ---------------------------------------------------------------------------------------
# The tree


def _write_tree(root: Path, config: SimulateConfig) -> dict[str, Any]:
    subjects = list(_subjects(config))
    quiet = not sys.stderr.isatty()
    people, recordings = [], []
    for subject in track(
        subjects, "simulating", console=Console(stderr=True), disable=quiet, transient=True
    ):
        person, rows = _write_subject(root, config, subject)
        people.append(person)
        recordings += rows
    description = {
        "Name": "neurofm simulated cohort",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "neurofm simulate"}],
    }
    truth = {
        "digest": _digest(config),
        "config": {k: v for k, v in config.to_dict().items() if k != "folder"},
        "codes": CODES,
        "subjects": people,
        "recordings": recordings,
    }
    _write_json(root / "dataset_description.json", description)
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{p['subject']}" for p in people],
            "device": [p["device"] for p in people],
        }
    )
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    _write_json(root / "truth.json", truth)
    return truth


def _write_subject(
    root: Path, config: SimulateConfig, subject: _Subject
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    device = subject.device
    anatomy = make_anatomy(config, device.name, subject.number)
    sensors = make_info(device, anatomy, rng_for(config.seed, "cap", device.name, subject.number))
    field = gain(device, sensors, anatomy)
    info = mne.pick_info(sensors, range(len(field)), verbose="ERROR")
    mne.rename_channels(info, {n: recorded_name(device, n) for n in info["ch_names"]})
    folder = root / f"sub-{subject.label}" / "ses-01" / device.datatype
    folder.mkdir(parents=True)
    tasks = [("motor", f"{n + 1:02d}") for n in range(config.runs)]
    if config.resting_s:
        tasks.append(("rest", "01"))
    rows = []
    for task, number in tasks:
        stem = f"sub-{subject.label}_ses-01_task-{task}_run-{number}_{device.datatype}"
        path = folder / (stem + device.extension)
        rng = rng_for(config.seed, "run", device.name, subject.number, task, number)
        simulated, truth = _simulate(config, device, anatomy, field, info, task, rng)
        write_run(simulated, path)
        where = path.relative_to(root).as_posix()
        rows.append({"path": where, "subject": subject.label, "task": task, "run": number} | truth)
    return _person(subject, anatomy, info), rows


def _simulate(
    config: SimulateConfig,
    device: Device,
    anatomy: Anatomy,
    field: np.ndarray,
    info: mne.Info,
    task: str,
    rng: np.random.Generator,
) -> tuple[Run, dict[str, Any]]:
    trials = make_trials(config, anatomy, rng) if task == "motor" else ()
    seconds = trials[-1].onset_s + config.trial_s + config.gap_s[0] if trials else config.resting_s
    duration_s = int(np.ceil(seconds))  # EDF holds whole seconds
    blinks = make_blinks(duration_s, rng)
    n_times = round(duration_s * device.sfreq)
    moments = make_activity(anatomy, trials, blinks, n_times, device.sfreq, rng)
    ch_names = list(info["ch_names"])
    bad = draw_bad_channels(config, ch_names, rng)
    rows = {ch_names.index(name): how for name, how in bad.items()}
    signal = add_artefacts(field.astype(np.float32) @ moments, device, rows, rng)
    truth = {
        "device": device.name,
        "sfreq": device.sfreq,
        "n_channels": len(ch_names),
        "duration_s": duration_s,
        "line_hz": device.line_hz,
        "bad_channels": bad,
        "blinks_s": blinks.tolist(),
        "events": [vars(trial) for trial in trials],
    }
    return Run(device=device, info=info, signal=signal, trials=trials), truth


def _person(subject: _Subject, anatomy: Anatomy, info: mne.Info) -> dict[str, Any]:
    sources = {
        name: {
            "position": anatomy.position[anatomy.of_patch(name)].round(5).tolist(),
            "orientation": anatomy.orientation[anatomy.of_patch(name)].round(4).tolist(),
            "moment": anatomy.moment[anatomy.of_patch(name)].tolist(),
        }
        for name in (*PATCHES, "background")
    }
    move = info["dev_head_t"]
    return {
        "subject": subject.label,
        "device": subject.device.name,
        "head_centre": anatomy.centre.tolist(),
        "head_radius": anatomy.radius,
        "alpha_hz": anatomy.alpha_hz,
        "mu_hz": anatomy.mu_hz,
        "beta_hz": anatomy.beta_hz,
        "reactivity": anatomy.reactivity,
        "dev_head_t": None if move is None else np.asarray(move["trans"]).tolist(),
        "sources": sources,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _result(folder: Path, truth: dict[str, Any], *, written: bool) -> SimulateResult:
    columns = ("path", "subject", "device", "task", "run", "sfreq", "n_channels", "duration_s")
    table = pd.DataFrame(
        [
            {name: row[name] for name in columns}
            | {"n_events": len(row["events"]), "n_bad": len(row["bad_channels"])}
            for row in truth["recordings"]
        ]
    )
    return SimulateResult(folder=folder, recordings=table, written=written)

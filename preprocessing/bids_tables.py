"""Tables of a BIDS dataset: electrodes and their frame, reference, units."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd

from neurofm.errors import SourceError
from neurofm.preprocessing.magic import Facts

_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
# frames whose axes and origin are those of MNE's head frame by definition
_HEAD = ("captrak", "neuromag", "elektaneuromag")
_TEMPLATES = ("mni", "fsaverage", "icbm", "talairach", "colin", "sptemplate")
_LANDMARKS = {"nasion": ("NAS", "NASION"), "lpa": ("LPA",), "rpa": ("RPA",)}
_OF_RECORDING = ("_eeg.json", "_meg.json", "_ieeg.json")
_REGIONS = ("region", "anat", "anatomy", "location", "brainregion", "label", "atlas")
_MICRO = str.maketrans({"μ": "u", "µ": "u"})


@dataclass(frozen=True)
class _Frame:
    """What a coordsystem.json says of positions."""

    name: str
    scale: float
    landmarks: dict[str, np.ndarray]


def place_electrodes(raw: mne.io.BaseRaw, tables: Sequence[Path], facts: Facts) -> None:
    """Put the electrodes of ``electrodes.tsv`` where its coordinate system says.

    Positions of scalp electrodes are moved to the head frame by the landmarks given with them;
    those of contacts inside the head stay in the frame of the template or scan, and `facts` say
    which. What cannot be placed is told in `facts` and left without a position.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Its channels get positions.
    tables : sequence of Path
        The recording's sidecars, the nearest first.
    facts : Facts
        Gets frame, regions and notes.
    """
    placed = _first_placeable(tables)
    if placed is None:
        return
    path, table, frame = placed
    facts.regions |= _regions(table)
    positions = _in_metres(_positions(table), frame, path, facts)
    if unnamed := sorted(set(positions) - set(raw.ch_names)):
        facts.notes.append(
            f"{path.name} names {len(unnamed)} electrodes that are no channels: "
            + ", ".join(unnamed[:6])
        )
    absent = np.full(3, np.nan)
    electric = mne.pick_types(raw.info, eeg=True, seeg=True, ecog=True, dbs=True, exclude=[])
    with raw.info._unlock():
        for ch in (raw.info["chs"][i] for i in electric):
            # mne-bids takes positions in a frame it does not know for positions in the head
            ch["loc"][:3] = positions.get(ch["ch_name"], absent)
            ch["coord_frame"] = mne.io.constants.FIFF.FIFFV_COORD_HEAD


def _in_metres(
    positions: dict[str, np.ndarray], frame: _Frame, path: Path, facts: Facts
) -> dict[str, np.ndarray]:
    """Return positions in metres: in the head, or in the frame that `facts` are then told."""
    name = frame.name.lower().replace("-", "").replace("_", "")
    positions = {electrode: xyz * frame.scale for electrode, xyz in positions.items()}
    if len(frame.landmarks) == len(_LANDMARKS):
        to_head = mne.transforms.get_ras_to_neuromag_trans(
            *(frame.landmarks[key] for key in ("nasion", "lpa", "rpa"))
        )
        return {e: mne.transforms.apply_trans(to_head, xyz) for e, xyz in positions.items()}
    if name in _HEAD:
        return positions
    if "ieeg" in path.parts:
        facts.frame = "mni" if name.startswith(_TEMPLATES) else "scan"
        return positions
    facts.notes.append(
        f"{path.name}: positions are in the frame {frame.name!r} without landmarks: not used"
    )
    return {}


def _first_placeable(tables: Sequence[Path]) -> tuple[Path, pd.DataFrame, _Frame] | None:
    """Return the electrodes whose frame is known best: with landmarks, or any."""
    found = []
    for path in tables:
        if not path.name.endswith("electrodes.tsv"):
            continue
        frame = _frame_of(path, tables)
        if frame is not None:
            found.append((path, read_table(path), frame))
    found.sort(key=lambda item: (-len(item[2].landmarks), -len(item[1])))
    return found[0] if found else None


def _frame_of(electrodes: Path, tables: Sequence[Path]) -> _Frame | None:
    beside = electrodes.name.replace("electrodes.tsv", "coordsystem.json")
    systems = [t for t in tables if t.name.endswith("coordsystem.json")]
    # of its own name first; else the one there is
    path = next((t for t in systems if t.name == beside), systems[0] if systems else None)
    if path is None:
        return None
    told = read_json(path)
    kind = "iEEG" if "iEEGCoordinateSystem" in told else "EEG"
    unit = str(told.get(f"{kind}CoordinateUnits", ""))
    if unit not in _METRES:
        return None
    given = told.get("AnatomicalLandmarkCoordinates") or told.get("FiducialsCoordinates") or {}
    landmark_unit = str(told.get("AnatomicalLandmarkCoordinateUnits", unit))
    landmarks = {}
    for key, names in _LANDMARKS.items():
        for name in names:
            if name in given and landmark_unit in _METRES:
                xyz = np.asarray(given[name], float)
                if xyz.shape == (3,) and np.isfinite(xyz).all():
                    landmarks[key] = xyz * _METRES[landmark_unit]
    name = str(told.get(f"{kind}CoordinateSystem", ""))
    # a head is found by its landmarks; what is in a template or a scan stays there
    return _Frame(name, _METRES[unit], landmarks if kind == "EEG" else {})


def _positions(table: pd.DataFrame) -> dict[str, np.ndarray]:
    if not {"name", "x", "y", "z"} <= set(table.columns):
        return {}
    xyz = table[["x", "y", "z"]].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    return {
        str(name): row
        for name, row in zip(table["name"], xyz, strict=True)
        if np.isfinite(row).all()
    }


def _regions(table: pd.DataFrame) -> dict[str, str]:
    for column in table.columns:
        if str(column).lower().replace("_", "") in _REGIONS:
            return {
                str(name): str(region)
                for name, region in zip(table["name"], table[column], strict=True)
                if isinstance(region, str) and region.lower() not in ("n/a", "", "nan", "unknown")
            }
    return {}


def read_reference(tables: Sequence[Path]) -> str:
    """Return what ``*_eeg.json`` or ``*_ieeg.json`` calls the reference; empty if unknown."""
    for path in tables:
        if path.name.endswith("eeg.json"):
            told = read_json(path)
            text = str(told.get("EEGReference") or told.get("iEEGReference") or "").strip()
            return "" if text.lower() in ("n/a", "unknown", "none") else text
    return ""


def length_notes(raw: mne.io.BaseRaw, tables: Sequence[Path]) -> list[str]:
    """Say where the sidecar tells another sampling rate or length than the file has."""
    told = next((read_json(t) for t in tables if t.name.endswith(_OF_RECORDING)), {})
    sfreq = float(raw.info["sfreq"])
    found = {"SamplingFrequency": (sfreq, "Hz"), "RecordingDuration": (raw.n_times / sfreq, "s")}
    notes = []
    for key, (value, unit) in found.items():
        said = told.get(key)
        # durations are often rounded, or count one sample less
        if isinstance(said, int | float) and abs(said - value) > max(0.005 * value, 1 / sfreq):
            notes.append(f"the sidecar's {key} is {said:g} {unit}, the file's {value:g} {unit}")
    return notes


def unit_notes(raw: mne.io.BaseRaw, tables: Sequence[Path]) -> list[str]:
    """Say where ``channels.tsv`` and the header do not agree on the unit."""
    path = next((t for t in tables if t.name.endswith("channels.tsv")), None)
    header = getattr(raw, "_orig_units", None) or {}
    if path is None or not header:
        return []
    table = read_table(path)
    if not {"name", "units"} <= set(table.columns):
        return []
    differing = []
    for name, unit in zip(table["name"], table["units"], strict=True):
        told, found = str(unit).translate(_MICRO), str(header.get(name, "")).translate(_MICRO)
        # many tools write V into the table, whatever the file holds, as MNE works in volts
        if found.endswith("V") and told not in ("V", found, "n/a", ""):
            differing.append(f"{name} ({told} against {found})")
    if not differing:
        return []
    note = (
        f"channels.tsv and the header do not agree on the unit of {len(differing)} channels; the "
        f"header was believed: {', '.join(differing[:4])}"
    )
    return [note]


def settle_events(raw: mne.io.BaseRaw, tables: Sequence[Path]) -> list[str]:
    """Give events the names of ``events.tsv``; return what is to be told of rows left out.

    mne-bids calls events of one `trial_type` that differ in `value` ``trial_type/value``.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Its annotations get their names back.
    tables : sequence of Path
        The recording's sidecars, the nearest first.
    """
    path = next((t for t in tables if t.name.endswith("events.tsv")), None)
    if path is None:
        return []
    table = read_table(path)
    onset = pd.to_numeric(table["onset"], errors="coerce")
    named = next((c for c in ("trial_type", "stim_type") if c in table), None)
    kinds = table[named] if named else pd.Series("", index=table.index)
    if named and "value" in table:
        values = table["value"].replace("n/a", "na")
        back = dict(zip(kinds + "/" + values, kinds, strict=True))
        known = set(kinds)
        said = [d if d in known else back.get(d, d) for d in raw.annotations.description]
        raw.annotations.description = np.array(said, dtype=str)
    timed, nameless = onset.notna().to_numpy(), (kinds == "n/a").to_numpy()
    lost = {"onset": int((~timed).sum())}
    if not nameless.all():  # mne-bids then goes by `value`
        lost[named or ""] = int((nameless & timed).sum())
    return [
        f"{n} of {len(table)} rows of {path.name} have no {what}: left out"
        for what, n in lost.items()
        if n
    ]


def participant_of(path: Path, subject: str) -> dict[str, str]:
    """Return what ``participants.tsv`` says of a person, as text; empty if nothing."""
    if not path.is_file():
        return {}
    table = read_table(path)
    rows = table[table["participant_id"].str.removeprefix("sub-") == subject]
    if not len(rows):
        return {}
    said = rows.iloc[0].drop("participant_id")
    return {str(k): str(v) for k, v in said.items() if str(v).lower() not in ("n/a", "", "nan")}


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as text; raise `SourceError` if it is none."""
    try:
        return pd.read_csv(path, sep="\t", dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (ValueError, UnicodeError) as error:
        raise SourceError(f"{path}: not a table: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read keys and values; raise `SourceError` if it is not JSON."""
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeError) as error:
        raise SourceError(f"{path}: not JSON: {error}") from error
    return told if isinstance(told, dict) else {}

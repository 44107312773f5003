"""Simulated runs as the files that each device would have written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
import pybv
from edfio import Edf, EdfAnnotation, EdfSignal

from neurofm.simulate.activity import CLASSES, Trial
from neurofm.simulate.devices import Device

CODES = {label: number for number, label in enumerate(CLASSES, start=1)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One simulated run, ready to be written.

    Attributes
    ----------
    device : Device
        Which format, and how channels are called.
    info : mne.Info
        Sensors of the recorded channels.
    signal : ndarray of float32, shape (C, T)
        Volts or tesla.
    trials : tuple of Trial
        Written as annotations, markers or triggers.
    """

    device: Device
    info: mne.Info
    signal: np.ndarray
    trials: tuple[Trial, ...]


def write_run(run: Run, path: Path) -> None:
    """Write a run to `path`, in the format of its extension.

    Parameters
    ----------
    run : Run
        What to write. BrainVision carries stimulus codes (`CODES`), EDF and intracranial
        FIF annotations, MEG a stimulus channel ``STI 014`` with the codes.
    path : Path
        A ``.vhdr``, ``.edf`` or ``.fif`` file in a folder that exists.
    """
    if path.suffix == ".vhdr":
        _write_brainvision(run, path)
    elif path.suffix == ".edf":
        _write_edf(run, path)
    else:
        _write_fif(run, path)


def _write_brainvision(run: Run, path: Path) -> None:
    sfreq = run.device.sfreq
    events: list[dict[str, str | int]] = [
        {
            "onset": round(trial.onset_s * sfreq),
            "duration": round(trial.duration_s * sfreq),
            "description": CODES[trial.label],
            "type": "Stimulus",
        }
        for trial in run.trials
    ]
    pybv.write_brainvision(
        data=run.signal,
        sfreq=sfreq,
        ch_names=run.info["ch_names"],
        ref_ch_names="+".join(run.device.reference),
        fname_base=path.stem,
        folder_out=path.parent,
        events=events or None,
    )


def _write_edf(run: Run, path: Path) -> None:
    signals = []
    for name, row in zip(run.info["ch_names"], run.signal * 1e6, strict=True):
        limit = max(1.0, float(np.ceil(np.abs(row).max())))  # a flat channel needs a range too
        signals.append(
            EdfSignal(
                row.astype(np.float64),
                sampling_frequency=run.device.sfreq,
                label=name,
                transducer_type="AgAgCl electrode",
                physical_dimension="uV",
                physical_range=(-limit, limit),
            )
        )
    annotations = [EdfAnnotation(t.onset_s, t.duration_s, t.label) for t in run.trials]
    Edf(signals, annotations=annotations).write(path)


def _write_fif(run: Run, path: Path) -> None:
    raw = mne.io.RawArray(run.signal, run.info, verbose="ERROR")
    if run.device.datatype == "meg":
        raw.add_channels([_triggers(run)], force_update_info=True)
    elif run.trials:
        onsets, durations, labels = zip(
            *((t.onset_s, t.duration_s, t.label) for t in run.trials), strict=True
        )
        raw.set_annotations(mne.Annotations(onsets, durations, labels))
    raw.save(path, verbose="ERROR")


def _triggers(run: Run) -> mne.io.RawArray:
    code = np.zeros((1, run.signal.shape[1]))
    for trial in run.trials:
        start = round(trial.onset_s * run.device.sfreq)
        code[0, start : start + round(0.05 * run.device.sfreq)] = CODES[trial.label]
    info = mne.create_info(["STI 014"], run.device.sfreq, "stim")
    return mne.io.RawArray(code, info, verbose="ERROR")

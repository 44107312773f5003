"""A recording made to be what a signal contract promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurofm.contract import SignalContract
from neurofm.errors import SignalError
from neurofm.preprocessing.cleaning import CleaningConfig
from neurofm.preprocessing.engine import Operator, run
from neurofm.preprocessing.from_mne import RawReader
from neurofm.preprocessing.mains import also_there, find_mains, harmonics, middle
from neurofm.preprocessing.reference import Rereference
from neurofm.preprocessing.scan import Scan
from neurofm.preprocessing.spatial import selection
from neurofm.preprocessing.spill import SpilledSignal
from neurofm.preprocessing.steps import (
    BandPass,
    Notch,
    Resample,
    Temporal,
    apply,
    fused,
    stretches,
    told,
)
from neurofm.preprocessing.units import Units, settle_units
from neurofm.sensors import Sensors
from neurofm.signals import Recording

# Samples of all channels held at a time where a recording is made in memory.
_STRETCH = 65_536
_NOT_KEPT = "of a kind the contract does not keep"


def harmonise(
    recording: Recording,
    contract: SignalContract,
    cleaning: CleaningConfig | None = None,
    *,
    units: Units = "check",
) -> Recording:
    """Apply a contract: kinds, mains, band, rate, bad channels and reference, in this order.

    Parameters
    ----------
    recording : Recording
        As recorded, in SI units.
    contract : SignalContract
        What it is to become.
    cleaning : CleaningConfig, optional
        What becomes of bad channels and moments; by default bad channels are dropped.
    units : "check", "repair" or "trust"
        What is done about amplitudes that are not plausible; see `units.settle_units`.

    Returns
    -------
    Recording
        At the contract's rate and band, in SI units and in memory; what was done is in its
        history.

    Raises
    ------
    SignalError
        If the sampling rate is below twice the band, no channel of the contract's kinds is
        there, amplitudes are not plausible, or less than one window is left.
    """
    where = recording.recording_id
    _require_enough(where, recording.sfreq, recording.n_times, contract)
    rows = _kept_rows(recording.sensors, contract, where)
    lowpass = [step["lowpass_hz"] for step in recording.history if step.get("lowpass_hz")]
    recording = recording.evolve(
        _kinds_step(recording.sensors, rows, contract, lowpass[0] if lowpass else None),
        signal=recording.signal if len(rows) == len(recording.sensors) else recording.signal[rows],
        sensors=recording.sensors.select(rows),
    )
    steps, found = _temporal(recording, contract)
    recording = apply(steps, replace(recording, history=(*recording.history, *found)))
    recording = _cleaned(recording, contract, cleaning or CleaningConfig(), units)
    return replace(recording, signal=_in_memory(recording))


def harmonise_file(
    reader: RawReader,
    contract: SignalContract,
    folder: Path | None,
    cleaning: CleaningConfig | None = None,
    *,
    units: Units = "check",
) -> Recording:
    """Do what `harmonise` does to a recording that is read and filtered a block at a time.

    Parameters
    ----------
    reader : RawReader
        The recording, not read yet.
    contract : SignalContract
        What it is to become.
    folder : Path or None
        Where the filtered samples may be put, by default where temporary files go; they have
        no name there and go with the result.
    cleaning : CleaningConfig, optional
        What becomes of bad channels and moments; by default bad channels are dropped. The
        reader must have been told what becomes of bad channels, too.
    units : "check", "repair" or "trust"
        What is done about amplitudes that are not plausible; see `units.settle_units`.

    Returns
    -------
    Recording
        Its signal lies in a file, and is referenced when it is asked for: walk its `blocks`.

    Raises
    ------
    SignalError
        As `harmonise`, or if no channel carries a signal.
    SourceError
        If the file cannot be read.
    StoreError
        If there is no room in `folder`.
    """
    _require_enough(reader.where, reader.sfreq, reader.n_times, contract)
    rows = _kept_rows(reader.sensors, contract, reader.where)
    sensors = reader.sensors.select(rows)
    start, stop = middle(reader.n_times, reader.sfreq)
    sample = Recording(
        signal=_stretch(reader, start, stop)[rows],
        sfreq=reader.sfreq,
        sensors=sensors,
        entities=reader.entities,
    )
    steps, found = _temporal(sample, contract)
    del sample
    operator = fused(steps, reader.sfreq)
    pieces = stretches(reader.events, reader.sfreq, reader.n_times)
    signal, scan = _filtered(reader, rows, operator, pieces, folder)
    usable, step = reader.verdict(scan)
    heard = reader.sensors.select(usable)
    kept = _kept_rows(heard, contract, reader.where)
    recording = Recording(
        signal=signal,  # type: ignore[arg-type]  # it slices like an array
        sfreq=operator.sfreq_out,
        sensors=sensors,
        entities=reader.entities,
        events=reader.events,
    )
    if len(kept) < len(rows):
        carrying = np.flatnonzero(np.isin(rows, usable))
        recording = selection(sensors, carrying, {}).lazily(recording)
    kinds = _kinds_step(heard, kept, contract, step.get("lowpass_hz"))
    history = (step, kinds, *found, *told(steps, reader.sfreq, pieces))
    recording = replace(recording, history=history)
    return _cleaned(recording, contract, cleaning or CleaningConfig(), units)


def _filtered(
    reader: RawReader,
    rows: np.ndarray,
    operator: Operator,
    pieces: Sequence[tuple[int, int]],
    folder: Path | None,
) -> tuple[SpilledSignal, Scan]:
    """Read a recording once: filter some rows into a file, and scan all of them."""
    signal = SpilledSignal((len(rows), operator.n_times_out(reader.n_times)), folder)
    direct = reader.direct
    scan = Scan(len(reader.sensors), direct.scale if direct else 1.0)
    samples = direct.read if direct else reader.read
    whole = len(rows) == len(reader.sensors)

    def read(start: int, stop: int) -> np.ndarray:
        block = samples(start, stop)
        scan.add(block)
        return block if whole else block[rows]

    def sink(start: int, block: np.ndarray) -> None:
        if direct:  # so far in units of the file
            block *= direct.scale[rows, None].astype(np.float32)
        signal.write(start, block)

    run(operator, read, len(rows), pieces, sink, np.float32 if direct else np.float64)
    return signal, scan


def dropped_channels(recording: Recording) -> dict[str, str]:
    """Collect from the history why channels were dropped."""
    dropped: dict[str, str] = {}
    for step in recording.history:
        dropped |= step.get("dropped", {})
    return dropped


def notes_of(recording: Recording) -> list[str]:
    """Collect the notes in the history."""
    return [note for step in recording.history for note in step.get("notes", ())]


def _require_enough(where: str, sfreq: float, n_times: int, contract: SignalContract) -> None:
    _, high = contract.band_hz
    if sfreq < 2 * high:
        raise SignalError(
            f"{where}: the sampling rate of {sfreq:g} Hz is below twice the band "
            f"({2 * high:g} Hz): {high:g} Hz cannot be in it",
            hint="lower the contract's band_hz, or exclude the recording",
        )
    if fused((Resample(sfreq=contract.sfreq),), sfreq).n_times_out(n_times) < contract.n_times:
        raise SignalError(
            f"{where}: {n_times / sfreq:g} s long, shorter than one window of "
            f"{contract.window_s:g} s",
            hint="exclude the recording, or use a shorter window_s",
        )


def _kept_rows(sensors: Sensors, contract: SignalContract, where: str) -> np.ndarray:
    rows = np.flatnonzero([contract.keeps(kind) for kind in sensors.kind])
    if not len(rows):
        raise SignalError(
            f"{where}: no usable channel: the contract keeps {', '.join(contract.kinds)}; "
            f"the recording has {', '.join(sensors.kinds)}",
            hint="add the kind to the contract's `kinds`, or repair the types in `channels`",
        )
    return rows


def _kinds_step(
    sensors: Sensors, rows: np.ndarray, contract: SignalContract, lowpass_hz: float | None
) -> dict[str, Any]:
    step: dict[str, Any] = {"step": "keep_kinds", "kinds": list(contract.kinds)}
    high = contract.band_hz[1]
    if lowpass_hz is not None and lowpass_hz < high:
        step["notes"] = [
            f"recorded with a low-pass at {lowpass_hz:g} Hz, below the band's {high:g}"
        ]
    if others := sorted(set(range(len(sensors))) - set(rows.tolist())):
        step["dropped"] = {sensors.ch_names[i]: _NOT_KEPT for i in others}
    return step


def _temporal(
    recording: Recording, contract: SignalContract
) -> tuple[list[Temporal], list[dict[str, Any]]]:
    """Return the filters a contract asks for, and what was found out on the way.

    The recording is as recorded; its middle is enough.
    """
    low, high = contract.band_hz
    steps: list[Temporal] = []
    found: list[dict[str, Any]] = []
    if contract.line_hz != "none":
        step: dict[str, Any] = {"step": "find_mains"}
        if contract.line_hz == "auto":
            line, step["prominence"] = find_mains(recording)
            if other := also_there(line, step["prominence"]):
                step["notes"] = [
                    f"{other} Hz stands out of the spectrum beside {line:g} Hz, and stays"
                ]
        else:
            line = contract.line_hz
        found.append(step | {"line_hz": line})
        # what lies beyond the low-pass's slope needs no notch
        reach = min(recording.sfreq / 2 - 1, 1.25 * high + 2)
        if line is not None and (freqs := harmonics(line, reach)):
            steps.append(Notch(freqs_hz=freqs))
    return [*steps, BandPass(low_hz=low, high_hz=high), Resample(sfreq=contract.sfreq)], found


def _cleaned(
    recording: Recording, contract: SignalContract, cleaning: CleaningConfig, units: Units
) -> Recording:
    """Do what comes after filtering; samples are mixed when they are asked for."""
    # before units are judged and a reference is made, which bad channels would spoil
    recording = settle_units(cleaning.channels(recording), units)
    spatial = Rereference(reference=contract.references).operator(recording)
    return cleaning.moments(recording if spatial is None else spatial.lazily(recording))


def _stretch(reader: RawReader, start: int, stop: int) -> np.ndarray:
    """Read some of a recording; offsets are taken out before digits are."""
    if (direct := reader.direct) is not None:
        signal = direct.read(start, stop)
        signal -= signal[:, :1]
        signal *= direct.scale[:, None].astype(np.float32)
        return signal
    signal = np.empty((len(reader.sensors), stop - start), np.float32)
    step = max(1, (1 << 18) // len(signal))  # small enough to be sorted by channel in the cache
    first = reader.read(start, start + 1)
    for at in range(start, stop, step):
        signal[:, at - start : at - start + step] = reader.read(at, min(at + step, stop)) - first
    return signal


def _in_memory(recording: Recording) -> np.ndarray:
    if isinstance(recording.signal, np.ndarray):
        return recording.signal
    out = np.empty(recording.signal.shape, np.float32)
    for start, block in recording.blocks(_STRETCH):
        out[:, start : start + block.shape[1]] = block
    return out

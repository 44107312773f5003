"""How surely `audit` finds a recording again that was made anew, and never takes a stranger for it.

Real recordings are harmonised under one contract into a store; changed, and harmonised under
other contracts, into others. Printed are what was found, missed and wrong, the share of equal
bits, and how far strangers come at any shift in time, over all pairs.

    python benchmarks/audit.py --data ../data
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import mne
import numpy as np
import scipy.fft

from neurofm.contract import SignalContract
from neurofm.errors import SignalError
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.harmonise import harmonise
from neurofm.signals import Entities, Recording
from neurofm.store.audit import audit
from neurofm.store.fingerprint import BITS_PER_FREE_BIT, N_BITS, Fingerprint, fingerprints
from neurofm.store.matching import LEAST_DEVIATIONS, LEAST_SHARE
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording

FIRST = SignalContract(sfreq=128.0, band_hz=(0.5, 45.0), window_s=2.0)
OTHER = SignalContract(sfreq=100.0, band_hz=(1.0, 40.0), reference={"eeg": "average"}, window_s=2.0)
LEAST_OVERLAP_S = 10.0


def read(path: Path, number: int) -> Recording | None:
    """Read a recording's EEG; None if it is not usable."""
    raw = mne.io.read_raw(path, verbose="error")
    raw.drop_channels([c for c in raw.ch_names if "ECG" in c or "A2-A1" in c])
    try:
        named = Entities(dataset="real", subject=f"{number:03d}")
        return recording_from_raw(raw, named, unit_scale=1000.0 if path.suffix == ".gdf" else 1.0)
    except SignalError:
        return None


def rounded(recording: Recording) -> Recording:
    """As a file format of few bits: steps of a sixteenth of the median deviation."""
    step = np.float32(np.median(recording.signal.std(axis=1)) / 16)
    return recording.evolve(signal=np.round(recording.signal / step) * step)


def upside_down(recording: Recording) -> Recording:
    """Another order of channels, another sign, half of the gain."""
    order = np.arange(len(recording.sensors))[::-1]
    signal = np.ascontiguousarray(-recording.signal[order] / 2)
    return recording.evolve(signal=signal, sensors=recording.sensors.select(order))


def cut(start_s: float, stop_s: float) -> Callable[[Recording], Recording]:
    """Only a stretch of it."""

    def change(recording: Recording) -> Recording:
        at = slice(round(start_s * recording.sfreq), round(stop_s * recording.sfreq))
        return recording.evolve(signal=recording.signal[:, at].copy(), events=())

    return change


def half_the_channels(recording: Recording) -> Recording:
    """Every second channel."""
    kept = np.arange(0, len(recording.sensors), 2)
    signal = np.ascontiguousarray(recording.signal[kept])
    return recording.evolve(signal=signal, sensors=recording.sensors.select(kept))


CHANGES: dict[str, tuple[Callable[[Recording], Recording], SignalContract]] = {
    "128 -> 100 Hz, 1-40 Hz, average reference": (lambda r: r, OTHER),
    "and steps of SD / 16": (rounded, OTHER),
    "and other order, sign and gain": (upside_down, OTHER),
    "and every second channel": (half_the_channels, OTHER),
    "and 30 s cut out at 7.37 s": (cut(7.37, 37.37), OTHER),
    "and 20 s cut out at 7.37 s": (cut(7.37, 27.37), OTHER),
    "and 12 s cut out at 7.37 s": (cut(7.37, 19.37), OTHER),
}


def make(path: Path, recordings: Sequence[Recording], contract: SignalContract) -> Path:
    """Harmonise recordings into a store."""
    create_store(path, contract)
    rows = []
    for recording in recordings:
        made = harmonise(recording, contract)
        rows.append(write_recording(path, made, quality={}, provenance={}))
    commit(path, rows)
    return path


def prints_of(path: Path) -> dict[str, Fingerprint]:
    """Return the fingerprint of each recording of a store."""
    store = open_store(path)
    found = {}
    for name, n_times in store.index[["recording_id", "n_times"]].itertuples(index=False):
        signal, kinds = store.recording(name).signal, store.sensors(name).kind
        (found[name],) = fingerprints(
            lambda i, j, s=signal: s[:, i:j], n_times, store.contract.sfreq, kinds
        )
    return found


def strangers(a: dict[str, Fingerprint], b: dict[str, Fingerprint]) -> tuple[np.ndarray, ...]:
    """Return the highest share and deviation of each pair of strangers, over all shifts."""
    longest = max(len(p) for p in (*a.values(), *b.values()))
    n = scipy.fft.next_fast_len(2 * longest)
    least = round(LEAST_OVERLAP_S * 4)

    def spectra(prints: dict[str, Fingerprint]) -> list[tuple[str, int, np.ndarray]]:
        found = []
        for name, print_ in prints.items():
            signs = 2.0 * (print_.codes[:, None] >> np.arange(N_BITS) & 1) - 1
            found.append((name, len(signs), scipy.fft.rfft(signs, n, axis=0)))
        return found

    shares, deviations = [], []
    here, there = spectra(a), spectra(b)
    lags = scipy.fft.fftfreq(n, 1 / n).astype(int)
    for name, length, x in here:
        for other, width, y in there:
            if name == other:
                continue
            overlap = np.minimum(length, lags + width) - np.maximum(0, lags)
            equal = scipy.fft.irfft((x * y.conj()).sum(axis=1), n)
            kept = overlap >= least
            share = equal[kept] / (N_BITS * overlap[kept])  # from -1 to 1
            shares.append(0.5 + share.max() / 2)
            free = np.sqrt(N_BITS * overlap[kept] / BITS_PER_FREE_BIT)
            deviations.append((share * free).max())
    return np.array(shares), np.array(deviations)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("NEUROFM_TEST_DATA", "data"))
    parser.add_argument("--most", type=int, default=1000, help="files, at most")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    files = [
        *sorted(args.data.glob("eegmat/*.edf")),
        *sorted(args.data.glob("eegmmidb/**/*.edf")),
        *sorted(args.data.glob("ssvep_exo/subject*/*.gdf")),
    ][: args.most]
    if not files:
        print(f"no real recordings at {args.data}: say where they are, or set NEUROFM_TEST_DATA")
        return
    recordings = [r for i, f in enumerate(files) if (r := read(f, i)) is not None]
    hours = sum(r.duration_s for r in recordings) / 3600
    print(f"{len(recordings)} real recordings, {hours:.2f} h\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        first = make(folder / "first", recordings, FIRST)
        print("| made anew | found | missed | wrong | least share | s | x real time |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        for number, (name, (change, contract)) in enumerate(CHANGES.items()):
            anew = make(folder / str(number), [change(r) for r in recordings], contract)
            begin = time.perf_counter()
            matches = audit(first, anew).signals
            took = time.perf_counter() - begin
            right = [m for m in matches if m.a == m.b]
            share = min((m.share for m in right), default=float("nan"))
            print(
                f"| {name} | {len(right)} | {len(recordings) - len(right)} "
                f"| {len(matches) - len(right)} | {share:.3f} | {took:.1f} "
                f"| {2 * hours * 3600 / took:.0f} |"
            )
        shares, deviations = strangers(prints_of(first), prints_of(folder / "0"))
    print(f"\n{len(shares)} pairs of strangers, every shift with {LEAST_OVERLAP_S:g} s in common:")
    print(f"highest share of equal bits: median {np.median(shares):.3f}, most {shares.max():.3f}")
    print(f"highest deviation: median {np.median(deviations):.1f}, most {deviations.max():.1f}")
    print(f"a match needs {LEAST_SHARE} and {LEAST_DEVIATIONS:g} together")


if __name__ == "__main__":
    main()

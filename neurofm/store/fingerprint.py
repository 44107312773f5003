"""What identifies a signal whatever was done to it: bits that say how its spectrum moves.

Every quarter of a second, the energy in sixteen bands between 2 and 30 Hz over two seconds,
averaged over channels on a logarithmic scale; a bit is whether the difference of two neighbouring
bands grew since two seconds before. Gain, order of channels, sampling rate, rounding, reference
and filters that leave the bands alone hardly change a bit; another stretch of signal shares half
of them by chance, as in the fingerprints of music (Haitsma and Kalker, 2002).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft

from neurofm.sensors import MEG_KINDS

BAND_HZ = (2.0, 30.0)
N_BANDS = 16
N_BITS = N_BANDS - 1
FRAME_S, HOP_S = 2.0, 0.25
APART = round(FRAME_S / HOP_S)  # frames that share no sample
SHORTEST_S = 10.0
BLOCK_FRAMES = 240
SILENCE = 1e-40  # power, below what any sensor gives in SI units

# Bits of one entry hang together: neighbouring frames share seven eighths of their samples. On
# real recordings the share of equal bits of two strangers scatters as if every third bit counted.
BITS_PER_FREE_BIT = 3.0


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Bits of one kind of sensor in one recording.

    Attributes
    ----------
    codes : ndarray of uint16, shape (n,)
        Fifteen bits every quarter of a second.
    valid : ndarray of bool, shape (n,)
        Where there was a signal.
    """

    codes: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def words(self) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers of thirty bits, and the rows they begin at.

        Two stretches of one signal share some of them exactly, two strangers hardly any.
        Words that come again and again tell nothing, and are left out.
        """
        rows = np.flatnonzero(self.valid[:-APART] & self.valid[APART:])
        codes = self.codes.astype(np.int64)
        words = codes[rows] << N_BITS | codes[rows + APART]
        found, inverse, counts = np.unique(words, return_inverse=True, return_counts=True)
        telling = (counts <= 4)[inverse] & (words != 0) if len(found) else np.zeros(0, bool)
        return words[telling], rows[telling]


Read = Callable[[int, int], np.ndarray]


def fingerprints(
    read: Read,
    n_times: int,
    sfreq: float,
    kinds: np.ndarray,
    band_hz: tuple[float, float] = BAND_HZ,
) -> list[Fingerprint]:
    """Compute the fingerprint of each kind of sensor in a recording, a minute at a time.

    Parameters
    ----------
    read : callable
        Gives samples from `start` to `stop`, float32 (C, n) in SI units.
    n_times : int
        Samples in the recording.
    sfreq : float
        Sampling rate in hertz.
    kinds : ndarray of int8, shape (C,)
        `SensorKind` codes.
    band_hz : (float, float)
        What both recordings that will be compared have kept.

    Returns
    -------
    list of Fingerprint
        One a kind, in code order; none if the recording is shorter than ten seconds.
    """
    if n_times < SHORTEST_S * sfreq:
        return []
    length = round(FRAME_S * sfreq)
    n_frames = int((n_times / sfreq - FRAME_S) / HOP_S) + 1
    starts = np.rint(np.arange(n_frames) * HOP_S * sfreq).astype(int)
    starts = starts[starts + length <= n_times]
    groups = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    energy: list[list[np.ndarray]] = [[] for _ in groups]
    for first in range(0, len(starts), BLOCK_FRAMES):
        block = starts[first : first + BLOCK_FRAMES]
        signal = read(int(block[0]), int(block[-1]) + length)
        for parts, rows in zip(energy, groups, strict=True):
            referenced = _own_reference(signal[rows], int(kinds[rows[0]]))
            parts.append(_energy(referenced, block - block[0], length, sfreq, band_hz))
    return [_fingerprint(np.concatenate(parts)) for parts in energy]


def _own_reference(signal: np.ndarray, kind: int) -> np.ndarray:
    """Make potentials independent of what they were taken against, where enough of them are."""
    if kind in MEG_KINDS or len(signal) < 4:
        return signal
    return signal - signal.mean(axis=0)


def _energy(
    signal: np.ndarray, starts: np.ndarray, length: int, sfreq: float, band_hz: tuple[float, float]
) -> np.ndarray:
    """Return the logarithm of the energy in each band, averaged over channels: (frames, bands)."""
    window = np.hanning(length).astype(np.float32)
    frequencies = np.fft.rfftfreq(length, 1 / sfreq)
    edges = np.searchsorted(frequencies, np.linspace(*band_hz, N_BANDS + 1) - 1e-9)
    total = np.zeros((len(starts), N_BANDS))
    for channel in signal:
        frames = channel[starts[:, None] + np.arange(length)] * window
        power = np.abs(scipy.fft.rfft(frames, axis=1)[:, : edges[-1]]) ** 2
        total += np.log(np.add.reduceat(power, edges[:-1], axis=1) + SILENCE)
    return total / len(signal)


def _fingerprint(energy: np.ndarray) -> Fingerprint:
    slope = np.diff(energy, axis=1)
    loud = (energy > np.log(SILENCE) + 1).all(axis=1)
    bits = slope[APART:] > slope[:-APART]
    codes = (bits @ (1 << np.arange(N_BITS))).astype(np.uint16)
    return Fingerprint(codes, loud[APART:] & loud[:-APART])


def agreement(a: Fingerprint, b: Fingerprint, lag: int) -> tuple[float, float, int]:
    """Compare two fingerprints where they overlap.

    Parameters
    ----------
    a, b : Fingerprint
        Of two recordings.
    lag : int
        Row of `a` at which row 0 of `b` lies; may be negative.

    Returns
    -------
    share : float
        Of bits that are equal: one half for strangers.
    deviations : float
        By how many standard deviations that is more than chance.
    n_rows : int
        Rows compared.
    """
    start, stop = max(0, lag), min(len(a), lag + len(b))
    if start >= stop:
        return 0.5, 0.0, 0
    here, there = slice(start, stop), slice(start - lag, stop - lag)
    both = a.valid[here] & b.valid[there]
    n_rows = int(both.sum())
    if not n_rows:
        return 0.5, 0.0, 0
    unequal = int(np.bitwise_count((a.codes[here] ^ b.codes[there])[both]).sum())
    share = 1 - unequal / (n_rows * N_BITS)
    free = n_rows * N_BITS / BITS_PER_FREE_BIT
    return share, (share - 0.5) * 2 * free**0.5, n_rows

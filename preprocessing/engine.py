"""The filter engine: notch, band-pass and resampling in one pass, in single precision.

They are one linear time-invariant operator. It is applied by overlap-save: a block is transformed,
multiplied by the frequency response of everything together, and only the bins below the new
Nyquist frequency are transformed back. No block needs to know more than its own surroundings, so
memory is bounded by a block. What comes out is what MNE's chain of filters gives, ends included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, log2
from typing import Any

import numpy as np
from scipy import fft
from scipy.signal import fftconvolve

Read = Callable[[int, int], np.ndarray]
Sink = Callable[[int, np.ndarray], None]

# Block lengths that are tried, beside the length of the operator: up to here a row and its
# spectrum stay in the processor's cache.
_LONGEST = 100_000
# Rows transformed together: as many as the processor works on at once, and its cache holds.
_ROWS = 4
# Numbers read at a time, so that sorting samples by channel happens in the cache.
_TILE = 1 << 18
# A resampler is flat up to this part of the lower Nyquist frequency, and then falls to zero.
_FLAT_TO = 0.99
# A row whose part to be removed is this many times what is left goes through double precision.
_DOUBLE_BEYOND = 300.0
# Every so many samples tell how large a row is.
_SAMPLED = 499


@dataclass(frozen=True, eq=False)
class Operator:
    """Symmetric filters, one after another, and then a change of sampling rate.

    Attributes
    ----------
    sfreq, sfreq_out : float
        Sampling rates in hertz, before and after.
    kernels : tuple of ndarray of float64
        Impulse responses, each of odd length and symmetric: no filter shifts phases.
    """

    sfreq: float
    sfreq_out: float
    kernels: tuple[np.ndarray, ...] = ()

    @cached_property
    def ratio(self) -> Fraction:
        """New rate over old; rates such as 300.3074951171875 Hz are met to 0.2 ms in an hour."""
        return Fraction(self.sfreq_out / self.sfreq).limit_denominator(4000)

    @property
    def resamples(self) -> bool:
        """Whether the sampling rate changes."""
        return self.ratio != 1

    @property
    def changes(self) -> bool:
        """Whether anything is done at all."""
        return self.resamples or bool(self.kernels)

    @cached_property
    def reach(self) -> int:
        """Samples on either side that the filters look at."""
        return sum(len(kernel) // 2 for kernel in self.kernels)

    @cached_property
    def rate_reach(self) -> int:
        """Samples on either side that changing the rate looks at, beside `reach`."""
        if not self.resamples:
            return 0
        shift = ceil(1 / self.ratio)
        nyquist = min(self.sfreq, self.sfreq_out) / 2
        at = np.linspace(_FLAT_TO * nyquist, nyquist, 64) / self.sfreq
        if np.abs(self._gain(at)).max() < 0.01:  # the filters stop there anyway
            return shift
        width_hz = (1 - _FLAT_TO) * nyquist
        return shift + ceil(4 / width_hz * self.sfreq)

    @cached_property
    def offset_gain(self) -> float:
        """What becomes of a constant, and of a straight line."""
        return float(np.prod([kernel.sum() for kernel in self.kernels]))

    def n_times_out(self, n_times: int) -> int:
        """Return how many samples `n_times` become, counted as MNE does."""
        return max(1, round(self.ratio * n_times))

    def response(self, n: int, shift: float = 0.0) -> np.ndarray:
        """Return the factor of each bin that is kept of a block of `n` samples.

        Parameters
        ----------
        n : int
            Length of the block.
        shift : float
            Input samples from the block's first sample to the first that comes out.
        """
        m = int(n * self.ratio)
        n_bins = min(n, m) // 2 + 1
        gain = np.full(n_bins, m / n)
        for kernel in self.kernels:
            gain *= _zero_phase(kernel, n)[:n_bins]
        if self.resamples:
            gain *= _taper(np.arange(n_bins) / (min(n, m) / 2))
        if shift:
            return gain * np.exp(2j * np.pi * np.arange(n_bins) * shift / n)
        return gain

    def _gain(self, at: np.ndarray) -> np.ndarray:
        """Return the filters' gain at some frequencies, in cycles a sample."""
        gain = np.ones(len(at))
        for kernel in self.kernels:
            k = np.arange(len(kernel)) - len(kernel) // 2
            gain *= np.cos(2 * np.pi * at[:, None] * k) @ kernel
        return gain


def _zero_phase(kernel: np.ndarray, n: int) -> np.ndarray:
    rolled = np.zeros(n)
    half = len(kernel) // 2
    rolled[: half + 1] = kernel[half:]
    if half:
        rolled[-half:] = kernel[:half]
    return np.real(fft.rfft(rolled))


def _taper(at: np.ndarray) -> np.ndarray:
    """Return 1 up to 99 % of the Nyquist frequency, and half a cosine from there to 0."""
    past = np.clip((at - _FLAT_TO) / (1 - _FLAT_TO), 0, 1)
    return 0.5 * (1 + np.cos(np.pi * past))


def run(
    operator: Operator,
    read: Read,
    n_channels: int,
    pieces: Sequence[tuple[int, int]],
    sink: Sink,
    dtype: Any = np.float64,
) -> None:
    """Apply an operator to a recording, a block at a time.

    Parameters
    ----------
    operator : Operator
        What is done.
    read : callable
        Start and stop sample -> samples, shape (C, stop - start). Each is asked for once, in
        order.
    n_channels : int
        C.
    pieces : sequence of (int, int)
        Start and stop of the stretches that were recorded in one go, in order; together they
        are the whole recording. Nothing runs across their borders; at either end the signal is
        continued by its point reflection, as MNE's ``reflect_limited`` does.
    sink : callable
        Takes the first sample and the samples (C, n) of float32 of each block that comes out,
        in order; what it is given is written over afterwards.
    dtype : dtype
        What samples are kept as until they are filtered; float32 only where they are exact in it.
    """
    n_out = operator.n_times_out(pieces[-1][1])
    for start, stop in pieces:
        first = ceil(start * operator.ratio)
        last = n_out if stop == pieces[-1][1] else ceil(stop * operator.ratio)
        piece = _Piece(read, start, stop, dtype)
        shift = float(first / operator.ratio - start)
        apply = _stream if operator.reach < stop - start else _at_once
        apply(operator, piece, n_channels, shift, last - first, _from(first, sink))


def _from(first: int, sink: Sink) -> Sink:
    return lambda at, block: sink(first + at, block)


class _Piece:
    """The samples of one stretch, numbered from its start."""

    def __init__(self, read: Read, start: int, stop: int, dtype: Any):
        self._read, self._start = read, start
        self.n_times, self.dtype = stop - start, dtype

    def into(self, start: int, out: np.ndarray) -> None:
        """Fill `out` (C, n) with samples from `start` on."""
        step = max(1, _TILE // len(out))
        start += self._start
        for at in range(0, out.shape[1], step):
            stop = min(at + step, out.shape[1])
            out[:, at:stop] = self._read(start + at, start + stop)


def _stream(
    operator: Operator, piece: _Piece, n_channels: int, shift: float, n_out: int, sink: Sink
) -> None:
    """Apply an operator to a piece longer than its filters reach."""
    ratio = operator.ratio
    margin = _multiple(operator.reach + operator.rate_reach, ratio.denominator)
    n = _block_length(piece.n_times, margin, ratio.denominator)
    hop = n - 2 * margin
    block = _Block(operator, n, shift)
    hop_out, skip = int(hop * ratio), int(margin * ratio)
    window = np.empty(
        (n_channels, n), piece.dtype
    )  # its first sample is sample start - margin of the piece
    for number, start in enumerate(range(0, piece.n_times, hop)):
        known = margin
        if start:
            known = 2 * margin
            window[:, :known] = window[:, hop:]
        until = min(n, piece.n_times - start + margin)
        if until > known:
            piece.into(start - margin + known, window[:, known:until])
        if not start:
            _reflect_left(window, margin, until)
        if until < n:
            _reflect_right(window, until, margin)
        count = min(hop_out, n_out - number * hop_out)
        if count > 0:
            sink(number * hop_out, block.apply(window, slice(skip, skip + count)))


def _at_once(
    operator: Operator, piece: _Piece, n_channels: int, shift: float, n_out: int, sink: Sink
) -> None:
    """Apply an operator to a piece that its filters reach beyond: one after another, as MNE."""
    signal = np.empty((n_channels, piece.n_times))
    piece.into(0, signal)
    for kernel in operator.kernels:
        signal = _convolved(signal, kernel)
    changed = Operator(operator.sfreq, operator.sfreq_out)
    there = _Piece(lambda a, b: signal[:, a:b], 0, piece.n_times, np.float64)
    _stream(changed, there, n_channels, shift, n_out, sink)


def _convolved(signal: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter what is continued by its reflection as far as it goes, and by zeros from there."""
    n, half = signal.shape[1], len(kernel) // 2
    edge = min(len(kernel), n) - 1
    left = 2 * signal[:, :1] - signal[:, edge:0:-1]
    right = 2 * signal[:, -1:] - signal[:, n - 2 :: -1][:, :edge]
    longer = np.concatenate([left, signal, right[:, :edge]], axis=1)
    return fftconvolve(longer, kernel[None], axes=1)[:, edge + half : edge + half + n]


def _reflect_left(window: np.ndarray, margin: int, until: int) -> None:
    """Fill what is before the first sample, which lies at `margin`."""
    n = min(margin, until - margin - 1)
    edge = window[:, margin : margin + 1]
    np.subtract(2 * edge, window[:, margin + n : margin : -1], out=window[:, margin - n : margin])
    window[:, : margin - n] = window[:, margin - n : margin - n + 1]


def _reflect_right(window: np.ndarray, until: int, margin: int) -> None:
    """Fill what is after the last sample, which lies before `until`."""
    n = min(margin, until - 1, window.shape[1] - until)
    edge = window[:, until - 1 : until]
    window[:, until : until + n] = 2 * edge - window[:, until - 1 - n : until - 1][:, ::-1]
    window[:, until + n :] = window[:, until + n - 1 : until + n]


def _multiple(n: int, of: int) -> int:
    return -(-n // of) * of


def _block_length(n_times: int, margin: int, of: int) -> int:
    """Choose the length of a block, a multiple of `of`, for the least arithmetic."""
    least, most = 2 * margin + of, max(_LONGEST, 5 * margin)
    whole = n_times + 2 * margin
    targets = [whole] if whole <= most else []
    targets += [round(least + (most - least) * i / 40) for i in range(1, 41)]
    lengths = {of * fft.next_fast_len(-(-target // of), real=True) for target in targets}
    # multiples of large powers of two make rows collide in the cache
    fit = [n for n in lengths if n % 32_768] or list(lengths)

    def cost(n: int) -> float:
        return -(-n_times // (n - 2 * margin)) * n * log2(n)

    return min(sorted(fit), key=cost)


class _Block:
    """An operator on blocks of one length."""

    def __init__(self, operator: Operator, n: int, shift: float):
        self._m = int(n * operator.ratio)
        self._response = response = operator.response(n, shift)
        self._n_bins = len(response)
        real = not np.iscomplexobj(response)
        self._pairs = np.repeat(response.astype(np.float32), 2) if real else None
        self._ramp = np.linspace(0, 1, n)
        self._narrow_ramp = self._ramp.astype(np.float32)
        at = (np.arange(self._m) / float(operator.ratio) + shift) / max(1, n - 1)
        self._ramp_out = (operator.offset_gain * at).astype(np.float32)
        self._offset_gain = operator.offset_gain

    def apply(self, window: np.ndarray, kept: slice) -> np.ndarray:
        """Return the part `kept` of what comes out, shape (C, n).

        A straight line is taken out first and put back as the operator leaves it, which for
        symmetric filters is known exactly: an offset or a drift costs no digits.
        """
        out = np.empty((len(window), kept.stop - kept.start), np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # rows of NaN stay rows of NaN
            for first in range(0, len(window), _ROWS):
                self._rows(window[first : first + _ROWS], kept, out[first : first + _ROWS])
        return out

    def _rows(self, rows: np.ndarray, kept: slice, out: np.ndarray) -> None:
        start, rise = rows[:, 0], rows[:, -1] - rows[:, 0]
        # most rows hardly rise beside what else they do: taking a line from them gains nothing
        level = rows[:, ::_SAMPLED].var(axis=1) - rise**2 / 12
        rise = np.where(rise**2 < 100 * level, 0, rise)
        flat = np.empty(rows.shape, np.float32)
        wide, line = np.empty_like(rows[0]), np.empty_like(flat[0])
        for i, row in enumerate(rows):
            np.subtract(row, start[i], out=wide)  # in the precision of the samples
            flat[i] = wide
            if rise[i]:
                np.multiply(self._narrow_ramp, np.float32(rise[i]), out=line)
                flat[i] -= line
        out[:] = self._transformed(flat)[:, kept]
        # the line itself has been rounded too, ten times less than a transform rounds
        lost = _power(flat) + (rise / 30) ** 2 > _DOUBLE_BEYOND**2 * _power(out)
        if lost.any():
            lines = start[lost, None] + rise[lost, None] * self._ramp
            out[lost] = self._transformed(rows[lost] - lines)[:, kept]
        for i, row in enumerate(out):
            row += np.float32(self._offset_gain * start[i])
            if rise[i]:
                row += self._ramp_out[kept] * np.float32(rise[i])

    def _transformed(self, rows: np.ndarray) -> np.ndarray:
        spectrum = fft.rfft(rows, axis=1)[:, : self._n_bins]
        if rows.dtype == np.float64:
            spectrum *= self._response
        elif self._pairs is not None:  # a real factor on both parts of each bin, at full speed
            parts = spectrum.view(np.float32)
            parts *= self._pairs
        else:
            spectrum *= self._response.astype(np.complex64)
        return fft.irfft(spectrum, self._m, axis=1, overwrite_x=True)


def _power(rows: np.ndarray) -> np.ndarray:
    """Return the mean square of each row."""
    return np.array([np.dot(row, row) for row in rows]) / rows.shape[1]

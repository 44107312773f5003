"""Small drawings as SVG text: a page can hold hundreds where pictures would weigh megabytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from neurofm.report.figures import COLOURS
from neurofm.sensors import Knowledge, SensorKind, Sensors

_WIDTH, _HEIGHT = 240, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 6, 14, 24
_HEAD_M = 0.095
_REACH_M = 0.16  # a helmet is wider than a head

Curve = Mapping[str, Sequence[float]]


def density_drawing(before: Curve | None, after: Curve | None, unit: str) -> str:
    """Draw a power spectral density before and after, both axes logarithmic.

    Parameters
    ----------
    before, after : mapping or None
        ``hz``, and ``low``, ``median`` and ``high`` in SI units squared per hertz; the area
        between low and high is shaded.
    unit : str
        The SI unit: ``V``, ``T`` or ``T/m``.

    Returns
    -------
    str
        The drawing; empty if there is nothing to draw.
    """
    shown = [(c, colour) for c, colour in ((before, "#999999"), (after, COLOURS[0])) if c]
    values = np.array([v for c, _ in shown for name in ("low", "high") for v in c[name] if v > 0])
    if not len(values):
        return ""
    top = math.ceil(math.log10(values.max()))
    # what a filter took away falls for ever: ten decades show all that is signal
    bottom = max(math.floor(math.log10(values.min())), top - 10)
    x = _Axis([math.log10(hz) for c, _ in shown for hz in (c["hz"][0], c["hz"][-1])], across=True)
    y = _Axis([bottom, max(top, bottom + 1)], across=False)
    parts = [_frame(x, y, f"{unit}²/Hz")]
    for curve, colour in shown:
        at = [x(math.log10(max(hz, 1e-3))) for hz in curve["hz"]]
        low, middle, high = ([y(_log(v)) for v in curve[k]] for k in ("low", "median", "high"))
        area = _points(at + at[::-1], high + low[::-1])
        parts.append(f'<polygon points="{area}" fill="{colour}" fill-opacity=".2"/>')
        line = _points(at, middle)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
        )
    return _svg("".join(parts), _WIDTH, _HEIGHT)


def histogram_drawing(values: Sequence[float], unit: str) -> str:
    """Draw how many of positive values are how large, on a logarithmic axis.

    Parameters
    ----------
    values : sequence of float
        Amplitudes in SI units.
    unit : str
        The SI unit.

    Returns
    -------
    str
        The drawing; empty if there is nothing to draw.
    """
    logs = np.log10([v for v in values if v > 0])
    if not len(logs):
        return ""
    edges = np.arange(math.floor(logs.min()), math.floor(logs.max()) + 1.01, 0.1)
    counts, _ = np.histogram(logs, edges)
    x = _Axis([float(edges[0]), float(edges[-1])], across=True)
    y = _Axis([0.0, float(counts.max())], across=False, whole=False)
    bars = "".join(
        f'<rect x="{x(left):.1f}" y="{y(n):.1f}" width="{x(right) - x(left):.1f}" '
        f'height="{y(0) - y(n):.1f}" fill="{COLOURS[0]}"/>'
        for n, left, right in zip(counts.tolist(), edges[:-1], edges[1:], strict=True)
        if n
    )
    return _svg(_frame(x, y, f"channels ({unit})") + bars, _WIDTH, _HEIGHT)


def head_drawing(sensors: Sensors) -> str:
    """Draw sensors from above: nose up, filled where measured, hollow where from a template.

    Parameters
    ----------
    sensors : Sensors
        The channels; those without a position are left out.

    Returns
    -------
    str
        The drawing; empty if none has a position.
    """
    if not sensors.located.any():
        return ""
    scale = 75 / _REACH_M
    radius = _HEAD_M * scale
    parts = [
        f'<circle cx="80" cy="80" r="{radius:.1f}" fill="none" stroke="#999"/>',
        f'<path d="M72 {80 - radius + 1:.1f}l8 -9l8 9" fill="none" stroke="#999"/>',
    ]
    kinds = np.unique(sensors.kind).tolist()
    for row in np.flatnonzero(sensors.located).tolist():
        across, up, _ = (float(v) for v in sensors.position[row])
        colour = COLOURS[kinds.index(int(sensors.kind[row])) % len(COLOURS)]
        filled = sensors.known[row] != Knowledge.TEMPLATE
        parts.append(
            f'<circle cx="{80 + across * scale:.1f}" cy="{80 - up * scale:.1f}" r="2" '
            f'fill="{colour if filled else "none"}" stroke="{colour}" stroke-width=".6">'
            f"<title>{escape(sensors.ch_names[row])}</title></circle>"
        )
    for number, kind in enumerate(kinds):
        parts.append(
            f'<text x="2" y="{10 + 9 * number}" font-size="8" fill="{COLOURS[number % 8]}">'
            f"{SensorKind(kind).label}</text>"
        )
    return _svg("".join(parts), 160, 160)


class _Axis:
    """Decades, or plain numbers, to places in the drawing."""

    def __init__(self, ends: Sequence[float], *, across: bool, whole: bool = True):
        self.low, self.high = min(ends), max(ends)
        if self.high <= self.low:
            self.high = self.low + 1
        self.across, self.whole = across, whole

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        if self.across:
            return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    def ticks(self) -> list[tuple[float, str]]:
        """Return where marks stand, and what they say."""
        if not self.whole:
            return [(self.high, f"{self.high:g}")]
        first, last = math.ceil(self.low), math.floor(self.high)
        step = max(1, math.ceil((last - first) / 5))
        return [(float(d), _power(d)) for d in range(first, last + 1, step)]


def _frame(x: _Axis, y: _Axis, title: str) -> str:
    left, low = x(x.low), y(y.low)
    parts = [
        f'<path d="M{left} {y(y.high)}V{low}H{x(x.high)}" fill="none" stroke="#444"/>',
        f'<text x="2" y="9" font-size="8" fill="#555">{escape(title)}</text>',
    ]
    for value, said in x.ticks():
        parts.append(_text(x(value), low + 10, said, "middle"))
    for value, said in y.ticks():
        parts.append(_text(left - 3, y(value) + 3, said, "end"))
    return "".join(parts)


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="8" text-anchor="{anchor}">{said}</text>'


def _power(exponent: int) -> str:
    return f"{10**exponent:g}" if -2 <= exponent <= 3 else f"1e{exponent}"


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf


def _points(x: Sequence[float], y: Sequence[float]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _svg(inside: str, width: int, height: int) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{inside}</svg>'

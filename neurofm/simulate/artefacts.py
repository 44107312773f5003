"""What amplifiers, electrodes and laboratories add to the signal."""

from __future__ import annotations

import numpy as np

from neurofm.simulate.activity import coloured
from neurofm.simulate.config import SimulateConfig
from neurofm.simulate.devices import Device

NOISY = 25.0  # a noisy channel's standard deviation, as a multiple of a typical channel's


def draw_bad_channels(
    config: SimulateConfig, ch_names: list[str], rng: np.random.Generator
) -> dict[str, str]:
    """Choose one or two channels that fail in some recordings.

    Parameters
    ----------
    config : SimulateConfig
        How often.
    ch_names : list of str
        The recording's channels.
    rng : Generator
        Which.

    Returns
    -------
    dict of str to str
        ``flat`` or ``noisy`` by channel; mostly empty.
    """
    if rng.random() >= config.bad_channel_rate:
        return {}
    chosen = rng.choice(len(ch_names), size=int(rng.integers(1, 3)), replace=False)
    return {ch_names[i]: str(rng.choice(["flat", "noisy"])) for i in sorted(chosen)}


def add_artefacts(
    signal: np.ndarray, device: Device, bad: dict[int, str], rng: np.random.Generator
) -> np.ndarray:
    """Return the signal with sensor noise, mains, drift and bad channels.

    Parameters
    ----------
    signal : ndarray, shape (C, T)
        Volts or tesla.
    device : Device
        How much of each.
    bad : dict of int to str
        ``flat`` or ``noisy`` by row.
    rng : Generator
        Draws all of it.

    Returns
    -------
    ndarray of float32, shape (C, T)
        In the unit of `signal`.
    """
    n_channels, n_times = signal.shape
    time = np.arange(n_times) / device.sfreq
    pickup = np.sqrt(2) * device.line * rng.lognormal(0, 0.5, (n_channels, 1))
    phase, third = rng.uniform(0, 2 * np.pi, 2)
    mains = np.sin(2 * np.pi * device.line_hz * time + phase)
    if 3 * device.line_hz < device.sfreq / 2:
        mains += 0.25 * np.sin(6 * np.pi * device.line_hz * time + third)
    found = signal + pickup * mains
    found += device.drift * coloured(rng, signal.shape, device.sfreq, _drifting)
    found += device.noise * rng.standard_normal(signal.shape, np.float32)
    typical = float(np.median(signal.std(axis=1)))
    for row, how in bad.items():
        found[row] = 0.0 if how == "flat" else NOISY * typical * rng.standard_normal(n_times)
    return found.astype(np.float32)


def _drifting(frequency: np.ndarray) -> np.ndarray:
    return (frequency < 0.1) / np.maximum(frequency, 0.01)

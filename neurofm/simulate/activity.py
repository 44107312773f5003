"""What the sources do: rhythms that react to the task, a 1/f background, blinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfftfreq
from scipy.ndimage import gaussian_filter1d

from neurofm.simulate.anatomy import Anatomy
from neurofm.simulate.config import SimulateConfig

CLASSES = ("left", "right", "rest")
LEAD_IN_S = 2.0
REACTION_S = 0.3
BLINK_S = 0.35
BLINKS_PER_MINUTE = 12


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial and what it does to the sources.

    Attributes
    ----------
    onset_s, duration_s : float
        Seconds from the first sample.
    label : str
        One of `CLASSES`.
    power : dict of str to float
        Mu and beta power of each motor patch during the trial, relative to its own level.
    """

    onset_s: float
    duration_s: float
    label: str
    power: dict[str, float]


def make_trials(
    config: SimulateConfig, anatomy: Anatomy, rng: np.random.Generator
) -> tuple[Trial, ...]:
    """Draw the trials of a run, in blocks that hold each class once, shuffled.

    Parameters
    ----------
    config : SimulateConfig
        How many, how long, how strong.
    anatomy : Anatomy
        Whose rhythms react.
    rng : Generator
        The order, the pauses, and how strongly each trial works.

    Returns
    -------
    tuple of Trial
        By onset.
    """
    trials = []
    now = LEAD_IN_S
    for _ in range(config.trials_per_class):
        for label in rng.permutation(CLASSES):
            onset = round(now, 3)
            strength = anatomy.reactivity * rng.uniform(0.6, 1.4)
            power = _power(str(label), config, strength)
            trials.append(
                Trial(onset_s=onset, duration_s=config.trial_s, label=str(label), power=power)
            )
            now += config.trial_s + rng.uniform(*config.gap_s)
    return tuple(trials)


def _power(label: str, config: SimulateConfig, strength: float) -> dict[str, float]:
    if label == "rest":
        return {"motor_left": 1.0, "motor_right": 1.0}
    opposite = max(0.05, 1 - config.effect * strength)
    same = max(0.05, 1 - config.effect * config.ipsilateral * strength)
    if label == "left":
        return {"motor_left": same, "motor_right": opposite}
    return {"motor_left": opposite, "motor_right": same}


def make_blinks(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Draw when the subject blinks, in seconds, shape (n_blinks,)."""
    pauses = 0.5 + rng.exponential(60 / BLINKS_PER_MINUTE - 0.5, round(duration_s) + 5)
    onsets = np.cumsum(pauses)
    return onsets[onsets < duration_s - 1].round(3)


def make_activity(
    anatomy: Anatomy,
    trials: tuple[Trial, ...],
    blinks: np.ndarray,
    n_times: int,
    sfreq: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the moment of every dipole over one run.

    Parameters
    ----------
    anatomy : Anatomy
        The dipoles and their rhythms.
    trials : tuple of Trial
        When motor rhythms are weaker.
    blinks : ndarray
        Onsets in seconds.
    n_times : int
        Samples.
    sfreq : float
        Hertz.
    rng : Generator
        The noise that rhythms and background are filtered from.

    Returns
    -------
    ndarray of float32, shape (n_sources, n_times)
        Ampere metres.
    """
    moments = np.empty((len(anatomy.patch), n_times), np.float32)
    both_sides = {stem: _waxing(rng, n_times, sfreq) for stem in ("motor", "occipital")}
    for name in dict.fromkeys(anatomy.patch):
        rows = anatomy.of_patch(name)
        stem = name.partition("_")[0]
        if stem == "background":
            wave = coloured(rng, (len(rows), n_times), sfreq, _one_over_f)
        elif stem == "blink":
            wave = np.tile(_blinking(blinks, n_times, sfreq), (len(rows), 1))
        else:
            shape = (len(rows), n_times)
            wave = _rhythm(anatomy, stem, shape, sfreq, rng)
            wave *= both_sides[stem] * _waxing(rng, n_times, sfreq)
        if stem == "motor":
            wave *= np.sqrt(relative_power(name, trials, n_times, sfreq))
        moments[rows] = wave * anatomy.moment[rows, None]
    return moments


def relative_power(patch: str, trials: tuple[Trial, ...], n_times: int, sfreq: float) -> np.ndarray:
    """Return a motor patch's power over time, relative to its own level, shape (n_times,)."""
    power = np.ones(n_times)
    for trial in trials:
        start = round((trial.onset_s + REACTION_S) * sfreq)
        stop = round((trial.onset_s + trial.duration_s) * sfreq)
        power[start:stop] = trial.power[patch]
    return gaussian_filter1d(power, 0.15 * sfreq)


def _rhythm(
    anatomy: Anatomy, stem: str, shape: tuple[int, int], sfreq: float, rng: np.random.Generator
) -> np.ndarray:
    if stem == "occipital":
        return coloured(rng, shape, sfreq, _peak(anatomy.alpha_hz, 0.7))
    mu = coloured(rng, shape, sfreq, _peak(anatomy.mu_hz, 0.8))
    beta = coloured(rng, shape, sfreq, _peak(anatomy.beta_hz, 1.8))
    return 0.9 * mu + 0.4 * beta


def _waxing(rng: np.random.Generator, n_times: int, sfreq: float) -> np.ndarray:
    """Slow growth and decay that no task explains, shape (n_times,), around 1."""
    slow = coloured(rng, (1, n_times), sfreq, lambda f: 1.0 * ((f > 0.01) & (f < 0.3)))[0]
    return np.exp(0.2 * slow)


def _blinking(onsets: np.ndarray, n_times: int, sfreq: float) -> np.ndarray:
    pulse = np.hanning(round(BLINK_S * sfreq))
    wave = np.zeros(n_times + len(pulse))
    for onset in onsets:
        start = round(onset * sfreq)
        wave[start : start + len(pulse)] += pulse
    return wave[:n_times]


def coloured(
    rng: np.random.Generator,
    shape: tuple[int, int],
    sfreq: float,
    amplitude: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Draw independent Gaussian noise with a given spectrum.

    Parameters
    ----------
    rng : Generator
        Draws the spectrum's real and imaginary parts.
    shape : (int, int)
        Signals, samples.
    sfreq : float
        Hertz.
    amplitude : callable
        Relative amplitude at each frequency in hertz.

    Returns
    -------
    ndarray of float32, shape `shape`
        With an expected standard deviation of one.
    """
    n_signals, n_times = shape
    length = next_fast_len(n_times + round(sfreq), real=True)  # or the ends would meet
    weights = amplitude(rfftfreq(length, 1 / sfreq)).astype(np.float32)
    weights[0] = 0.0
    weights *= length / (2 * np.sqrt((weights**2).sum()))
    spectrum = rng.standard_normal((n_signals, 2 * len(weights)), np.float32).view(np.complex64)
    return irfft(spectrum * weights, length, axis=1)[:, :n_times]


def _one_over_f(frequency: np.ndarray) -> np.ndarray:
    return (1 + frequency) ** -0.65


def _peak(centre_hz: float, width_hz: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda f: np.exp(-0.5 * ((f - centre_hz) / width_hz) ** 2)

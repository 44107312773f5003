"""One subject: head, cortical sources, and the rhythms they carry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from neurofm.electrodes import template_positions
from neurofm.simulate.config import SimulateConfig, rng_for
from neurofm.sphere import fibonacci

TEN_TWENTY = "Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2"
N_BACKGROUND = 80
# landmark above each patch, dipoles in it, dipole moment of one dipole in ampere metres
PATCHES: dict[str, tuple[str, int, float]] = {
    "motor_left": ("C3", 4, 24e-9),
    "motor_right": ("C4", 4, 24e-9),
    "occipital_left": ("O1", 4, 30e-9),
    "occipital_right": ("O2", 4, 30e-9),
    "blink_left": ("Fp1", 1, 420e-9),
    "blink_right": ("Fp2", 1, 420e-9),
}
BACKGROUND_MOMENT = 22e-9
BRAIN = 0.86  # sources stay below this share of the head's radius: the inner skull is at 0.90


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """What is particular to one simulated subject.

    Attributes
    ----------
    centre : ndarray, shape (3,)
        Centre of the spherical head, metres in the head frame.
    radius : float
        Radius of the scalp in metres.
    alpha_hz, mu_hz, beta_hz : float
        Frequencies of the occipital alpha and of the sensorimotor mu and beta rhythms.
    reactivity : float
        How strongly the subject's rhythms react, relative to the cohort's `effect`.
    position, orientation : ndarray, shape (n_sources, 3)
        Dipoles: metres in the head frame, unit vectors.
    moment : ndarray, shape (n_sources,)
        Standard deviation of each dipole's moment in ampere metres; a blink's peak.
    patch : tuple of str
        The patch each dipole belongs to; ``background`` for the rest.
    """

    centre: np.ndarray
    radius: float
    alpha_hz: float
    mu_hz: float
    beta_hz: float
    reactivity: float
    position: np.ndarray
    orientation: np.ndarray
    moment: np.ndarray
    patch: tuple[str, ...]

    def of_patch(self, name: str) -> np.ndarray:
        """Return the indices of the dipoles of one patch."""
        return np.flatnonzero(np.array(self.patch) == name)


@cache
def template_centre() -> np.ndarray:
    """Centre of the sphere that fits the 10-20 electrodes of the template, shape (3,)."""
    points = np.array([template_positions()[name] for name in TEN_TWENTY.split()])
    system = np.column_stack([2 * points, np.ones(len(points))])
    return np.linalg.lstsq(system, (points**2).sum(axis=1))[0][:3]


def landmark(name: str) -> np.ndarray:
    """Return the unit vector from the head's centre to a 10-05 position, shape (3,)."""
    return unit(np.array(template_positions()[name]) - template_centre())


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors along the last axis to length one."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make_anatomy(config: SimulateConfig, device: str, number: int) -> Anatomy:
    """Draw one subject.

    Parameters
    ----------
    config : SimulateConfig
        The cohort.
    device : str
        The subject's device.
    number : int
        The subject's number among those of the device.

    Returns
    -------
    Anatomy
        The same for the same seed, device and number.
    """
    rng = rng_for(config.seed, "anatomy", device, number)
    radius = float(np.clip(rng.normal(0.094, 0.003), 0.087, 0.1))
    alpha_hz = float(rng.uniform(9.0, 11.5))
    gains = {"motor": rng.lognormal(0, 0.25), "occipital": rng.lognormal(0, 0.3), "blink": 1.0}
    directions, orientations, moments, patches = [], [], [], []
    for name, (above, count, moment) in PATCHES.items():
        toward, along = _patch(rng, name, above, count)
        directions.append(toward)
        orientations.append(along)
        scale = gains[name.partition("_")[0]] * (1.0 if name.startswith("blink") else config.snr)
        moments.append(np.full(count, moment * scale))
        patches += [name] * count
    cortex = _spread(N_BACKGROUND, rng)
    directions.append(cortex)
    orientations.append(_tilt(cortex, rng.uniform(0, np.pi / 2, N_BACKGROUND), rng))
    moments.append(BACKGROUND_MOMENT * rng.lognormal(0, 0.3, N_BACKGROUND))
    patches += ["background"] * N_BACKGROUND
    toward = np.concatenate(directions)
    depth = radius * rng.uniform(BRAIN - 0.08, BRAIN, len(toward))
    return Anatomy(
        centre=template_centre(),
        radius=radius,
        alpha_hz=alpha_hz,
        mu_hz=alpha_hz + float(rng.uniform(0.3, 1.0)),
        beta_hz=float(rng.uniform(18.0, 24.0)),
        reactivity=float(np.clip(rng.normal(1.0, 0.25), 0.4, 1.5)),
        position=template_centre() + depth[:, None] * toward,
        orientation=np.concatenate(orientations),
        moment=np.concatenate(moments),
        patch=tuple(patches),
    )


def _patch(
    rng: np.random.Generator, name: str, above: str, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Directions and orientations of a patch's dipoles; the eyes lie where they lie."""
    if name.startswith("blink"):
        toward = unit(landmark(above) + [0, 0, -0.25])[None]
        return toward, toward
    middle = unit(landmark(above) + rng.normal(0, 0.12, 3))
    toward = unit(middle + rng.normal(0, 0.08, (count, 3)))
    # a fold's wall: part of the current runs along the surface, the same way in the patch
    tilt = np.clip(rng.normal(0.7, 0.25), 0.2, 1.3)
    along = np.cos(tilt) * middle + np.sin(tilt) * _tangent(middle, rng)
    return toward, unit(along + rng.normal(0, 0.2, (count, 3)))


def _tangent(outward: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a direction along the surface, mostly towards the front, shape (3,)."""
    forward = np.array([0.0, 1.0, 0.0]) + rng.normal(0, 0.4, 3)
    return unit(forward - (forward @ outward) * outward)


def _tilt(outward: np.ndarray, angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn each outward vector by `angle` towards a random tangent, shape (n, 3)."""
    aside = rng.normal(size=outward.shape)
    aside = unit(aside - (aside * outward).sum(axis=1, keepdims=True) * outward)
    return np.cos(angle)[:, None] * outward + np.sin(angle)[:, None] * aside


def _spread(count: int, rng: np.random.Generator) -> np.ndarray:
    """Directions spread evenly over the upper two thirds of the sphere, jittered, (n, 3)."""
    return unit(fibonacci(count, lowest=-0.35) + rng.normal(0, 0.1, (count, 3)))

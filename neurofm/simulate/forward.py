"""From dipole moments to what sensors measure."""

from __future__ import annotations

import mne
import numpy as np

from neurofm.simulate.anatomy import Anatomy
from neurofm.simulate.devices import Device

CONDUCTIVITY = 0.33  # siemens per metre, of brain tissue
# A patch of cortex is no point: this half-width keeps a contact beside it from seeing infinity
PATCH_RADIUS = 0.004


def gain(device: Device, info: mne.Info, anatomy: Anatomy) -> np.ndarray:
    """Return what each channel measures of each dipole.

    Scalp potentials and magnetic fields come from MNE's spherical forward model (four shells
    for EEG, Sarvas' formula for MEG). Contacts inside the brain, which that model does not
    cover, get the analytic potential of a dipole in an infinite homogeneous medium.

    Parameters
    ----------
    device : Device
        Its amplifier's reference is applied.
    info : mne.Info
        Sensors as `make_info` placed them, reference electrodes last.
    anatomy : Anatomy
        The dipoles.

    Returns
    -------
    ndarray, shape (n_channels, n_sources)
        Volts or tesla per ampere metre; reference electrodes are left out.
    """
    if device.datatype == "ieeg":
        contacts = np.array([ch["loc"][:3] for ch in info["chs"]])
        return infinite_medium(contacts, anatomy.position, anatomy.orientation)
    field = _spherical(device, info, anatomy)
    if not device.reference:
        return field
    recorded = len(info["chs"]) - len(device.reference)
    return field[:recorded] - field[recorded:].mean(axis=0)


def _spherical(device: Device, info: mne.Info, anatomy: Anatomy) -> np.ndarray:
    sphere = mne.make_sphere_model(r0=anatomy.centre, head_radius=anatomy.radius, verbose="ERROR")
    dipoles = {"rr": anatomy.position, "nn": anatomy.orientation}
    space = mne.setup_volume_source_space(
        pos=dipoles, sphere=sphere, sphere_units="m", verbose="ERROR"
    )
    solution = mne.make_forward_solution(
        info,
        trans=None,  # the dipoles are in the head frame already
        src=space,
        bem=sphere,
        meg=device.datatype == "meg",
        eeg=device.datatype == "eeg",
        mindist=0.0,
        verbose="ERROR",
    )
    free = solution["sol"]["data"].reshape(len(info["chs"]), len(anatomy.position), 3)
    return np.einsum("csx,sx->cs", free, anatomy.orientation)


def infinite_medium(
    contacts: np.ndarray, position: np.ndarray, orientation: np.ndarray
) -> np.ndarray:
    """Return potentials of unit dipoles in an infinite homogeneous conductor.

    Parameters
    ----------
    contacts : ndarray, shape (n_contacts, 3)
        Metres.
    position, orientation : ndarray, shape (n_sources, 3)
        Metres, unit vectors.

    Returns
    -------
    ndarray, shape (n_contacts, n_sources)
        Volts per ampere metre.
    """
    away = contacts[:, None] - position[None]
    along = np.einsum("csx,sx->cs", away, orientation)
    distance = np.sqrt((away**2).sum(axis=-1) + PATCH_RADIUS**2)
    return along / (4 * np.pi * CONDUCTIVITY * distance**3)

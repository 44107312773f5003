"""The devices of the cohort: where their sensors sit, and what their amplifiers add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mne
import numpy as np
from mne._fiff.constants import FIFF

from neurofm.electrodes import normalise_name
from neurofm.simulate.anatomy import Anatomy, landmark, unit
from neurofm.sphere import fibonacci

HELMET_RADIUS = 0.12
N_COILS = 64
SHAFTS = {"LM": "FC3", "RM": "CP4", "LT": "T7", "RF": "F4"}  # name and entry point
N_CONTACTS = 8
CONTACT_SPACING = 0.0035
_CAP = (
    "Fp1 Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 CP5 CP1 CP2 CP6 "
    "P7 P3 Pz P4 P8 PO7 O1 Oz O2 PO8 TP9 TP10"
)
# the names of before 1991, as many clinical machines still write them
_CLINICAL = "Fp1 Fp2 F7 F3 Fz F4 F8 T3 C3 Cz C4 T4 T5 P3 Pz P4 T6 O1 O2"


@dataclass(frozen=True, kw_only=True)
class Device:
    """What is the same for every recording of a device.

    Attributes
    ----------
    name : str
        The key of `DEVICES`.
    datatype : str
        BIDS folder and suffix of its files.
    extension : str
        Format of its files.
    sfreq : float
        Sampling rate in hertz.
    line_hz : float
        Mains frequency of the laboratory.
    ch_names : tuple of str
        Electrodes by 10-05 name; empty for a helmet or shafts.
    reference : tuple of str
        Electrodes whose mean is subtracted by the amplifier.
    prefix, suffix : str
        What the amplifier puts around channel names.
    noise, line, drift : float
        Standard deviations in volts or tesla: white sensor noise, mains, drift below 0.1 Hz.
    """

    name: str
    datatype: Literal["eeg", "meg", "ieeg"]
    extension: Literal[".vhdr", ".edf", ".fif"]
    sfreq: float
    line_hz: float
    ch_names: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    prefix: str = ""
    suffix: str = ""
    noise: float
    line: float
    drift: float


DEVICES = {
    "eeg_a": Device(
        name="eeg_a",
        datatype="eeg",
        extension=".vhdr",
        sfreq=250.0,
        line_hz=50.0,
        ch_names=tuple(_CAP.split()),
        reference=("FCz",),
        noise=1e-6,
        line=4e-6,
        drift=15e-6,
    ),
    "eeg_b": Device(
        name="eeg_b",
        datatype="eeg",
        extension=".edf",
        sfreq=256.0,
        line_hz=60.0,
        ch_names=tuple(_CLINICAL.split()),
        reference=("M1", "M2"),
        prefix="EEG ",
        suffix="-Ref",
        noise=1.5e-6,
        line=6e-6,
        drift=25e-6,
    ),
    "meg": Device(
        name="meg",
        datatype="meg",
        extension=".fif",
        sfreq=500.0,
        line_hz=50.0,
        noise=6e-14,
        line=3e-13,
        drift=8e-13,
    ),
    "seeg": Device(
        name="seeg",
        datatype="ieeg",
        extension=".fif",
        sfreq=512.0,
        line_hz=60.0,
        noise=2e-6,
        line=1e-5,
        drift=3e-5,
    ),
}


def make_info(device: Device, anatomy: Anatomy, rng: np.random.Generator) -> mne.Info:
    """Place a device's sensors on a subject.

    Parameters
    ----------
    device : Device
        What to place.
    anatomy : Anatomy
        On whom.
    rng : Generator
        How far the cap is turned, where the head lies in the helmet, how the shafts go in.

    Returns
    -------
    mne.Info
        Sensors with their true positions. Electrodes of the reference come last.
    """
    if device.datatype == "eeg":
        return _cap(device, anatomy, rng)
    if device.datatype == "meg":
        return _helmet(device, anatomy, rng)
    return _shafts(device, anatomy, rng)


def recorded_name(device: Device, name: str) -> str:
    """Return what the device's files call an electrode, coil or contact."""
    return f"{device.prefix}{name}{device.suffix}"


def _cap(device: Device, anatomy: Anatomy, rng: np.random.Generator) -> mne.Info:
    names = [*device.ch_names, *device.reference]
    turn = rotation(rng.normal(0, 0.03, 3))  # a cap is never put on twice the same way
    directions = np.array([landmark(normalise_name(name)) for name in names]) @ turn.T
    info = mne.create_info(names, device.sfreq, "eeg")
    for ch, direction in zip(info["chs"], directions, strict=True):
        ch["loc"][:3] = anatomy.centre + anatomy.radius * direction
        ch["loc"][3:6] = 0.0
    return info


def _helmet(device: Device, anatomy: Anatomy, rng: np.random.Generator) -> mne.Info:
    info = mne.create_info([f"MEG{n:04d}" for n in range(1, N_COILS + 1)], device.sfreq, "mag")
    normals = fibonacci(N_COILS, lowest=-0.25)
    for ch, normal in zip(info["chs"], normals, strict=True):
        across = unit(np.cross(normal, [0.31, 0.87, 0.38]))
        axes = (across, np.cross(normal, across), normal)
        ch["loc"][:] = np.concatenate([HELMET_RADIUS * normal, *axes])
        ch["coil_type"] = FIFF.FIFFV_COIL_VV_MAG_T3
        ch["coord_frame"] = FIFF.FIFFV_COORD_DEVICE
    move = np.eye(4)
    move[:3, :3] = rotation(rng.normal(0, 0.08, 3))
    move[:3, 3] = anatomy.centre + rng.uniform(-0.006, 0.006, 3)
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", move)
    return info


def _shafts(device: Device, anatomy: Anatomy, rng: np.random.Generator) -> mne.Info:
    names, positions = [], []
    for shaft, entry in SHAFTS.items():
        outside = unit(landmark(entry) + rng.normal(0, 0.08, 3))
        target = anatomy.centre + anatomy.radius * rng.normal(0, 0.12, 3)
        top = anatomy.centre + 0.86 * anatomy.radius * outside
        inward = unit(target - top)
        for contact in range(N_CONTACTS):  # number 1 is the deepest, as surgeons count
            names.append(f"{shaft}{contact + 1}")
            positions.append(top + inward * CONTACT_SPACING * (N_CONTACTS - 1 - contact))
    info = mne.create_info(names, device.sfreq, "seeg")
    for ch, position in zip(info["chs"], positions, strict=True):
        ch["loc"][:3] = position
        ch["loc"][3:6] = 0.0
    return info


def rotation(axis: np.ndarray) -> np.ndarray:
    """Return the rotation about `axis` by its length in radians, shape (3, 3)."""
    angle = float(np.linalg.norm(axis))
    x, y, z = axis / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross

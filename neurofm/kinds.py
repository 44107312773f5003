"""Kinds of brain sensor, and how a position can be known."""

from __future__ import annotations

from enum import IntEnum


class SensorKind(IntEnum):
    """Kinds of brain sensor. The numbers are stored in checkpoints: append, never renumber."""

    EEG = 0
    MAG = 1
    GRAD_PLANAR = 2
    GRAD_AXIAL = 3
    OPM = 4
    SEEG = 5
    ECOG = 6
    DBS = 7
    REF_MEG = 8

    @property
    def label(self) -> str:
        """The name used in configs and tables, such as ``grad_planar``."""
        return self.name.lower()

    @property
    def unit(self) -> str:
        """The SI unit MNE holds the kind in. Axial gradiometers are in tesla, not T/m."""
        if self is SensorKind.GRAD_PLANAR:
            return "T/m"
        return "T" if self in MEG_KINDS else "V"


MEG_KINDS = frozenset(
    {
        SensorKind.MAG,
        SensorKind.GRAD_PLANAR,
        SensorKind.GRAD_AXIAL,
        SensorKind.OPM,
        SensorKind.REF_MEG,
    }
)


class Knowledge(IntEnum):
    """How a position is known, and in which frame if that is not the head's.

    Anything but ABSENT holds metres in `Sensors.position`.
    """

    ABSENT = 0
    TEMPLATE = 1
    MEASURED = 2
    DEVICE = 3  # measured, but in the device frame: the file has no device-to-head transform
    MNI = 4  # measured, and moved to MNI (Talairach) space
    SCAN = 5  # measured in another frame: of the subject's own scan, or that of the vendor's head

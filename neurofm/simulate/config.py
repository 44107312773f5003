"""What a simulated cohort is made of."""

from __future__ import annotations

import zlib
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from neurofm.config import Config

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class SubjectsConfig(Config):
    """How many subjects each device records.

    Parameters
    ----------
    eeg_a : int
        32 electrodes, BrainVision.
    eeg_b : int
        19 electrodes with the names of before 1991, EDF.
    meg : int
        A helmet of magnetometers, FIF.
    seeg : int
        Shafts in the brain, FIF.
    """

    eeg_a: Count = 8
    eeg_b: Count = 4
    meg: Count = 2
    seeg: Count = 2


class CohortConfig(Config):
    """Subjects who rest, and move their left or right hand.

    Parameters
    ----------
    subjects : SubjectsConfig
        How many subjects, by device.
    runs : int
        Motor runs per subject.
    trials_per_class : int
        Trials of each class in a run.
    trial_s : float
        Length of a trial in seconds.
    gap_s : (float, float)
        Shortest and longest pause between trials in seconds.
    resting_s : float
        Length in seconds of one further run without trials; zero for none.
    effect : float
        Share of mu and beta power lost over the hemisphere opposite to the moving hand, in
        the average subject.
    ipsilateral : float
        The loss over the same side, as a share of `effect`.
    snr : float
        Amplitude of the rhythms, relative to a typical healthy subject's.
    bad_channel_rate : float
        Share of recordings with one or two bad channels.
    """

    subjects: SubjectsConfig = SubjectsConfig()
    runs: int = Field(default=2, ge=1)
    trials_per_class: int = Field(default=8, ge=1)
    trial_s: float = Field(default=4.0, ge=1)
    gap_s: tuple[float, float] = (1.5, 2.5)
    resting_s: float = Field(default=60.0, ge=0)
    effect: Share = 0.75
    ipsilateral: Share = 0.3
    snr: float = Field(default=1.0, ge=0)
    bad_channel_rate: Share = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not sum(self.subjects.to_dict().values()):
            raise ValueError("subjects: no device has any")
        if not 0 < self.gap_s[0] <= self.gap_s[1]:
            raise ValueError(f"gap_s must be 0 < shortest <= longest, got {self.gap_s}")
        if 0 < self.resting_s < 10:
            raise ValueError(f"resting_s must be 0 or at least 10 s, got {self.resting_s:g} s")
        return self


class SimulateConfig(CohortConfig):
    """A cohort, and where it goes.

    Parameters
    ----------
    folder : str
        Where the BIDS-like tree is written.
    seed : int
        Everything follows from it: the same config gives the same signals.
    """

    folder: str = Field(default="simulated", min_length=1)
    seed: int = Field(default=0, ge=0)


def rng_for(seed: int, *names: str | int) -> np.random.Generator:
    """Return a generator that depends on the seed and the names alone.

    One subject more, or a device less, then leaves every other subject as it was.
    """
    key = zlib.crc32("/".join(str(name) for name in names).encode())
    return np.random.default_rng([seed, key])

"""How a token knows where it is: a choice of the config.

Each place is a module with ``of(batch, patch_s, n_patches)`` that gives (B, C, 1 or P, D): B
windows, C channels, P patches, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import SignalError
from neurofm.nn.place import MAX_KINDS, PlaceEncoding
from neurofm.nn.place_smoothed import SlowTime, SmoothedPlace
from neurofm.nn.place_table import CodeTable, CoordinateTables
from neurofm.nn.place_time import PlaceTime
from neurofm.sensors import text_code
from neurofm.signals import Batch
from neurofm.tokenizers.electrode_names import TEN_FIVE


class Place(nn.Module, ABC):
    """What most places share: a row for the kind, and the orientation of what has one.

    Parameters
    ----------
    width : int
        D.
    geometric : bool
        Whether orientations count, and channels that are not located have a learned vector.
    """

    def __init__(self, width: int, *, geometric: bool):
        super().__init__()
        self.kind = nn.Embedding(MAX_KINDS, width)
        self.unknown: nn.Parameter | None = None
        self.orientation: nn.Linear | None = None
        if geometric:
            self.unknown = nn.Parameter(torch.randn(width))
            self.orientation = nn.Linear(3, width, bias=False)

    @abstractmethod
    def where(self, batch: Batch, patch_s: float, n_patches: int) -> Tensor:
        """Return where channels are, (B, C, 1 or P, D)."""

    def of(self, batch: Batch, patch_s: float, n_patches: int) -> Tensor:
        """Return the place of each channel in each patch, or in all, (B, C, 1 or P, D)."""
        what = self.kind(batch.kind)
        where = self.where(batch, patch_s, n_patches).to(what.dtype)
        if self.unknown is not None and self.orientation is not None:
            where = torch.where(batch.located[..., None, None], where, self.unknown)
            normal = batch.orientation.masked_fill(~batch.oriented[..., None], 0.0)
            what = what + self.orientation(normal.to(what.dtype))
        return where + what[:, :, None]


# ---------------------------------------------------------------------------------------
# Coordinates


class FourierPlaceConfig(Config):
    """Waves of position, orientation and kind through a small network."""

    name: Literal["fourier"] = "fourier"

    def build(self, width: int) -> PlaceEncoding:
        """Build the module."""
        return PlaceEncoding(width)


class PlaceTimeConfig(Config):
    """Products of waves over three axes of space and one of time, as REVE's.

    Parameters
    ----------
    n_frequencies : int
        Waves an axis.
    """

    name: Literal["place_time"] = "place_time"
    n_frequencies: int = Field(default=4, ge=1)

    def build(self, width: int) -> WaveProducts:
        """Build the module.

        Raises
        ------
        ConfigError
            If the width is odd.
        """
        return WaveProducts(width, self.n_frequencies)


class WaveProducts(Place):
    """REVE's place and time, of sensors whose position is known."""

    def __init__(self, width: int, n_frequencies: int):
        super().__init__(width, geometric=True)
        self.waves = PlaceTime(width, n_frequencies)

    def where(self, batch: Batch, patch_s: float, n_patches: int) -> Tensor:
        """Return the waves, (B, C, P, D)."""
        # half precision has too few digits for phases
        position = batch.position.to(self.waves.linear.weight.dtype)
        return self.waves(position.masked_fill(~batch.located[..., None], 0.0), n_patches)


class SmoothedPlaceConfig(Config):
    """Positions smoothed as volume conduction does, and slow functions of time: DeeperBrain's.

    The place of a sensor depends on which others are there.

    Parameters
    ----------
    time : bool
        Add the slow functions of time.
    """

    name: Literal["smoothed"] = "smoothed"
    time: bool = True

    def build(self, width: int) -> Smoothed:
        """Build the module."""
        return Smoothed(width, time=self.time)


class Smoothed(Place):
    """DeeperBrain's places, and times where asked for."""

    def __init__(self, width: int, *, time: bool):
        super().__init__(width, geometric=True)
        self.smoothed = SmoothedPlace(width)
        self.slow = SlowTime(width) if time else None

    def where(self, batch: Batch, patch_s: float, n_patches: int) -> Tensor:
        """Return the smoothed positions' map."""
        return self.smoothed(batch.position, batch.present & batch.located)[:, :, None]

    def of(self, batch: Batch, patch_s: float, n_patches: int) -> Tensor:
        """Return the place of each channel; time counts for channels without a position too."""
        place = super().of(batch, patch_s, n_patches)
        return place if self.slow is None else place + self.slow(n_patches, patch_s)


class CoordinateTableConfig(Config):
    """A row for each millimetre of each coordinate, as BaRISTA places single channels."""

    name: Literal["coordinate_tables"] = "coordinate_tables"

    def build(self, width: int) -> Coordinates:
        """Build the module."""
        return Coordinates(width)


class Coordinates(Place):
    """Rows of three tables, added."""

    def __init__(self, width: int):
        super().__init__(width, geometric=True)
        self.tables = CoordinateTables(width)

    def where(self, batch: Batch, patch_s: float, n_patches: int) -> Tensor:
        """Return the sum of rows."""
        return self.tables(batch.position)[:, :, None]


# ---------------------------------------------------------------------------------------
# Names


class NamesConfig(Config):
    """A row for each electrode's name, as in LaBraM, EEGPT and BIOT; geometry has no say.

    Parameters
    ----------
    names : tuple of str
        Names that have a row; by default the 10-05 system's. Channels that are not EEG are called
        with their kind before, ``meg_mag:MEG0111``. All other names share a row.
    """

    name: Literal["names"] = "names"
    names: tuple[str, ...] = Field(default=tuple(TEN_FIVE), min_length=1)

    def build(self, width: int) -> TableOfCodes:
        """Build the module.

        Raises
        ------
        ConfigError
            If a name is there twice.
        """
        return TableOfCodes(self.names, "name_code", width)


class RegionsConfig(Config):
    """A row for each region of an atlas, as BaRISTA places channels by parcel or lobe.

    Parameters
    ----------
    regions : tuple of str
        Regions that have a row, spelt as recordings have them. Channels of other regions, or of
        none, share a row.
    """

    name: Literal["regions"] = "regions"
    regions: tuple[str, ...] = Field(min_length=1)

    def build(self, width: int) -> TableOfCodes:
        """Build the module.

        Raises
        ------
        ConfigError
            If a region is there twice.
        """
        return TableOfCodes(self.regions, "region_code", width)


class TableOfCodes(Place):
    """A row for each code that a batch has for its channels."""

    def __init__(
        self, names: tuple[str, ...], field: Literal["name_code", "region_code"], width: int
    ):
        super().__init__(width, geometric=False)
        self.field = field
        self.table = CodeTable([text_code(name) for name in names], width)

    def where(self, batch: Batch, patch_s: float, n_patches: int) -> Tensor:
        """Return rows.

        Raises
        ------
        SignalError
            If the batch has no such codes.
        """
        code = getattr(batch, self.field)
        if code is None or code.shape != batch.kind.shape:
            found = "none" if code is None else f"shape {tuple(code.shape)}"
            raise SignalError(
                f"batch: {self.field} is needed for places by table, of shape "
                f"{tuple(batch.kind.shape)}; found {found}",
                hint="make batches with `make_batch` or a loader, which know the sensors' names",
            )
        return self.table(code)[:, :, None]


PLACES = {
    "fourier": FourierPlaceConfig,
    "place_time": PlaceTimeConfig,
    "smoothed": SmoothedPlaceConfig,
    "coordinate_tables": CoordinateTableConfig,
    "names": NamesConfig,
    "regions": RegionsConfig,
}

PlaceConfig = Annotated[
    FourierPlaceConfig
    | PlaceTimeConfig
    | SmoothedPlaceConfig
    | CoordinateTableConfig
    | NamesConfig
    | RegionsConfig,
    Field(discriminator="name"),
]

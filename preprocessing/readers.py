"""Every way to read a file, by name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from neurofm.preprocessing.arrays import ArrayReader
from neurofm.preprocessing.bids import BidsReader
from neurofm.preprocessing.epochs import EpochsReader
from neurofm.preprocessing.moabb import MoabbReader
from neurofm.preprocessing.read import AutoReader
from neurofm.preprocessing.tables import TableReader
from neurofm.preprocessing.vendors import BtiReader, KitReader, NicoletReader
from neurofm.preprocessing.xdf import XdfReader

AnyReader = Annotated[
    AutoReader
    | BidsReader
    | EpochsReader
    | BtiReader
    | KitReader
    | NicoletReader
    | ArrayReader
    | MoabbReader
    | TableReader
    | XdfReader,
    Field(discriminator="name"),
]

"""neurofm: pretrain and fine-tune foundation models for EEG, MEG and intracranial EEG.

The names below are imported when they are first used, so that `import neurofm` costs
nothing of torch or MNE.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neurofm.errors import NeurofmError

if TYPE_CHECKING:
    from neurofm.checkpoint import Checkpoint, load
    from neurofm.store.reader import Store, open_store

__version__ = "0.1.0"
__all__ = ["Checkpoint", "NeurofmError", "Store", "__version__", "load", "open_store"]

_HOMES = {
    "Checkpoint": "neurofm.checkpoint",
    "load": "neurofm.checkpoint",
    "Store": "neurofm.store.reader",
    "open_store": "neurofm.store.reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'neurofm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

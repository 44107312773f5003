"""Every backbone, by the name that configs and checkpoints use."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from neurofm.backbones.mamba import MambaConfig
from neurofm.backbones.pyramid import PyramidConfig
from neurofm.backbones.transformer import TransformerConfig

BACKBONES = {"transformer": TransformerConfig, "mamba": MambaConfig, "pyramid": PyramidConfig}


def _name(values: Any) -> Any:
    """Return the name of a backbone; settings without one are those of a transformer."""
    if isinstance(values, dict):
        return values.get("name", "transformer")
    return getattr(values, "name", None)


BackboneConfig = Annotated[
    Annotated[TransformerConfig, Tag("transformer")]
    | Annotated[MambaConfig, Tag("mamba")]
    | Annotated[PyramidConfig, Tag("pyramid")],
    Discriminator(_name),
]

"""Every backbone, by the name that configs and checkpoints use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from neurofm.backbones.mamba import MambaConfig
from neurofm.backbones.transformer import TransformerConfig

BACKBONES = {"transformer": TransformerConfig, "mamba": MambaConfig}

BackboneConfig = Annotated[TransformerConfig | MambaConfig, Field(discriminator="name")]

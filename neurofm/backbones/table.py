"""Every backbone, by the name that configs and checkpoints use."""

from __future__ import annotations

from neurofm.backbones.transformer import TransformerConfig

BACKBONES = {"transformer": TransformerConfig}

BackboneConfig = TransformerConfig  # becomes a union on `name` with the second backbone

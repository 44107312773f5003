"""Every tokenizer, by the name that configs and checkpoints use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.patch import ConvPatchConfig, LinearPatchConfig
from neurofm.tokenizers.plane import PlanePatchConfig

TOKENIZERS = {
    "linear_patch": LinearPatchConfig,
    "conv_patch": ConvPatchConfig,
    "plane_patch": PlanePatchConfig,
    "brain_tokenizer": BrainTokenizerConfig,
}

TokenizerConfig = Annotated[
    LinearPatchConfig | ConvPatchConfig | PlanePatchConfig | BrainTokenizerConfig,
    Field(discriminator="name"),
]

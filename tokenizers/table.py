"""Every tokenizer, by the name that configs and checkpoints use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from neurofm.tokenizers.patch import ConvPatchConfig, LinearPatchConfig

TOKENIZERS = {"linear_patch": LinearPatchConfig, "conv_patch": ConvPatchConfig}

TokenizerConfig = Annotated[LinearPatchConfig | ConvPatchConfig, Field(discriminator="name")]

"""Every tokenizer, by the name that configs and checkpoints use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.convs import (
    CbramodConvConfig,
    DilatedConvConfig,
    LabramConvConfig,
    StridedConvConfig,
)
from neurofm.tokenizers.du_in import DuInConfig
from neurofm.tokenizers.luna import LunaConfig
from neurofm.tokenizers.merged import MergedPatchConfig
from neurofm.tokenizers.patch import ConvPatchConfig, LinearPatchConfig
from neurofm.tokenizers.plane import PlanePatchConfig
from neurofm.tokenizers.samples import AnnealedSamplesConfig, MuLawConfig, QuantileConfig
from neurofm.tokenizers.spectra import MultiScaleSpectraConfig, StftConfig
from neurofm.tokenizers.vqnsp import VqnspConfig

TOKENIZERS = {
    "linear_patch": LinearPatchConfig,
    "conv_patch": ConvPatchConfig,
    "plane_patch": PlanePatchConfig,
    "merged_patch": MergedPatchConfig,
    "luna": LunaConfig,
    "labram_conv": LabramConvConfig,
    "cbramod_conv": CbramodConvConfig,
    "strided_conv": StridedConvConfig,
    "dilated_conv": DilatedConvConfig,
    "stft": StftConfig,
    "multi_scale_spectra": MultiScaleSpectraConfig,
    "brain_tokenizer": BrainTokenizerConfig,
    "vqnsp": VqnspConfig,
    "du_in": DuInConfig,
    "mu_law_samples": MuLawConfig,
    "quantile_samples": QuantileConfig,
    "annealed_samples": AnnealedSamplesConfig,
}

TokenizerConfig = Annotated[
    LinearPatchConfig
    | ConvPatchConfig
    | PlanePatchConfig
    | MergedPatchConfig
    | LunaConfig
    | LabramConvConfig
    | CbramodConvConfig
    | StridedConvConfig
    | DilatedConvConfig
    | StftConfig
    | MultiScaleSpectraConfig
    | BrainTokenizerConfig
    | VqnspConfig
    | DuInConfig
    | MuLawConfig
    | QuantileConfig
    | AnnealedSamplesConfig,
    Field(discriminator="name"),
]

"""Every tokenizer that ``neurofm tokenize`` trains, by the name that configs use.

Each config has ``build_parts(contract)``, which gives a `Coder`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeGuard

from pydantic import Field

from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.samples import AnnealedSamplesConfig, MuLawConfig, QuantileConfig

TRAINABLE = {
    "brain_tokenizer": BrainTokenizerConfig,
    "mu_law_samples": MuLawConfig,
    "quantile_samples": QuantileConfig,
    "annealed_samples": AnnealedSamplesConfig,
}

TrainableConfig = Annotated[
    BrainTokenizerConfig | MuLawConfig | QuantileConfig | AnnealedSamplesConfig,
    Field(discriminator="name"),
]


def is_trainable(config: Any) -> TypeGuard[TrainableConfig]:
    """Tell whether ``neurofm tokenize`` trains what a config describes."""
    return isinstance(config, tuple(TRAINABLE.values()))

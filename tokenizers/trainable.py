"""Every tokenizer that ``neurofm tokenize`` trains, by the name that configs use.

Each config has ``build_parts(contract)``, which gives a `Coder`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeGuard

from pydantic import Field

from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.du_in import DuInConfig
from neurofm.tokenizers.samples import AnnealedSamplesConfig, MuLawConfig, QuantileConfig
from neurofm.tokenizers.vqnsp import VqnspConfig

TRAINABLE = {
    "brain_tokenizer": BrainTokenizerConfig,
    "vqnsp": VqnspConfig,
    "du_in": DuInConfig,
    "mu_law_samples": MuLawConfig,
    "quantile_samples": QuantileConfig,
    "annealed_samples": AnnealedSamplesConfig,
}

TrainableConfig = Annotated[
    BrainTokenizerConfig
    | VqnspConfig
    | DuInConfig
    | MuLawConfig
    | QuantileConfig
    | AnnealedSamplesConfig,
    Field(discriminator="name"),
]


def is_trainable(config: Any) -> TypeGuard[TrainableConfig]:
    """Tell whether ``neurofm tokenize`` trains what a config describes."""
    return isinstance(config, tuple(TRAINABLE.values()))

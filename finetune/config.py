"""The config of a fine-tuning run: which question, asked of which models, scored how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from neurofm.config import Config
from neurofm.finetune.baselines import ChanceConfig, TangentSpaceConfig
from neurofm.finetune.full import FullConfig
from neurofm.finetune.probe import LinearProbeConfig
from neurofm.finetune.protocols import ProtocolConfig
from neurofm.finetune.tasks import TaskConfig

AdaptationConfig = Annotated[LinearProbeConfig | FullConfig, Field(discriminator="name")]


class AdaptedConfig(Config):
    """An encoder and what is done with it.

    Parameters
    ----------
    name : str
        Whose weights.
    adaptation : AdaptationConfig
        How it is fitted to the task.
    seeds : list of int, optional
        Instead of the run's.
    """

    name: str
    adaptation: AdaptationConfig = Field(default_factory=LinearProbeConfig)
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)

    @property
    def key(self) -> tuple[str, str]:
        """Model and adaptation, as tables call them."""
        return self.name, self.adaptation.label


class RandomInitConfig(AdaptedConfig):
    """The checkpoint's architecture with weights drawn by seed: what pretraining must beat."""

    name: Literal["random_init"] = "random_init"


class PretrainedConfig(AdaptedConfig):
    """The checkpoint's weights."""

    name: Literal["pretrained"] = "pretrained"


EncoderModelConfig = RandomInitConfig | PretrainedConfig
ModelConfig = Annotated[
    ChanceConfig | TangentSpaceConfig | RandomInitConfig | PretrainedConfig,
    Field(discriminator="name"),
]


class FinetuneConfig(Config):
    """A task, the protocols that score it, and the models that are scored.

    Parameters
    ----------
    stores : list of str
        Paths of the stores; they must have one contract.
    checkpoint : str, optional
        A checkpoint of the same contract: a folder or ``hf://owner/name``. Only models with
        an encoder need one.
    task : TaskConfig
        What is a trial of which class.
    protocols : list of ProtocolConfig
        How trials are split.
    models : list of ModelConfig
        Baselines and encoders.
    seeds : list of int
        Models that depend on a seed are run with each; others with the first.
    folder : str
        Where results go.
    device : "auto", "cpu" or "cuda"
        Where encoders run.
    threads : int, optional
        CPU threads of an encoder; by default as many as torch takes. For small encoders one
        is best wherever the machine does anything else: threads wait for each other.
    """

    stores: tuple[str, ...] = Field(min_length=1)
    checkpoint: str | None = None
    task: TaskConfig
    protocols: tuple[ProtocolConfig, ...] = Field(min_length=1)
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    folder: str
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> FinetuneConfig:
        keys = [model.key for model in self.models]
        if twice := {key for key in keys if keys.count(key) > 1}:
            name, adaptation = sorted(twice)[0]
            raise ValueError(f"models: {name} with adaptation {adaptation} is listed twice")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: a seed is listed twice")
        encoders = [
            m.name for m in self.models if isinstance(m, RandomInitConfig | PretrainedConfig)
        ]
        if encoders and self.checkpoint is None:
            raise ValueError(f"model {encoders[0]} needs a `checkpoint`")
        return self

    def seeds_of(self, model: ModelConfig) -> tuple[int, ...]:
        """Return the seeds a model is run with: one where no seed has a say."""
        if isinstance(model, ChanceConfig | TangentSpaceConfig):
            return self.seeds[:1]
        seeds = model.seeds or self.seeds
        if isinstance(model, PretrainedConfig) and isinstance(model.adaptation, LinearProbeConfig):
            return seeds[:1]
        return seeds

"""A trained tokenizer in a folder: its config, its weights, and the signals it is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neurofm.config import Config, digest_of, parse_config
from neurofm.contract import SignalContract
from neurofm.errors import CheckpointError, ConfigError
from neurofm.nn.weights import (
    check_fit,
    digest_of_state,
    read_weights,
    require_digest,
    storable,
    write_beside_weights,
)
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.slot import CodedTokenizer
from neurofm.tokenizers.trainable import TrainableConfig

FORMAT = 1
CONFIG, WEIGHTS = "tokenizer.json", "model.safetensors"


class SavedConfig(Config):
    """Everything ``tokenizer.json`` holds."""

    format: int
    tokenizer: TrainableConfig
    contract: SignalContract
    provenance: dict[str, Any]
    training: dict[str, Any]
    weights: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedTokenizer:
    """A tokenizer that was read.

    Attributes
    ----------
    parts : Coder
        Encoder, codes and decoder, in evaluation mode.
    config : TrainableConfig
        Architecture.
    contract : SignalContract
        The signals it is for.
    provenance, training : dict
        What it saw, and how.
    digest : str
        Twelve characters that identify the weights.
    """

    parts: Coder
    config: TrainableConfig
    contract: SignalContract
    provenance: dict[str, Any]
    training: dict[str, Any]
    digest: str

    @property
    def identity(self) -> str:
        """Twelve characters that identify what its codes mean: architecture, signals, weights."""
        return digest_of(
            {
                "tokenizer": architecture(self.config),
                "contract": self.contract.to_dict(),
                "weights": self.digest,
            }
        )


def architecture(config: TrainableConfig) -> dict[str, Any]:
    """Return the values of a config that what is trained depends on, and not its use."""
    return {key: value for key, value in config.to_dict().items() if key not in config.of_the_slot}


def save_tokenizer(
    path: Path,
    parts: Coder,
    config: TrainableConfig,
    *,
    contract: SignalContract,
    provenance: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Path:
    """Write a tokenizer; it appears complete or not at all.

    Parameters
    ----------
    path : Path
        The folder. An older tokenizer there is replaced.
    parts : Coder
        What was trained.
    config : TrainableConfig
        Its architecture.
    contract : SignalContract
        The signals it was trained on.
    provenance, training : mapping
        Plain values.

    Raises
    ------
    CheckpointError
        If a weight is not finite, or the folder holds something else.
    """
    if path.exists() and not (path / CONFIG).is_file():
        raise CheckpointError(f"{path} exists and is no tokenizer", hint="choose another folder")
    state = storable(parts)
    values = SavedConfig(
        format=FORMAT,
        tokenizer=config,
        contract=contract,
        provenance=dict(provenance),
        training=dict(training),
        weights=digest_of_state(state),
    ).to_dict()
    text = json.dumps(values, indent=2) + "\n"
    write_beside_weights(path, WEIGHTS, state, {CONFIG: text})
    return path


def load_tokenizer(path: str | Path) -> SavedTokenizer:
    """Read a tokenizer and make sure that it is whole.

    Raises
    ------
    CheckpointError
        If something is missing, damaged or does not fit; the message names it.
    """
    folder = Path(path)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} is no tokenizer: {name} is missing",
                hint="name the folder `tokenizer` that `neurofm tokenize` wrote at its end",
            )
    where = folder / CONFIG
    try:
        values = json.loads(where.read_text(encoding="utf-8"))
        config = parse_config(SavedConfig, values, where=str(where))
        # the draws of initial weights are thrown away: they must not move the caller's generator
        with torch.random.fork_rng(devices=[]):
            parts = config.tokenizer.build_parts(config.contract)
    except ConfigError as error:
        raise CheckpointError(error.problem, hint=error.hint) from None
    except ValueError as error:
        raise CheckpointError(f"{where} is not JSON: {error}") from None
    if config.format != FORMAT:
        raise CheckpointError(f"{where}: format {config.format}, this version reads {FORMAT}")
    state = read_weights(folder / WEIGHTS)
    check_fit(parts.state_dict(), state, str(folder / WEIGHTS))
    require_digest(state, config.weights, weights=folder / WEIGHTS, config=CONFIG, what="tokenizer")
    parts.load_state_dict(state)
    return SavedTokenizer(
        parts=parts.eval(),
        config=config.tokenizer,
        contract=config.contract,
        provenance=config.provenance,
        training=config.training,
        digest=config.weights,
    )


def put_into(
    slot: CodedTokenizer,
    config: TrainableConfig,
    contract: SignalContract,
    saved: SavedTokenizer,
) -> None:
    """Give an encoder's tokenizer what ``neurofm tokenize`` has learnt.

    Parameters
    ----------
    slot : CodedTokenizer
        Changed in place; what brings tokens to the encoder's width keeps its weights.
    config, contract : TrainableConfig, SignalContract
        Those of the encoder.
    saved : SavedTokenizer
        What was read.

    Raises
    ------
    CheckpointError
        If it is another architecture, by the names of what differs.
    ContractError
        If it is for other signals.
    """
    contract.require_same(saved.contract, "the encoder", "the tokenizer")
    ours, theirs = architecture(config), architecture(saved.config)
    keys = ours if config.name == saved.config.name else ("name",)
    differing = [
        f"{key}: {ours[key]!r} against {theirs[key]!r}" for key in keys if ours[key] != theirs[key]
    ]
    if differing:
        raise CheckpointError(
            f"the encoder's tokenizer is not the one that was trained: {'; '.join(differing)}",
            hint="copy the values of the tokenizer's config into the encoder's",
        )
    slot.take(saved.parts)

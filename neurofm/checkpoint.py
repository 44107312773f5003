"""Checkpoints: a folder with an architecture, its weights, and what both are for.

``config.json`` (plain values), ``model.safetensors`` (weights) and ``README.md`` (model
card). Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurofm import __version__
from neurofm.backbones.table import BACKBONES
from neurofm.config import Config, parse_config
from neurofm.contract import SignalContract
from neurofm.embedding import Source, embed
from neurofm.encoder import Encoder, EncoderConfig
from neurofm.errors import CheckpointError, ConfigError, unknown_name
from neurofm.nn.weights import (
    check_fit,
    digest_of_state,
    read_weights,
    require_digest,
    storable,
    weights_digest,
    write_beside_weights,
)
from neurofm.report.model_card import model_card
from neurofm.tokenizers.table import TOKENIZERS
from neurofm.witness import witness

__all__ = ["Checkpoint", "load", "save", "weights_digest"]

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
WITNESS_TOLERANCE = 5e-4  # of the largest number; kernels and machines differ by some 1e-6


class CheckpointConfig(Config):
    """Everything ``config.json`` holds."""

    format: int
    neurofm: str
    licence: str
    encoder: EncoderConfig
    contract: SignalContract
    provenance: dict[str, Any]
    training: dict[str, Any]
    weights: str
    parameters: int
    witness: list[list[float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A loaded checkpoint.

    Attributes
    ----------
    encoder : Encoder
        In evaluation mode, on the CPU, in float32.
    contract : SignalContract
        The signals the encoder is for.
    config : EncoderConfig
        Architecture.
    provenance : dict
        ``subjects``: the subjects of each dataset it saw; ``recordings``: their names.
    training : dict
        Objective, steps and losses.
    digest : str
        Twelve characters that identify the weights.
    licence : str
        Of the weights, as their maker stated it.
    path : Path
        The folder it was read from.
    """

    encoder: Encoder
    contract: SignalContract
    config: EncoderConfig
    provenance: dict[str, Any]
    training: dict[str, Any]
    digest: str
    licence: str
    path: Path

    def embed(
        self,
        source: Source,
        *,
        pool: str = "mean",
        batch_size: int = 32,
        unit_scale: float = 1.0,
        allow_unlocated: bool = False,
        subject: str | None = None,
    ) -> np.ndarray:
        """Bring data under the contract and return one vector a window.

        Parameters
        ----------
        source : mne.io.BaseRaw, mne.BaseEpochs or Recording
            A continuous recording is tiled into windows; an epoch is a window. Nothing is
            changed in it. `embedding.windows_of` says exactly what is done.
        pool : "mean"
            How the tokens of a window become one vector.
        batch_size : int
            Windows at a time; changes speed and memory, not the result.
        unit_scale : float
            Factor that brings the samples to volts or tesla, should they not be.
        allow_unlocated : bool
            Accept data of which no channel has a position.
        subject : str, optional
            ``dataset_sub-subject``, for encoders that know subjects; by default that of a
            `Recording`.

        Returns
        -------
        ndarray of float32, shape (n_windows, D)
            One row a window, in order.

        Raises
        ------
        SignalError
            If amplitudes are implausible for the unit, the data are too short or epochs of
            another length, or no channel can be used.
        SensorError
            If nothing has a position.
        """
        return embed(
            self.encoder,
            self.contract,
            source,
            pool=pool,
            batch_size=batch_size,
            unit_scale=unit_scale,
            allow_unlocated=allow_unlocated,
            subject=subject,
        )


def save(
    path: str | Path,
    encoder: Encoder,
    *,
    contract: SignalContract,
    provenance: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    licence: str = "unknown",
) -> Path:
    """Write a checkpoint; it appears complete or not at all.

    Parameters
    ----------
    path : str or Path
        The folder to write. An older checkpoint there is replaced.
    encoder : Encoder
        On any device; weights are stored as float32.
    contract : SignalContract
        The signals it was trained on.
    provenance : mapping
        Plain values: ``subjects`` (dataset -> list of subjects), ``recordings`` (list of
        recording ids), and no paths of the machine it was made on.
    training : mapping, optional
        Plain values: objective, steps, losses.
    licence : str
        Of the weights: an identifier that model hubs know, such as ``cc-by-4.0``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CheckpointError
        If a weight is not finite, a value is not plain, the encoder is not what its config
        builds, or the folder holds something else.
    """
    path = Path(path)
    if path.exists() and not (path / CONFIG).is_file():
        if not path.is_dir() or any(path.iterdir()):
            raise CheckpointError(
                f"{path} exists and is no checkpoint", hint="choose another folder"
            )
        path.rmdir()
    state = storable(encoder)
    twin = _build(encoder.config, contract, state, "the encoder to be saved")
    values = CheckpointConfig(
        format=FORMAT,
        neurofm=__version__,
        licence=licence,
        encoder=encoder.config,
        contract=contract,
        provenance=_plain(provenance, "provenance"),
        training=_plain(training or {}, "training"),
        weights=digest_of_state(state),
        parameters=sum(p.numel() for p in twin.parameters()),
        witness=witness(twin, contract).tolist(),
    ).to_dict()
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    card = model_card(path.name, values)
    write_beside_weights(path, WEIGHTS, state, {CONFIG: text, CARD: card})
    return path


def load(path: str | Path, *, local_files_only: bool = False) -> Checkpoint:
    """Read a checkpoint and make sure that it is whole and computes what it did.

    Parameters
    ----------
    path : str or Path
        A folder, or ``hf://owner/name`` with ``@revision`` if wanted.
    local_files_only : bool
        For ``hf://``: use what was downloaded before, ask nothing of the network.

    Returns
    -------
    Checkpoint
        With the encoder in evaluation mode.

    Raises
    ------
    CheckpointError
        If something is missing, damaged, unknown to this version, or does not fit; the
        message names it.
    """
    text = str(path)
    folder = _download(text, local_files_only) if text.startswith("hf://") else Path(path)
    config = _read_config(folder)
    state = read_weights(folder / WEIGHTS)
    encoder = _build(config.encoder, config.contract, state, str(folder / WEIGHTS))
    require_digest(
        state, config.weights, weights=folder / WEIGHTS, config=CONFIG, what="checkpoint"
    )
    _check_witness(encoder, config, folder)
    return Checkpoint(
        encoder=encoder,
        contract=config.contract,
        config=config.encoder,
        provenance=config.provenance,
        training=config.training,
        digest=config.weights,
        licence=config.licence,
        path=folder,
    )


def _plain(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return values as JSON gives them back, or refuse what it would change or lose."""
    try:
        return dict(json.loads(json.dumps(values, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{what} must hold plain, finite values only: {error}",
            hint="use numbers, text, lists and dictionaries",
        ) from None


def _build(
    config: EncoderConfig, contract: SignalContract, state: Mapping[str, Tensor], where: str
) -> Encoder:
    # the draws of initial weights are thrown away: they must not move the caller's generator
    with torch.random.fork_rng(devices=[]):
        try:
            encoder = config.build(contract)
        except ConfigError as error:
            raise CheckpointError(f"{where}: {error.problem}", hint=error.hint) from None
    check_fit(encoder.state_dict(), state, where)
    encoder.load_state_dict(dict(state), strict=True)
    return encoder.eval()


def _check_witness(encoder: Encoder, config: CheckpointConfig, folder: Path) -> None:
    before = np.asarray(config.witness, np.float64)
    now = witness(encoder, config.contract).double().numpy()
    error = np.abs(now - before).max() if now.shape == before.shape else np.inf
    if not error <= WITNESS_TOLERANCE * max(1.0, np.abs(before).max()):
        raise CheckpointError(
            f"{folder}: the code computes something else than when this checkpoint was written "
            f"by neurofm {config.neurofm}: its own test output is off by {error:.2g}",
            hint=f"this is neurofm {__version__}; install neurofm=={config.neurofm} to use it",
        )


# ---------------------------------------------------------------------------------------
# Files


def _download(url: str, local_files_only: bool) -> Path:
    match = re.fullmatch(r"hf://([^/@\s]+/[^/@\s]+)(?:@(\S+))?", url)
    if match is None:
        raise CheckpointError(
            f"{url!r} is no address of a checkpoint",
            hint="write hf://owner/name, or hf://owner/name@revision",
        )
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                match[1],
                revision=match[2],
                allow_patterns=[CONFIG, WEIGHTS, CARD],  # whatever else is there stays there
                local_files_only=local_files_only,
            )
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[:1]
        raise CheckpointError(
            f"{url}: could not be fetched: {type(error).__name__}: {' '.join(first)}",
            hint="check the name, the network, and your access to a private repository",
        ) from error


def _read_config(folder: Path) -> CheckpointConfig:
    values = _read_json(folder)
    where = str(folder / CONFIG)
    if not isinstance(values, dict) or "format" not in values or "encoder" not in values:
        raise CheckpointError(
            f"{where} does not describe a neurofm checkpoint",
            hint="it may belong to another library",
        )
    if values["format"] != FORMAT:
        raise CheckpointError(
            f"{where}: checkpoint format {values['format']!r}, written by neurofm "
            f"{values.get('neurofm')}; this version, {__version__}, reads format {FORMAT}",
            hint=f"install neurofm=={values.get('neurofm')}",
        )
    for part, table in (("tokenizer", TOKENIZERS), ("backbone", BACKBONES)):
        settings = values["encoder"].get(part) if isinstance(values["encoder"], dict) else None
        name = settings.get("name") if isinstance(settings, dict) else None
        if name not in table:
            problem = unknown_name(part, str(name), table)
            raise CheckpointError(f"{where}: {problem.problem}", hint=problem.hint)
    try:
        return parse_config(CheckpointConfig, values, where=where)
    except ConfigError as error:
        raise CheckpointError(error.problem, hint=error.hint) from None


def _read_json(folder: Path) -> Any:
    if not folder.exists():
        text = folder.as_posix()
        published = re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None
        raise CheckpointError(
            f"there is no checkpoint at {folder}",
            hint=f"for a published one write hf://{text}" if published else None,
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is a file; a checkpoint is a folder with {CONFIG} and {WEIGHTS}",
            hint="training snapshots (.ckpt) are no checkpoints: name the folder that the "
            "pretraining run wrote at its end",
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} is no complete checkpoint: {name} is missing",
                hint=f"a checkpoint holds {CONFIG} and {WEIGHTS}",
            )
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG} is not JSON: {error}") from None

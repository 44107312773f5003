"""Weights as named tensors: identify them, make them storable, and see whether they fit."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neurofm.errors import CheckpointError
from neurofm.files import sync_folder


def weights_digest(module: nn.Module) -> str:
    """Return twelve characters over names, shapes, types and bytes of a module's weights."""
    return digest_of_state(module.state_dict())


def digest_of_state(state: Mapping[str, Tensor]) -> str:
    """Return the digest of named tensors, whatever their order and device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def storable(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's weights on the CPU, in float32 where they are floats.

    Raises
    ------
    CheckpointError
        If one holds numbers that are not finite.
    """
    state = {}
    for name, value in module.state_dict().items():
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        state[name] = value.detach().to("cpu", dtype, copy=True).contiguous()
        if not torch.isfinite(state[name]).all():
            raise CheckpointError(
                f"the weight {name} holds numbers that are not finite",
                hint="the run diverged: go back to an earlier snapshot, lower the learning rate",
            )
    return state


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    CheckpointError
        If it is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", hint="the file is damaged; fetch it again"
        ) from error


def check_fit(needed: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are missing, unexpected, mis-shaped or of another type, by name.

    Parameters
    ----------
    needed, found : mapping of str to Tensor
        What the architecture has, and what there is.
    where : str
        What holds `found`, for the message.

    Raises
    ------
    CheckpointError
        Naming what does not fit.
    """
    problems = []
    if missing := sorted(needed.keys() - found.keys()):
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if unexpected := sorted(found.keys() - needed.keys()):
        problems.append(f"{len(unexpected)} unexpected: {_some(unexpected)}")
    both = sorted(needed.keys() & found.keys())
    shapes = [
        f"{name} has shape {tuple(found[name].shape)}, needed is {tuple(needed[name].shape)}"
        for name in both
        if found[name].shape != needed[name].shape
    ]
    dtypes = [
        f"{name} is {found[name].dtype}, needed is {needed[name].dtype}"
        for name in both
        if found[name].dtype != needed[name].dtype
    ]
    problems += [_some(wrong) for wrong in (shapes, dtypes) if wrong]
    if problems:
        raise CheckpointError(
            f"{where}: the weights do not fit the architecture: {'; '.join(problems)}",
            hint="the weights and config.json are from different models",
        )


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def require_digest(
    state: Mapping[str, Tensor], expected: str, *, weights: Path, config: str, what: str
) -> None:
    """Refuse weights that are not those a config was written for.

    Parameters
    ----------
    state : mapping of str to Tensor
        What was read.
    expected : str
        Digest that the config holds.
    weights : Path
        File they were read from.
    config : str
        Name of the file that holds the digest.
    what : str
        What the folder is, for the message.

    Raises
    ------
    CheckpointError
        If the digest is another.
    """
    if (found := digest_of_state(state)) != expected:
        raise CheckpointError(
            f"{weights}: the weights have digest {found}, {config} was written for {expected}",
            hint=f"the file is damaged, or belongs to another {what}; fetch both again",
        )


def write_beside_weights(
    path: Path, weights: str, state: dict[str, Tensor], texts: Mapping[str, str]
) -> None:
    """Write a folder of weights and texts, and put it in place of an older one.

    It is written beside its final name and renamed, the older folder set aside until then:
    nobody sees a folder that is half there, and whenever this dies one of the two is whole.

    Parameters
    ----------
    path : Path
        The folder.
    weights : str
        Name of the file of weights.
    state : dict of Tensor
        What `storable` returned.
    texts : mapping
        Name and content of the other files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    stale = path.with_name(f".{path.name}.{os.getpid()}.old")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    save_file(state, fresh / weights, metadata={"format": "pt"})
    for name, text in texts.items():
        (fresh / name).write_text(text, encoding="utf-8")
    for name in (weights, *texts):
        with (fresh / name).open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(fresh)
    if path.exists():
        path.rename(stale)
    fresh.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(stale, ignore_errors=True)

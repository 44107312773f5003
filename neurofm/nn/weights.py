"""Weights as named tensors: identify them, make them storable, and see whether they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from neurofm.errors import CheckpointError


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

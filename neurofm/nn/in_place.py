"""Writing over features that nothing needs as they were: a fresh array takes longer than a sum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gelu(x: Tensor, inplace: bool = False) -> Tensor:
    """Return GELU of x, or write it over x, as other functions of `torch.nn.functional` can."""
    return torch.ops.aten.gelu_(x) if inplace else F.gelu(x)


def overwritable(x: Tensor, made_by: nn.Module) -> bool:
    """Tell whether what a module returned may be written over.

    It spares as much memory as x has, and the time to get it, which without gradients is a large
    part of what bending costs.

    Parameters
    ----------
    x : Tensor
        Made new by the module, and passed on to nobody.
    made_by : Module
        The module.

    Returns
    -------
    bool
        False if a gradient goes through x, or a hook of the module may have kept it.
    """
    return not (x.requires_grad or made_by._forward_hooks)


def gelu_of(x: Tensor, made_by: nn.Module) -> Tensor:
    """Return GELU of what a module made, written over it where `overwritable` allows."""
    return gelu(x, inplace=overwritable(x, made_by))


def add_to(x: Tensor, y: Tensor) -> Tensor:
    """Return x + y, written over x if no gradient goes through either; nobody else holds x."""
    if x.requires_grad or y.requires_grad or x.dtype != y.dtype:
        return x + y
    return x.add_(y)

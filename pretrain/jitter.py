"""Sensors that are never exactly where they were measured."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator

from neurofm.signals import Batch


def jittered(batch: Batch, metres: float, generator: Generator) -> Batch:
    """Move the sensors of each window a little, so that none can be known by its exact place.

    As in REVE (2.5 mm) and LUNA. Sensors without a position stay without.

    Parameters
    ----------
    batch : Batch
        Windows.
    metres : float
        Standard deviation of what is added to each coordinate; 0 returns the batch as it is, and
        draws nothing.
    generator : torch.Generator
        A CPU generator.

    Returns
    -------
    Batch
        With other positions.
    """
    if metres == 0:
        return batch
    noise = metres * torch.randn(batch.position.shape, generator=generator)
    moved = batch.position + noise.to(batch.position)
    return replace(batch, position=torch.where(batch.located[..., None], moved, batch.position))

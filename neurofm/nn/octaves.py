"""Sines and cosines of a position, in octaves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-8


def octaves(position: Tensor, width: int) -> Tensor:
    """Encode positions by waves that double their frequency (Mildenhall et al. 2020, NeRF).

    Parameters
    ----------
    position : Tensor, shape (..., n_axes)
        About 0 to 1.
    width : int
        Features; as many octaves as fit, and zeros after them.

    Returns
    -------
    Tensor, shape (..., width)
        Octave slow, then axis, then sine and cosine.
    """
    n_octaves = width // (2 * position.shape[-1])
    speed = 2.0 ** torch.arange(n_octaves, device=position.device, dtype=position.dtype)
    angle = position[..., None, :] * speed[:, None]
    waves = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-3)
    return F.pad(waves, (0, width - waves.shape[-1]))


def to_unit_box(position: Tensor) -> Tensor:
    """Scale the positions of each layout (B, C, 3) to 0..1 along each axis."""
    low, high = position.amin(1, keepdim=True), position.amax(1, keepdim=True)
    return (position - low) / (high - low + EPS)

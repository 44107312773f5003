"""Normalisation of tokens, by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

NormName = Literal["layer", "rms", "none"]


def build_norm(name: NormName, width: int, eps: float | None = None) -> nn.Module:
    """Build a norm over the last axis, with learned scale (and offset, if it has one).

    Parameters
    ----------
    name : "layer", "rms" or "none"
        By mean and variance, by the mean square alone (Zhang and Sennrich 2019), or not at all.
    width : int
        Features of a token.
    eps : float, optional
        Added to the variance; by default 1e-5 and 1e-6.
    """
    if name == "layer":
        return nn.LayerNorm(width, eps=1e-5 if eps is None else eps)
    if name == "none":
        return nn.Identity()
    return nn.RMSNorm(width, eps=1e-6 if eps is None else eps)

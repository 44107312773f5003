"""Initial weights."""

from __future__ import annotations

import torch
from torch import nn


def initialise_linear(layer: nn.Linear, shrink: float = 1.0) -> None:
    """Draw weights that keep the scale of what comes in, whatever the width.

    The usual standard deviation of 0.02 suits a width of 2500. At 64 or 128 it makes
    attention start out nearly uniform, and masked reconstruction learns far more slowly.

    Parameters
    ----------
    layer : nn.Linear
        Changed in place; its bias becomes zero.
    shrink : float
        The scale of what comes out is divided by this.
    """
    sd = layer.in_features**-0.5 / shrink
    nn.init.trunc_normal_(layer.weight, std=sd, a=-3 * sd, b=3 * sd)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def initialise_conv(layer: nn.Conv1d | nn.ConvTranspose1d) -> None:
    """Draw weights that keep the scale of what comes in; torch's lose two thirds of its power.

    Parameters
    ----------
    layer : nn.Conv1d or nn.ConvTranspose1d
        Changed in place; its bias becomes zero.
    """
    kernel = layer.kernel_size[0]
    # each sample that comes out of a transposed one has seen so many that went in
    seen = kernel if isinstance(layer, nn.Conv1d) else max(1, kernel // layer.stride[0])
    nn.init.normal_(layer.weight, std=(layer.in_channels * seen) ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)

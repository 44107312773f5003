"""Stacks of convolutions along time without anything that bends, and their mirror."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn


class StepConvs(nn.Module):
    """Convolutions along time, each with a norm and no activation, as in Du-IN.

    Parameters
    ----------
    n_in : int
        Channels in.
    filters, kernels, strides : sequence of int
        Of each convolution. Those of stride one keep the number of steps; the others see
        ``(kernel - 1) // 2`` zeros on either side.
    batch_norm : bool
        Whether each has a norm over the batch, as in the original; in training it makes what
        comes of one signal depend on the others.
    """

    def __init__(
        self,
        n_in: int,
        filters: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        *,
        batch_norm: bool = True,
    ):
        super().__init__()
        self.shapes = tuple(zip(filters, kernels, strides, strict=True))
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for n_out, k, s in self.shapes:
            padding = "same" if s == 1 else (k - 1) // 2
            self.convs.append(nn.Conv1d(n_in, n_out, k, stride=s, padding=padding))
            self.norms.append(nn.BatchNorm1d(n_out) if batch_norm else nn.Identity())
            n_in = n_out

    def n_features(self, n_samples: int) -> int:
        """Return filters times steps that so many samples give."""
        for _, k, s in self.shapes:
            n_samples = n_samples if s == 1 else (n_samples + 2 * ((k - 1) // 2) - k) // s + 1
        return n_samples * self.shapes[-1][0]

    def forward(self, x: Tensor) -> Tensor:
        """Map signals (N, n_in, T) to features (N, steps times filters), steps slow."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return x.transpose(1, 2).flatten(1)


class TransposedStepConvs(nn.Module):
    """Transposed convolutions along time that multiply the steps by their strides.

    Parameters
    ----------
    n_in : int
        Features in.
    filters, kernels, strides : sequence of int
        Of each; no kernel is shorter than its stride.
    """

    def __init__(
        self, n_in: int, filters: Sequence[int], kernels: Sequence[int], strides: Sequence[int]
    ):
        super().__init__()
        self.convs = nn.ModuleList()
        for n_out, k, s in zip(filters, kernels, strides, strict=True):
            padding = math.ceil((k - s) / 2)
            missing = 2 * padding - (k - s)
            self.convs.append(
                nn.ConvTranspose1d(
                    n_in, n_out, k, stride=s, padding=padding, output_padding=missing
                )
            )
            n_in = n_out

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, steps) to (N, filters of the last, steps times all strides)."""
        for conv in self.convs:
            x = conv(x)
        return x

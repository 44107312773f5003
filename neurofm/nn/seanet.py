"""SEANet: strided convolutions with residual units and a recurrent layer, and their mirror.

After EnCodec (Défossez et al. 2022), as BrainOmni (Xiao et al. 2025) uses it: weight norm,
ELU, reflected edges, not causal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class PaddedConv(nn.Module):
    """A convolution whose output has one step for each stride of its input.

    Parameters
    ----------
    n_in, n_out, kernel, stride : int
        Features, and samples.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = weight_norm(nn.Conv1d(n_in, n_out, kernel, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, T) to (N, n_out, ceil(T / stride)); edges are reflected."""
        around = self.kernel - self.stride
        steps = math.ceil((x.shape[-1] - self.kernel + around) / self.stride)
        missing = steps * self.stride + self.kernel - around - x.shape[-1]
        right = around // 2
        return self.conv(_reflected(x, around - right, right + missing))


def _reflected(x: Tensor, left: int, right: int) -> Tensor:
    """Reflect the edges; a signal shorter than its padding is first continued by zeros."""
    short = max(0, max(left, right) - x.shape[-1] + 1)
    x = F.pad(F.pad(x, (0, short)), (left, right), mode="reflect")
    return x[..., : x.shape[-1] - short]


class PaddedTransposedConv(nn.Module):
    """A transposed convolution whose output has `stride` samples for each step.

    Parameters
    ----------
    n_in, n_out, kernel, stride : int
        Features, and samples.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int):
        super().__init__()
        self.around = kernel - stride
        self.conv = weight_norm(nn.ConvTranspose1d(n_in, n_out, kernel, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, T) to (N, n_out, stride T)."""
        right = self.around // 2
        out = self.conv(x)
        return out[..., self.around - right : out.shape[-1] - right]


class ResidualUnit(nn.Module):
    """Two convolutions through half as many features, beside one of a single sample."""

    def __init__(self, width: int, kernel: int = 3):
        super().__init__()
        self.first = PaddedConv(width, width // 2, kernel)
        self.second = PaddedConv(width // 2, width, 1)
        self.shortcut = PaddedConv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, T) to the same shape."""
        return self.shortcut(x) + self.second(F.elu(self.first(F.elu(x))))


class Recurrent(nn.Module):
    """Layers of LSTM forward in time, added to what came in."""

    def __init__(self, width: int, n_layers: int = 2):
        super().__init__()
        self.lstm = nn.LSTM(width, width, n_layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, T) to the same shape."""
        steps = x.permute(2, 0, 1)
        return (self.lstm(steps)[0] + steps).permute(1, 2, 0)


class SEANetEncoder(nn.Module):
    """One channel in, one vector for every product of ratios samples out.

    Parameters
    ----------
    n_filters : int
        Features of the first convolution; each ratio doubles them.
    ratios : sequence of int
        Strides of the decoder; the encoder takes them from last to first.
    width : int
        Features out.
    kernel, last_kernel : int
        Of the first and of the last convolution, in samples.
    """

    def __init__(
        self, n_filters: int, ratios: Sequence[int], width: int, kernel: int, last_kernel: int
    ):
        super().__init__()
        self.first = PaddedConv(1, n_filters, kernel)
        self.units = nn.ModuleList()
        self.down = nn.ModuleList()
        for ratio in reversed(ratios):
            self.units.append(ResidualUnit(n_filters))
            self.down.append(PaddedConv(n_filters, 2 * n_filters, 2 * ratio, ratio))
            n_filters *= 2
        self.recurrent = Recurrent(n_filters)
        self.last = PaddedConv(n_filters, width, last_kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples (N, 1, T) to features (N, width, T / product of ratios)."""
        x = self.first(x)
        for unit, down in zip(self.units, self.down, strict=True):
            x = down(F.elu(unit(x)))
        return self.last(F.elu(self.recurrent(x)))


class SEANetDecoder(nn.Module):
    """The mirror of `SEANetEncoder`; parameters as there."""

    def __init__(
        self, n_filters: int, ratios: Sequence[int], width: int, kernel: int, last_kernel: int
    ):
        super().__init__()
        n = n_filters * 2 ** len(ratios)
        self.first = PaddedConv(width, n, kernel)
        self.recurrent = Recurrent(n)
        self.up = nn.ModuleList()
        self.units = nn.ModuleList()
        for ratio in ratios:
            self.up.append(PaddedTransposedConv(n, n // 2, 2 * ratio, ratio))
            n //= 2
            self.units.append(ResidualUnit(n))
        self.last = PaddedConv(n_filters, 1, last_kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, width, steps) to samples (N, 1, steps times product of ratios)."""
        x = self.recurrent(self.first(x))
        for up, unit in zip(self.up, self.units, strict=True):
            x = unit(up(F.elu(x)))
        return self.last(F.elu(x))

"""One code a sample: what each code looks like in the signal is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 0.1  # scores are divided by it
RecurrentName = Literal["gru", "lstm"]
Padding = Literal["same", "causal"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """Codes of samples.

    Attributes
    ----------
    weights : Tensor, shape (..., n_codes)
        How much of each code a sample is; in evaluation all of one.
    codes : Tensor of int64, shape (...)
        The most of which it is.
    """

    weights: Tensor
    codes: Tensor


class AnnealedChoice(nn.Module):
    """Features choose a code, softly in training and hard in evaluation.

    In training the weights are a mean of the softmax and of the hard choice, and `temperature`
    says how much of the former; whoever trains lowers it. Nothing is drawn at random.

    Parameters
    ----------
    width, n_codes : int
        Features in, and codes.
    """

    temperature: Tensor

    def __init__(self, width: int, n_codes: int):
        super().__init__()
        self.linear = nn.Linear(width, n_codes)
        self.norm = nn.LayerNorm(n_codes)
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, features: Tensor) -> Chosen:
        """Choose among codes for features (..., width)."""
        scores = self.norm(self.linear(features)) / SHARPNESS
        codes = scores.argmax(-1)
        weights = F.one_hot(codes, scores.shape[-1]).to(scores.dtype)
        if self.training:
            weights = torch.lerp(weights, scores.softmax(-1), self.temperature)
        return Chosen(weights=weights, codes=codes)


class CodeKernels(nn.Module):
    """A signal as the sum of what its codes look like: a kernel along time for each code.

    The original has as many kernels a code as there are codes and sums over them, which is one
    kernel, their sum. They are kept apart as parameters, and added before they are applied.

    Parameters
    ----------
    n_codes, kernel : int
        Codes, and samples that each reaches.
    padding : "same" or "causal"
        Whether a code reaches to both sides of its sample, or later samples only.
    bias : bool
        Whether there are offsets.
    """

    def __init__(self, n_codes: int, kernel: int, *, padding: Padding = "same", bias: bool = True):
        super().__init__()
        self.padding: Padding = padding
        self.weight = nn.Parameter(torch.randn(n_codes, n_codes, kernel) / (n_codes * kernel))
        self.bias = nn.Parameter(torch.zeros(n_codes)) if bias else None

    def forward(self, weights: Tensor) -> Tensor:
        """Map weights (N, T, n_codes) to signals (N, T)."""
        kernel = self.weight.sum(0, keepdim=True)
        reach = kernel.shape[-1] - 1
        left = reach if self.padding == "causal" else reach // 2
        x = F.pad(weights.transpose(1, 2), (left, reach - left))
        offset = None if self.bias is None else self.bias.sum().reshape(1)
        return F.conv1d(x, kernel, offset)[:, 0]


class RecurrentLayers(nn.Module):
    """Layers that read a signal forward in time."""

    def __init__(self, width: int, n_layers: int, kind: RecurrentName):
        super().__init__()
        layer = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.layers = nn.ModuleList(
            layer(width if i else 1, width, batch_first=True) for i in range(n_layers)
        )

    def forward(self, signal: Tensor) -> Tensor:
        """Map signals (N, T) to features (N, T, width)."""
        x = signal[..., None]
        for layer in self.layers:
            x = layer(x)[0]
        return x


def frequency_ranks(counts: Tensor) -> Tensor:
    """Return new names of codes: 1 for the most frequent on, and 0 for those never seen.

    Parameters
    ----------
    counts : Tensor of int, shape (n_codes,)
        How often each code occurred in training data.

    Returns
    -------
    Tensor of int64, shape (n_codes,)
        The name of each; the first of two equally frequent codes comes first.
    """
    order = counts.argsort(descending=True, stable=True)
    names = torch.zeros_like(order)
    names[order] = torch.arange(1, len(order) + 1, device=order.device)
    return names.masked_fill(counts == 0, 0)

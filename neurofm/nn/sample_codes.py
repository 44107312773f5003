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
        return self._choose(features, self.temperature if self.training else None)

    def straight_through(self, features: Tensor) -> Chosen:
        """Choose hard whatever the temperature, with gradients as if the choice were soft."""
        found = self._choose(features, torch.ones_like(self.temperature))
        hard = F.one_hot(found.codes, found.weights.shape[-1]).to(found.weights.dtype)
        return Chosen(weights=hard + (found.weights - found.weights.detach()), codes=found.codes)

    def _choose(self, features: Tensor, temperature: Tensor | None) -> Chosen:
        scores = self.norm(self.linear(features)) / SHARPNESS
        codes = scores.argmax(-1)
        weights = F.one_hot(codes, scores.shape[-1]).to(scores.dtype)
        if temperature is not None:
            weights = torch.lerp(weights, scores.softmax(-1), temperature)
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
    groups : int
        Groups of codes; of each code only the kernels of its group are kept.
    """

    def __init__(
        self,
        n_codes: int,
        kernel: int,
        *,
        padding: Padding = "same",
        bias: bool = True,
        groups: int = 1,
    ):
        super().__init__()
        self.padding: Padding = padding
        self.groups = groups
        drawn = torch.randn(n_codes, n_codes // groups, kernel) / (n_codes * kernel)
        self.weight = nn.Parameter(drawn)
        self.bias = nn.Parameter(torch.zeros(n_codes)) if bias else None

    def forward(self, weights: Tensor) -> Tensor:
        """Map weights (N, T, n_codes) to signals (N, T)."""
        kernel = self.weight.unflatten(0, (self.groups, -1)).sum(1).flatten(0, 1)[None]
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


class SampleEncoder(nn.Module):
    """Recurrent layers that read a signal, and choose a code for each sample.

    Code 0 stands for what training did not see; `rename` gives it meaning. A fresh encoder has
    codes 1 to K.

    Parameters
    ----------
    n_codes : int
        K, of which training leaves some unused.
    width, n_layers : int
        Of the recurrent layers.
    recurrent : "gru" or "lstm"
        Their kind.
    """

    names: Tensor

    def __init__(self, n_codes: int, width: int, n_layers: int, recurrent: RecurrentName):
        super().__init__()
        self.n_codes = n_codes + 1
        self.layers = RecurrentLayers(width, n_layers, recurrent)
        self.choice = AnnealedChoice(width, n_codes)
        self.register_buffer("names", torch.arange(1, n_codes + 1))

    @property
    def learns(self) -> bool:
        """Whether it is not frozen."""
        return any(p.requires_grad for p in self.parameters())

    def choose(self, signal: Tensor, *, straight_through: bool = False) -> Chosen:
        """Return codes (..., L) of signals (..., L) before they are renamed, and weights.

        Weights are annealed in training, or hard with a gradient; see `AnnealedChoice`.
        """
        features = self.layers(signal.reshape(-1, signal.shape[-1]))
        choose = self.choice.straight_through if straight_through else self.choice
        found, shape = choose(features), signal.shape[:-1]
        return Chosen(
            weights=found.weights.unflatten(0, shape), codes=found.codes.unflatten(0, shape)
        )

    def encode(self, signal: Tensor) -> Tensor:
        """Map signals (..., L) to codes (..., L): 0 of the unseen, 1 of the most frequent on."""
        return self.names[self.choose(signal).codes]

    @torch.no_grad()
    def rename(self, counts: Tensor) -> None:
        """Name codes by how often they occurred, `counts` (K,) by their present place."""
        self.names.copy_(frequency_ranks(counts))


class SampleCodec(SampleEncoder):
    """The encoder, and what each code looks like in the signal.

    Parameters
    ----------
    n_codes, width, n_layers, recurrent
        As in `SampleEncoder`.
    kernel : int
        Samples that a code reaches in the reconstruction: later ones only.
    """

    def __init__(
        self, n_codes: int, width: int, n_layers: int, recurrent: RecurrentName, kernel: int
    ):
        super().__init__(n_codes, width, n_layers, recurrent)
        self.kernels = CodeKernels(n_codes, kernel, padding="causal")

    def reconstruct(self, signal: Tensor) -> Tensor:
        """Return signals (..., L) as their codes have them, through which gradients pass."""
        return self.draw(self.choose(signal).weights)

    def draw(self, weights: Tensor) -> Tensor:
        """Map weights (..., L, K) to signals (..., L)."""
        return self.kernels(weights.flatten(0, -3)).unflatten(0, weights.shape[:-2])

    def decode(self, codes: Tensor) -> Tensor:
        """Map codes (..., L) to signals (..., L); an unseen one looks like nothing."""
        meaning = F.one_hot(self.names, self.n_codes).to(self.kernels.weight.dtype)  # (K, K + 1)
        meaning[:, 0] = 0
        return self.draw(F.embedding(codes, meaning.T))


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

"""A stack of dilated convolutions over the samples of a patch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


class SameConv(nn.Module):
    """A convolution that keeps the number of samples.

    Parameters
    ----------
    n_in, n_out, kernel, dilation : int
        Features, samples, and samples from tap to tap.
    bias : bool
        Whether features have an offset.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, dilation: int, *, bias: bool = True):
        super().__init__()
        reach = (kernel - 1) * dilation + 1
        self.conv = nn.Conv1d(n_in, n_out, kernel, padding=reach // 2, dilation=dilation, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, T) to (N, n_out, T)."""
        return self.conv(x)[..., : x.shape[-1]]


class DilatedBlock(nn.Module):
    """Twice a convolution, a norm over samples and GELU; and what came in."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, dilation: int, *, project: bool, bias: bool = True
    ):
        super().__init__()
        self.first = SameConv(n_in, n_out, kernel, dilation, bias=bias)
        self.second = SameConv(n_out, n_out, kernel, dilation, bias=bias)
        self.project = nn.Conv1d(n_in, n_out, 1) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, T) to (N, n_out, T)."""
        out = x
        for conv in (self.first, self.second):
            out = conv(out)
            out = F.gelu(F.layer_norm(out, out.shape[-1:], eps=EPS))
        return out + (x if self.project is None else self.project(x))


class DilatedConvs(nn.Module):
    """One channel in, one out; each block looks twice as far as the one before.

    After BaRISTA (Oganesian et al. 2025), which has it from TS2Vec (Yue et al. 2022).

    Parameters
    ----------
    depth : int
        Blocks before the last.
    n_filters, kernel : int
        Features, and samples of each convolution.
    bias : bool
        Whether convolutions have offsets, which the norm over samples takes away again; the
        published model has them.
    """

    def __init__(self, depth: int, n_filters: int, kernel: int, *, bias: bool = True):
        super().__init__()
        widths = [1, *[n_filters] * depth, 1]
        self.blocks = nn.ModuleList(
            DilatedBlock(n_in, n_out, kernel, 2**i, project=n_in != n_out or i == depth, bias=bias)
            for i, (n_in, n_out) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (N, 1, T) to the same shape."""
        for block in self.blocks:
            x = block(x)
        return x

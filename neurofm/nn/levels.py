"""One code a sample: the level its amplitude falls into. Levels by mu-law, or by quantiles."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FINE_BINS = 1 << 16  # of the histogram that quantiles are read from


class MuLaw(nn.Module):
    """Levels that are fine about zero and coarse at the peak, as telephones have them (G.711).

    There is nothing to learn.

    Parameters
    ----------
    n_codes : int
        K; mu is K - 1.
    peak : float
        Largest magnitude; what is beyond is held at it.
    """

    def __init__(self, n_codes: int, peak: float):
        super().__init__()
        self.n_codes, self.peak = n_codes, peak

    def encode(self, signal: Tensor) -> Tensor:
        """Map samples (...) to codes (...), 0 of the lowest to K - 1."""
        mu = self.n_codes - 1
        share = (signal / self.peak).clamp(-1, 1)
        pressed = share.sign() * (mu * share.abs()).log1p() / math.log1p(mu)
        return ((pressed + 1) / 2 * mu).round().to(torch.int64)

    def decode(self, codes: Tensor) -> Tensor:
        """Map codes (...) to samples (...)."""
        mu = self.n_codes - 1
        pressed = codes.to(torch.float32) / mu * 2 - 1
        return pressed.sign() * (pressed.abs() * math.log1p(mu)).expm1() / mu * self.peak


class Quantiles(nn.Module):
    """Levels that samples fall into equally often; each decodes to the mean of its samples.

    Those of a fresh one are of the normal distribution.

    Parameters
    ----------
    n_codes : int
        K.
    """

    edges: Tensor
    levels: Tensor

    def __init__(self, n_codes: int):
        super().__init__()
        self.n_codes = n_codes
        share = torch.arange(2 * n_codes - 1, dtype=torch.float64).add_(1).div_(2 * n_codes)
        normal = torch.special.ndtri(share).float()
        self.register_buffer("levels", normal[::2].clone())  # (K,)
        self.register_buffer("edges", normal[1::2].clone())  # (K - 1,)

    def encode(self, signal: Tensor) -> Tensor:
        """Map samples (...) to codes (...), 0 of the lowest to K - 1."""
        return torch.bucketize(signal.contiguous(), self.edges.to(signal.dtype), right=True)

    def decode(self, codes: Tensor) -> Tensor:
        """Map codes (...) to samples (...)."""
        return self.levels[codes]

    @torch.no_grad()
    def fit(self, counts: Tensor, reach: float) -> None:
        """Set edges and levels.

        Parameters
        ----------
        counts : Tensor of int64, shape (H,)
            Histogram of samples, in bins of equal width from -reach to reach; not empty.
        reach : float
            See `counts`.
        """
        counts = counts.double()
        width = 2 * reach / len(counts)
        below = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        wanted = torch.arange(1, self.n_codes, dtype=counts.dtype, device=counts.device)
        wanted = wanted * (below[-1] / self.n_codes)
        at = torch.searchsorted(below[1:], wanted)
        # an edge splits no bin: samples of one value would be parted from their mean
        edges = (at + (wanted - below[at]) / counts[at]).round() * width - reach
        centres = (torch.arange(len(counts), device=counts.device) + 0.5) * width - reach
        codes = torch.bucketize(centres, edges)
        mass = counts.new_zeros(self.n_codes).index_add_(0, codes, counts)
        total = counts.new_zeros(self.n_codes).index_add_(0, codes, counts * centres)
        # where one value is so frequent that levels lie upon each other, some stand for nothing
        between = (torch.cat((edges[:1], edges)) + torch.cat((edges, edges[-1:]))) / 2
        self.edges.copy_(edges)
        self.levels.copy_(torch.where(mass > 0, total / mass.clamp_min(1), between))


def histogram(samples: Tensor, reach: float, n_bins: int = FINE_BINS) -> Tensor:
    """Count samples (...) in bins of equal width from -reach to reach, (n_bins,) int64."""
    bins = ((samples / reach + 1) * (n_bins / 2)).clamp(0, n_bins - 1).to(torch.int64)
    return torch.bincount(bins.flatten(), minlength=n_bins)

"""Several codebooks in a row: each quantises what the ones before it left over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.nn.codebook import Codebook, Gradient, Quantised


class ResidualCodes(nn.Module):
    """Residual vector quantisation (Zeghidour et al. 2021).

    Parameters
    ----------
    n_levels, n_codes, width : int
        Q codebooks of K codes of D features.
    decay, revive_below, commitment, gradient, kmeans
        As in `Codebook`; gradients pass the sum of all levels at once.
    """

    def __init__(
        self,
        n_levels: int,
        n_codes: int,
        width: int,
        *,
        decay: float = 0.99,
        revive_below: float = 2.0,
        commitment: float = 0.25,
        gradient: Gradient = "rotation",
        kmeans: bool = True,
    ):
        super().__init__()
        self.levels = nn.ModuleList(
            Codebook(
                n_codes,
                width,
                decay=decay,
                revive_below=revive_below,
                commitment=commitment,
                gradient=gradient,
                kmeans=kmeans,
            )
            for _ in range(n_levels)
        )

    def forward(self, x: Tensor, present: Tensor | None = None) -> Quantised:
        """Quantise tokens (..., D); codes are (..., Q), the loss is the mean over levels."""
        left, content = x, torch.zeros_like(x)
        codes, losses = [], []
        for level in self.levels:
            found = level(left, present)
            content = content + found.content
            left = left - found.content.detach()
            codes.append(found.codes)
            losses.append(found.loss)
        return Quantised(
            content=content, codes=torch.stack(codes, -1), loss=torch.stack(losses).mean()
        )

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the sum of the vectors of codes, (..., Q) to (..., D)."""
        first, *others = (level for level in self.levels if isinstance(level, Codebook))
        content = first.lookup(codes[..., 0])
        for i, level in enumerate(others, 1):  # in the order of `forward`, to the last bit
            content = content + level.lookup(codes[..., i])
        return content

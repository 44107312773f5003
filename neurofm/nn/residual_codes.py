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
    code_width : int, optional
        Features of a code, if other than D: every level maps what is left to codes and back.
    decay, revive_below, gradient, kmeans
        As in `Codebook`. Every level passes the gradient of its own vectors on to what was
        quantised, so those of Q levels add up there.
    """

    def __init__(
        self,
        n_levels: int,
        n_codes: int,
        width: int,
        *,
        code_width: int | None = None,
        decay: float = 0.99,
        revive_below: float = 2.0,
        gradient: Gradient = "rotation",
        kmeans: bool = True,
    ):
        super().__init__()
        code_width = code_width or width
        maps = n_levels if code_width != width else 0
        self.map_in = nn.ModuleList(nn.Linear(width, code_width) for _ in range(maps))
        self.map_out = nn.ModuleList(nn.Linear(code_width, width) for _ in range(maps))
        self.levels = nn.ModuleList(
            Codebook(
                n_codes,
                code_width,
                decay=decay,
                revive_below=revive_below,
                gradient=gradient,
                kmeans=kmeans,
            )
            for _ in range(n_levels)
        )

    def forward(self, x: Tensor, present: Tensor | None = None) -> Quantised:
        """Quantise tokens (..., D); codes are (..., Q), the loss is the mean over levels."""
        left, content = x, torch.zeros_like(x)
        codes, losses = [], []
        for i, level in enumerate(self.levels):
            found = level(self.map_in[i](left) if self.map_in else left, present)
            vectors = self._mapped(i, found.content)
            content = content + vectors
            left = left - vectors.detach()
            codes.append(found.codes)
            losses.append(found.loss)
        return Quantised(
            content=content, codes=torch.stack(codes, -1), loss=torch.stack(losses).mean()
        )

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the sum of the vectors of codes, (..., Q) to (..., D)."""
        first, *others = (level for level in self.levels if isinstance(level, Codebook))
        content = self._mapped(0, first.lookup(codes[..., 0]))
        for i, level in enumerate(others, 1):  # in the order of `forward`, to the last bit
            content = content + self._mapped(i, level.lookup(codes[..., i]))
        return content

    def _mapped(self, level: int, vectors: Tensor) -> Tensor:
        """Return vectors of a level's codes as vectors of tokens."""
        return self.map_out[level](vectors) if self.map_out else vectors

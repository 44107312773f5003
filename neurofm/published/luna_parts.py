"""What LUNA (Döner et al., NeurIPS 2025) is made of beside its encoder: heads and loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.nn.cross_attention import CrossAttention, CrossBlock

N_NAMES = 90  # channels and pairs of channels of the published table
VISIBLE_WEIGHT, OVERLAP_WEIGHT = 0.05, 0.8


class Reconstruct(nn.Module):
    """Channels, as queries, gather from the patch what they should measure."""

    def __init__(self, patch_len: int, width: int, n_heads: int):
        super().__init__()
        self.names = nn.Embedding(N_NAMES, width)
        self.block = CrossBlock(width, n_heads, 4 * width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, patch_len)

    def forward(self, place: Tensor, latents: Tensor) -> Tensor:
        """Map places and names (N, C, E) and latents (N, Q, E) to samples (N, C, patch_len)."""
        x = self.norm(self.block(place, latents))
        return self.narrow(F.gelu(self.widen(x)))


class Classify(nn.Module):
    """One query gathers all patches of a window."""

    def __init__(self, width: int, n_heads: int, n_classes: int):
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.cross = CrossAttention(width, n_heads)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (B, S, D) to scores (B, n_classes)."""
        gathered = self.cross(self.query[None, None], x, x)[:, 0]
        return self.narrow(F.gelu(self.widen(gathered)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """Terms of the loss, each of shape (); the last is how alike what queries look at is."""

    hidden: Tensor
    visible: Tensor
    overlap: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, as weighed in the publication."""
        return self.hidden + VISIBLE_WEIGHT * self.visible + self.overlap


def terms(guess: Tensor, signal: Tensor, hide: Tensor, weights: Tensor) -> Terms:
    """Compare reconstructed signals with what was hidden, and with what was not.

    Parameters
    ----------
    guess, signal : Tensor, shape (B, C, T)
        Reconstructed and original.
    hide : Tensor of bool, shape (B, C, T)
        What was hidden.
    weights : Tensor, shape (N, Q, C)
        How much queries look at channels (`Unify.weights`).
    """
    alike = weights @ weights.transpose(1, 2)
    alike = alike - torch.diag_embed(alike.diagonal(dim1=1, dim2=2))
    return Terms(
        hidden=F.smooth_l1_loss(guess[hide], signal[hide]),
        visible=F.smooth_l1_loss(guess[~hide], signal[~hide]),
        overlap=OVERLAP_WEIGHT * alike.square().mean(),
    )

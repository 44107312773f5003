"""Temporal convolutions of patches, normalised over the whole window."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class PatchConvs(nn.Module):
    """Convolutions within each patch, each with a group norm and GELU, as LaBraM's and CBraMod's.

    The group norm of both runs over all channels and patches of a window, so a token depends on
    every other; here padding is left out of it.

    Parameters
    ----------
    n_filters : int
        Filters of each convolution.
    n_groups : int
        Groups of filters that share a mean and a variance.
    kernels, strides, paddings : sequence of int
        Of each convolution, in samples.
    """

    def __init__(
        self,
        n_filters: int,
        n_groups: int,
        *,
        kernels: Sequence[int],
        strides: Sequence[int],
        paddings: Sequence[int],
    ):
        super().__init__()
        self.n_filters = n_filters
        self.shapes = tuple(zip(kernels, strides, paddings, strict=True))
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i, (k, s, p) in enumerate(self.shapes):
            n_in = n_filters if i else 1
            self.convs.append(nn.Conv1d(n_in, n_filters, k, stride=s, padding=p))
            self.norms.append(nn.GroupNorm(n_groups, n_filters))

    def n_features(self, patch_len: int) -> int:
        """Return the features of a patch: filters times steps."""
        for k, s, p in self.shapes:
            patch_len = (patch_len + 2 * p - k) // s + 1
        return patch_len * self.n_filters

    def forward(self, patches: Tensor, present: Tensor | None = None) -> Tensor:
        """Map patches to features.

        Parameters
        ----------
        patches : Tensor, shape (B, N, patch_len)
            All patches of a window.
        present : Tensor of bool, shape (B, N), optional
            False where a patch is padding.

        Returns
        -------
        Tensor, shape (B, N, F, L)
            Filters, and steps of each.
        """
        x = patches[:, None]  # (B, F, N, L): in one piece for norms, and for what bends
        for conv, norm, (_, s, p) in zip(self.convs, self.norms, self.shapes, strict=True):
            weight = conv.weight[:, :, None]  # type: ignore[index]
            x = F.conv2d(x, weight, conv.bias, stride=(1, s), padding=(0, p))  # type: ignore[arg-type]
            x = F.gelu(group_norm_over_window(x, norm, present))  # type: ignore[arg-type]
        return x.transpose(1, 2)


def group_norm_over_window(x: Tensor, norm: nn.GroupNorm, present: Tensor | None) -> Tensor:
    """Normalise groups of filters by their mean and variance over all patches and steps.

    Parameters
    ----------
    x : Tensor, shape (B, F, N, L)
        Filters of N patches.
    norm : GroupNorm
        Gives groups, scale, offset and eps.
    present : Tensor of bool, shape (B, N), optional
        Patches that count.
    """
    if present is None:
        return norm(x)
    grouped = x.unflatten(1, (norm.num_groups, -1))  # (B, G, F / G, N, L)
    here = present[:, None, None, :, None].to(x.dtype)
    over = (2, 3, 4)
    count = here.sum(over, keepdim=True) * grouped.shape[2] * grouped.shape[4]
    mean = (grouped * here).sum(over, keepdim=True) / count.clamp_min(1)
    variance = ((grouped - mean) * here).square().sum(over, keepdim=True) / count.clamp_min(1)
    x = ((grouped - mean) * (variance + norm.eps).rsqrt()).flatten(1, 2)
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]

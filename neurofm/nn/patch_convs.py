"""Temporal convolutions of patches, normalised over the whole window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.nn.in_place import gelu_of


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
    filters_fast : bool
        Whether the filters of a step follow each other, or the steps of a filter.
    """

    def __init__(
        self,
        n_filters: int,
        n_groups: int,
        *,
        kernels: Sequence[int],
        strides: Sequence[int],
        paddings: Sequence[int],
        filters_fast: bool,
    ):
        super().__init__()
        self.n_filters = n_filters
        self.filters_fast = filters_fast
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
        Tensor, shape (B, N, F L)
            Steps of filters.
        """
        here = None if present is None else present[:, None, :, None]
        if self._few_samples(patches.shape[-1]):
            x = self._by_maps(patches, here).transpose(2, 3)
        else:
            x = self._by_convolutions(patches, here)
        x = x.permute(0, 2, 3, 1) if self.filters_fast else x.transpose(1, 2)
        # rearranged before it bends: gradients then come in the order of what they bend back
        x = x.flatten(2)
        return gelu_of(x, self.norms[-1])

    def _by_convolutions(self, patches: Tensor, here: Tensor | None) -> Tensor:
        """Return what is to bend last, (B, F, N, L)."""
        x = patches[:, None]  # in one piece for norms, and for what bends
        for i, (conv, norm, (_, s, p)) in enumerate(self._steps()):
            x = gelu_of(x, self.norms[i - 1]) if i else x
            x = F.conv2d(x, conv.weight[:, :, None], conv.bias, stride=(1, s), padding=(0, p))
            x = group_norm_over_window(x, norm, here)
        return x

    def _steps(self) -> Iterator[tuple[nn.Conv1d, nn.GroupNorm, tuple[int, int, int]]]:
        return zip(self.convs, self.norms, self.shapes, strict=True)  # type: ignore[arg-type]

    def _few_samples(self, patch_len: int) -> bool:
        """Tell whether every kernel spans a third of what it runs over, or more."""
        for k, s, p in self.shapes:
            if patch_len > 3 * k:
                return False
            patch_len = (patch_len + 2 * p - k) // s + 1
        return True

    def _by_maps(self, patches: Tensor, here: Tensor | None) -> Tensor:
        """Do so by one matrix for all samples of a patch: more sums, but in longer rows.

        Returns (B, F, L, N).
        """
        x = patches.transpose(1, 2)  # (B, F L, N)
        here = None if here is None else here.transpose(2, 3)
        for i, (conv, norm, (_, s, p)) in enumerate(self._steps()):
            x = gelu_of(x, self.norms[i - 1]) if i else x
            n_out = conv.out_channels
            maps = as_maps(conv.weight, x.shape[1] // conv.in_channels, s, p)
            x = torch.baddbmm(
                conv.bias[:, None].expand(-1, maps.shape[0] // n_out).reshape(-1, 1),  # type: ignore[index]
                maps.expand(x.shape[0], -1, -1),
                x,
            )
            grouped = x.unflatten(1, (n_out, -1))
            x = group_norm_over_window(grouped, norm, here).flatten(1, 2)
        return x.unflatten(1, (self.n_filters, -1))


def as_maps(weight: Tensor, n_samples: int, stride: int, padding: int) -> Tensor:
    """Return a convolution of samples as one matrix.

    Parameters
    ----------
    weight : Tensor, shape (F, F_in, kernel)
        As `Conv1d` has it.
    n_samples : int
        L_in.
    stride, padding : int
        Of the convolution.

    Returns
    -------
    Tensor, shape (F L, F_in L_in)
        Rows and columns have filters slow, steps fast.
    """
    padded = torch.eye(n_samples + 2 * padding, device=weight.device, dtype=weight.dtype)
    taps = padded[:, padding : padding + n_samples].unfold(0, weight.shape[-1], stride)
    maps = weight @ taps.flatten(0, 1).T  # taps were (L, L_in, kernel), maps are (F, F_in, L L_in)
    return maps.unflatten(-1, (-1, n_samples)).transpose(1, 2).flatten(2).flatten(0, 1)


def labram_convs(n_filters: int, n_groups: int = 4) -> PatchConvs:
    """Return LaBraM's: steps of 8 samples that see 15, and twice a look at their neighbours."""
    return PatchConvs(
        n_filters,
        n_groups,
        kernels=(15, 3, 3),
        strides=(8, 1, 1),
        paddings=(7, 1, 1),
        filters_fast=True,
    )


def group_norm_over_window(x: Tensor, norm: nn.GroupNorm, here: Tensor | None) -> Tensor:
    """Normalise groups of filters by their mean and variance over all patches and steps.

    Parameters
    ----------
    x : Tensor, shape (B, F, N, L) or (B, F, L, N)
        Filters of N patches.
    norm : GroupNorm
        Gives groups, scale, offset and eps.
    here : Tensor of bool, shape (B, 1, N, 1) or (B, 1, 1, N), optional
        Patches that count.
    """
    if here is None:
        return norm(x)
    grouped = x.unflatten(1, (norm.num_groups, -1))  # (B, G, F / G, N, L)
    here = here[:, None].to(x.dtype)
    over = (2, 3, 4)
    count = here.expand(-1, -1, *grouped.shape[2:]).sum(over, keepdim=True)
    mean = (grouped * here).sum(over, keepdim=True) / count.clamp_min(1)
    variance = ((grouped - mean) * here).square().sum(over, keepdim=True) / count.clamp_min(1)
    x = ((grouped - mean) * (variance + norm.eps).rsqrt()).flatten(1, 2)
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]

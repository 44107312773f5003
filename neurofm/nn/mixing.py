"""Queries, keys and values of a grid of tokens: who sees whom, blind to padding.

B windows, S sites, P patches, H heads, E features of a head.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm.nn.packing import Packing

Presence = Tensor | Packing | None  # which tokens are, or how those that are were packed


def attend(
    q: Tensor, k: Tensor, v: Tensor, present: Tensor | None, mask: Tensor | None = None
) -> Tensor:
    """Attend to the keys that are present.

    Parameters
    ----------
    q : Tensor, shape (N, H, n_queries, E)
        Queries.
    k, v : Tensor, shape (N, H, n_keys, E)
        Keys and values.
    present : Tensor of bool, shape (N, n_keys), or None
        False where a key is padding. None says that all are present, which lets torch
        take its fastest kernel.
    mask : Tensor of bool, shape (n_queries, n_keys), optional
        False where a query may not look; every query may look somewhere.

    Returns
    -------
    Tensor, shape (N, H, n_queries, E)
        Zeros in rows without any present key.
    """
    if present is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    seen = present[:, None, None]
    if mask is not None:
        seen = seen & mask
    some = seen.any(-1, keepdim=True)
    # a softmax over no key at all is NaN in some kernels and versions of torch, and so is its
    # gradient: such rows see every key instead
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen | ~some)
    return out.masked_fill(~some, 0.0)


def mix_all(q: Tensor, k: Tensor, v: Tensor, present: Presence, causal: bool = False) -> Tensor:
    """Let every token of a window attend to every other, all of shape (B, S, P, H, E).

    With `causal`, only to those of its own patch and of earlier ones. Keys and values may be of
    more patches than queries, which then are the last.
    """
    if isinstance(present, Packing):
        return present.all(partial(mix_all, causal=causal), q, k, v, causal)
    n_sites, n_patches = q.shape[1:3]
    mask = None
    if causal:
        seen = torch.arange(k.shape[2], device=q.device)
        mask = seen[-n_patches:].repeat(n_sites)[:, None] >= seen.repeat(n_sites)
    q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))  # (B, H, S P, E)
    out = attend(q, k, v, None if present is None else present.flatten(1), mask)
    return out.transpose(1, 2).unflatten(1, (n_sites, n_patches))


def mix_sites(q: Tensor, k: Tensor, v: Tensor, present: Presence) -> Tensor:
    """Let the tokens of one patch attend to each other, all of shape (B, S, P, H, E)."""
    if isinstance(present, Packing):
        return present.sites(mix_sites, q, k, v)
    n_windows, _, n_patches = q.shape[:3]
    q, k, v = (t.permute(0, 2, 3, 1, 4).flatten(0, 1) for t in (q, k, v))  # (B P, H, S, E)
    here = None if present is None else present.transpose(1, 2).flatten(0, 1)
    out = attend(q, k, v, here)
    return out.unflatten(0, (n_windows, n_patches)).permute(0, 3, 1, 2, 4)


def mix_patches(q: Tensor, k: Tensor, v: Tensor, present: Presence, causal: bool = False) -> Tensor:
    """Let the tokens of one site attend to each other, all of shape (B, S, P, H, E).

    Keys and values may be of more patches than queries, which then are the last.
    """
    n_windows, n_sites, n_patches = q.shape[:3]
    mask = None
    if causal:
        n_seen = k.shape[2]
        mask = q.new_ones((n_patches, n_seen), dtype=torch.bool).tril(n_seen - n_patches)
    q, k, v = (t.transpose(2, 3).flatten(0, 1) for t in (q, k, v))  # (B S, H, P, E)
    out = attend(q, k, v, present.flatten(0, 1) if isinstance(present, Tensor) else None, mask)
    return out.unflatten(0, (n_windows, n_sites)).transpose(2, 3)

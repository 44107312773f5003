"""Self-attention over a grid of sites and patches, blind to padding.

B windows, S sites, P patches, D width, H heads.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.errors import ConfigError
from neurofm.nn.rotary import rotate

AttentionName = Literal["full", "criss_cross"]
Turn = tuple[Tensor, Tensor]


def attend(q: Tensor, k: Tensor, v: Tensor, present: Tensor | None) -> Tensor:
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

    Returns
    -------
    Tensor, shape (N, H, n_queries, E)
        Zeros in rows without any present key.
    """
    if present is None:
        return F.scaled_dot_product_attention(q, k, v)
    some = present.any(-1, keepdim=True)
    # a softmax over no key at all is NaN in some kernels and versions of torch, and so is its
    # gradient: such rows see every key instead
    seen = (present | ~some)[:, None, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return out.masked_fill(~some[:, None, None], 0.0)


class GridAttention(nn.Module):
    """Projections that every attention over a grid shares.

    Parameters
    ----------
    width : int
        D.
    n_heads : int
        H; divides `width` into heads of an even number of features.
    """

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        if width % n_heads or width // n_heads % 2:
            good = [h for h in range(1, width + 1) if width % h == 0 and width // h % 2 == 0]
            raise ConfigError(
                f"width {width} cannot be split into {n_heads} heads of an even number of features",
                hint=f"n_heads may be {', '.join(map(str, good))}" if good else "use an even width",
            )
        self.n_heads = n_heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each of shape (B, S, P, H, E)."""
        q, k, v = self.project_in(x).unflatten(-1, (3, self.n_heads, -1)).unbind(-3)
        return q, k, v


class FullAttention(GridAttention):
    """Every token attends to every token of its window."""

    def forward(self, x: Tensor, present: Tensor | None, turn: Turn) -> Tensor:
        """Mix tokens.

        Parameters
        ----------
        x : Tensor, shape (B, S, P, D)
            Tokens.
        present : Tensor of bool, shape (B, S, P), or None
            False where a token is padding.
        turn : tuple of Tensor
            What `Rotary` returns for P patches.

        Returns
        -------
        Tensor, shape (B, S, P, D)
            What each token gathered.
        """
        n_sites, n_patches = x.shape[1:3]
        q, k, v = self.heads(x)
        q, k = rotate(q, turn), rotate(k, turn)
        q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))  # (B, H, S P, E)
        out = attend(q, k, v, None if present is None else present.flatten(1))
        out = out.transpose(1, 2).flatten(2).unflatten(1, (n_sites, n_patches))
        return self.project_out(out)


class CrissCrossAttention(GridAttention):
    """Half of the heads attend across sites, half across time within a site.

    After CBraMod (Wang et al., 2025): the cost grows with S + P a token instead of S P.

    Parameters
    ----------
    width : int
        D.
    n_heads : int
        H; even.
    """

    def __init__(self, width: int, n_heads: int):
        if n_heads % 2:
            raise ConfigError(
                f"criss_cross attention halves its heads, and n_heads is {n_heads}",
                hint=f"set n_heads to {n_heads + 1}, or attention to full",
            )
        super().__init__(width, n_heads)

    def forward(self, x: Tensor, present: Tensor | None, turn: Turn) -> Tensor:
        """Mix tokens along both axes; arguments as in `FullAttention.forward`."""
        n_windows, n_sites, n_patches, _ = x.shape
        half = self.n_heads // 2
        q, k, v = self.heads(x)

        # 1. Across sites, within a patch: (B P, H/2, S, E).
        across = [t[..., :half, :].permute(0, 2, 3, 1, 4).flatten(0, 1) for t in (q, k, v)]
        here = None if present is None else present.transpose(1, 2).flatten(0, 1)
        space = attend(across[0], across[1], across[2], here)
        space = space.unflatten(0, (n_windows, n_patches)).permute(0, 3, 1, 2, 4)

        # 2. Across patches, within a site: (B S, H/2, P, E).
        q, k, v = (t[..., half:, :] for t in (q, k, v))
        q, k = rotate(q, turn), rotate(k, turn)
        along = [t.transpose(2, 3).flatten(0, 1) for t in (q, k, v)]
        here = None if present is None else present.flatten(0, 1)
        time = attend(along[0], along[1], along[2], here)
        time = time.unflatten(0, (n_windows, n_sites)).transpose(2, 3)

        return self.project_out(torch.cat((space, time), dim=-2).flatten(-2))


ATTENTIONS: dict[AttentionName, type[FullAttention] | type[CrissCrossAttention]] = {
    "full": FullAttention,
    "criss_cross": CrissCrossAttention,
}

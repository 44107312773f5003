"""Rotary encoding of time: attention sees how many patches lie between two tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from neurofm.errors import ConfigError

BASE = 1000.0  # the slowest pair of features turns once in about 6 000 patches
Pairs = Literal["halves", "adjacent"]
Turn = tuple[Tensor, Tensor, Pairs]


class Rotary(nn.Module):
    """Angles by patch index, for queries and keys of one head width (Su et al. 2021).

    Parameters
    ----------
    head_width : int
        Features of one head; even.
    base : float
        Pair i of n turns by ``base ** (-i / n)`` radians a patch.
    pairs : "halves" or "adjacent"
        Whether feature i is turned with feature i + n, or with its neighbour.
    spread_over : int
        Heads that frequencies run across, each with its own slice of them, as in BrainOmni;
        1 gives every head the same.
    """

    def __init__(
        self,
        head_width: int,
        *,
        base: float = BASE,
        pairs: Pairs = "halves",
        spread_over: int = 1,
    ):
        super().__init__()
        if head_width % 2:
            raise ConfigError(
                f"rotary encoding turns pairs of features, and a head has {head_width}",
                hint="choose n_heads so that width / n_heads is even",
            )
        self.head_width = head_width
        self.base = base
        self.pairs: Pairs = pairs
        self.spread_over = spread_over

    def forward(self, n_patches: int, like: Tensor) -> Turn:
        """Return cosines and sines.

        Parameters
        ----------
        n_patches : int
            Patches are numbered from zero; only differences between them reach attention.
        like : Tensor
            Gives device and dtype.

        Returns
        -------
        cos, sin : Tensor, shape (P, 1 or H, head_width / 2)
            Broadcast over heads.
        pairs : str
            Which features are turned together.
        """
        return self.at(torch.arange(n_patches, device=like.device), like)

    def at(self, when: Tensor, like: Tensor) -> Turn:
        """Return cosines and sines for tokens at given times, in patches, shape (n,)."""
        n = self.spread_over * (self.head_width // 2)
        # float32 whatever the weights are: half precision cannot count patches times angle
        step = torch.arange(n, device=like.device, dtype=torch.float32) / n
        angle = when.to(torch.float32)[:, None] * self.base**-step
        angle = angle.unflatten(-1, (self.spread_over, -1))
        return angle.cos().to(like.dtype), angle.sin().to(like.dtype), self.pairs


def rotate(x: Tensor, turn: Turn | None) -> Tensor:
    """Turn pairs of features by the angle of their patch.

    Parameters
    ----------
    x : Tensor, shape (..., P, H, at least head_width)
        Queries or keys; features beyond those that turn stay as they are.
    turn : tuple, or None
        What `Rotary` returns; None leaves them as they are.

    Returns
    -------
    Tensor
        As `x`.
    """
    if turn is None:
        return x
    cos, sin, pairs = turn
    width = 2 * cos.shape[-1]
    still = None
    if x.shape[-1] > width:
        x, still = x[..., :width], x[..., width:]
    if pairs == "halves":
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        other = torch.cat((x[..., width // 2 :], x[..., : width // 2]), dim=-1)
        x = torch.addcmul(x * cos, other, sin)
    elif _as_numbers(x, cos):
        x = torch.view_as_real(_complex(x) * torch.complex(cos, sin)).flatten(-2)
    else:
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        x = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    return x if still is None else torch.cat((x, still), dim=-1)


def _as_numbers(x: Tensor, cos: Tensor) -> bool:
    """Tell whether pairs can be turned as complex numbers, which takes a quarter of the time.

    Half precision has none, and compilers do better with what is spelt out.
    """
    exact = x.dtype == cos.dtype and x.dtype in (torch.float32, torch.float64)
    return exact and not torch.compiler.is_compiling()


def _complex(x: Tensor) -> Tensor:
    """Return neighbours as one complex number, (..., n) to (..., n / 2), if it can be in place."""
    even = x.storage_offset() % 2 == 0 and all(step % 2 == 0 for step in x.stride()[:-1])
    if not even or x.stride(-1) != 1:
        x = x.contiguous()
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))

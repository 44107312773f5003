"""Vector quantisation: a token becomes the nearest of K learned codes.

The codes are no parameters: they follow the tokens they stand for by an exponential moving
average, so every rank of a distributed run must see the same tokens. What is averaged is summed
over ranks, and what is drawn is drawn by the first rank, which keeps codebooks equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.nn.ranks import broadcast_first, gather_rows, sum_over_ranks

Gradient = Literal["straight_through", "rotation"]
_SMOOTH = 1e-5
_KMEANS_ROUNDS = 10
_KMEANS_TOKENS = 256  # a code


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantised:
    """Tokens after quantisation.

    Attributes
    ----------
    content : Tensor, shape (..., D)
        The codes' vectors, through which gradients reach the tokens.
    codes : Tensor of int64, shape (...) or (..., Q)
        Which code, or which of each level.
    loss : Tensor, shape ()
        Commitment: how far tokens are from their codes.
    """

    content: Tensor
    codes: Tensor
    loss: Tensor


class Codebook(nn.Module):
    """K codes of D features, learned by exponential moving average (van den Oord et al. 2017).

    Parameters
    ----------
    n_codes, width : int
        K and D.
    decay : float
        Of the moving average.
    normalise : bool
        Compare directions: tokens and codes have unit length (as in LaBraM and Du-IN).
    revive_below : float
        A code that stands for fewer tokens a batch on average is replaced by a token; 0 never.
    commitment : float
        Weight of the loss.
    gradient : "straight_through" or "rotation"
        How gradients pass the quantiser: as if it were not there, or turned and scaled as the
        code is turned and scaled against its token (Fifty et al. 2024).
    kmeans : bool
        Start from k-means of the first batch in training, not from random codes.
    """

    def __init__(
        self,
        n_codes: int,
        width: int,
        *,
        decay: float = 0.99,
        normalise: bool = False,
        revive_below: float = 2.0,
        commitment: float = 0.25,
        gradient: Gradient = "rotation",
        kmeans: bool = True,
    ):
        super().__init__()
        self.decay = decay
        self.normalise = normalise
        self.revive_below = revive_below
        self.commitment = commitment
        self.gradient: Gradient = gradient
        self.vectors: Tensor
        self.count: Tensor
        self.total: Tensor
        self.started: Tensor
        vectors = self._unit(torch.randn(n_codes, width))
        self.register_buffer("vectors", vectors)
        self.register_buffer("count", torch.ones(n_codes))  # moving average of tokens a batch
        self.register_buffer("total", vectors.clone())  # moving average of their sum
        self.register_buffer("started", torch.tensor(not kmeans))

    @property
    def n_codes(self) -> int:
        """K."""
        return len(self.vectors)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the code nearest to each token, the first of several, (..., D) to (...)."""
        x = self._unit(x)
        distance = (
            x.square().sum(-1, keepdim=True)
            - 2 * x @ self.vectors.T
            + self.vectors.square().sum(-1)
        )
        return distance.argmin(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes, (...) to (..., D)."""
        return F.embedding(codes, self.vectors)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Quantised:
        """Quantise tokens; in training, let the codes follow them.

        Parameters
        ----------
        x : Tensor, shape (..., D)
            Tokens.
        present : Tensor of bool, shape (...), optional
            False where a token is padding: it is quantised, but teaches nothing.
        """
        x = self._unit(x)
        if self.training:
            counted = (x if present is None else x[present]).detach().reshape(-1, x.shape[-1])
            self._start(counted)
        codes = self.nearest(x.detach())
        vectors = self.lookup(codes)
        far = (x - vectors).square().mean(-1)
        loss = far.mean() if present is None else far[present].mean()
        if self.training:
            self._follow(counted, codes.flatten() if present is None else codes[present])
        passed = _pass_through(x, vectors, self.gradient) if x.requires_grad else vectors
        return Quantised(content=passed, codes=codes, loss=self.commitment * loss)

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.normalise else x

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        if bool(self.started):
            return
        gathered = gather_rows(x, self.n_codes * _KMEANS_TOKENS)
        vectors = broadcast_first(lambda: self._unit(kmeans(gathered, self.n_codes)), self.vectors)
        self.vectors.copy_(vectors)
        self.total.copy_(vectors)
        self.count.fill_(1.0)
        self.started.fill_(True)

    @torch.no_grad()
    def _follow(self, x: Tensor, codes: Tensor) -> None:
        count = torch.zeros_like(self.count).index_add_(0, codes, x.new_ones(len(codes)))
        total = torch.zeros_like(self.total).index_add_(0, codes, x.to(self.total.dtype))
        sum_over_ranks(count)
        sum_over_ranks(total)
        self.count.lerp_(count, 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        self.vectors.copy_(self._unit(self.total / self.count.clamp_min(_SMOOTH)[:, None]))
        self._revive(x)

    def _revive(self, x: Tensor) -> None:
        dead = self.count < self.revive_below
        if self.revive_below == 0 or not bool(dead.any()):
            return
        candidates = gather_rows(x, self.n_codes)
        if not len(candidates):
            return

        def draw() -> Tensor:
            rows = torch.randint(len(candidates), (self.n_codes,), device=x.device)
            return candidates[rows].to(self.vectors.dtype)

        fresh = broadcast_first(draw, self.vectors)
        self.vectors[dead] = fresh[dead]
        self.count[dead] = self.revive_below
        self.total[dead] = fresh[dead] * self.revive_below


def _pass_through(x: Tensor, vectors: Tensor, gradient: Gradient) -> Tensor:
    """Return `vectors`, with a gradient for `x`."""
    if gradient == "straight_through":
        return x + (vectors - x).detach()
    # a rotation and a scale, both taken as constant, that bring x onto its vector
    length = x.detach().norm(dim=-1, keepdim=True).clamp_min(1e-8)
    target = vectors.norm(dim=-1, keepdim=True)
    start, end = x.detach() / length, vectors / target.clamp_min(1e-8)
    middle = F.normalize(start + end, dim=-1)
    turned = x - 2 * (x * middle).sum(-1, keepdim=True) * middle
    turned = turned + 2 * (x * start).sum(-1, keepdim=True) * end
    return turned * (target / length)


def kmeans(x: Tensor, k: int, rounds: int = _KMEANS_ROUNDS) -> Tensor:
    """Return `k` means of rows (n, D); a mean of nothing stays.

    The first means are drawn far from each other (k-means++, Arthur and Vassilvitskii 2007), or
    two would share a cluster that one can never leave.

    Parameters
    ----------
    x : Tensor, shape (n, D)
        Rows.
    k : int
        Number of means; repeated rows where there are fewer.
    rounds : int
        Of assignment and averaging.
    """
    means = x[torch.randint(len(x), (1,), device=x.device)]
    distance = (x - means).square().sum(-1)
    for _ in range(k - 1):
        # any row, where every row is a mean already
        odds = distance if bool(distance.max() > 0) else torch.ones_like(distance)
        fresh = x[torch.multinomial(odds, 1)]
        means = torch.cat((means, fresh))
        distance = torch.minimum(distance, (x - fresh).square().sum(-1))
    for _ in range(rounds):
        nearest = torch.cdist(x, means).argmin(-1)
        count = x.new_zeros(k).index_add_(0, nearest, x.new_ones(len(x)))
        total = torch.zeros_like(means).index_add_(0, nearest, x)
        means = torch.where(count[:, None] > 0, total / count.clamp_min(1)[:, None], means)
    return means

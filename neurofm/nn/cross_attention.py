"""Tokens that gather from other tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.nn.attention import FullAttention
from neurofm.nn.feedforward import ActivationName, FeedForward
from neurofm.nn.heads import require_heads
from neurofm.nn.in_place import add_to
from neurofm.nn.mixing import attend

Map = tuple[Tensor, Tensor]  # weight and bias


class CrossAttention(nn.Module):
    """Queries gather values by their keys, all projected.

    Parameters
    ----------
    width, n_heads : int
        D, and heads that share it.
    """

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        require_heads(width, n_heads)
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project_out = nn.Linear(width, width)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (N, H, n, E)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Gather.

        Parameters
        ----------
        query : Tensor, shape (N, n, D) or (1, n, D)
            Tokens that gather; one row of them if they are the same for all N.
        key, value : Tensor, shape (N, m, D)
            Tokens that are gathered.
        present : Tensor of bool, shape (N, m), optional
            False where one of these is padding.

        Returns
        -------
        Tensor, shape (N, n, D)
            What each gathered.
        """
        maps = (self.key.weight, self.key.bias), (self.value.weight, self.value.bias)
        return self._gather(query, key, value, maps, present)

    def normed(
        self,
        query: Tensor,
        tokens: Tensor,
        norm_key: nn.LayerNorm,
        norm_value: nn.LayerNorm,
        present: Tensor | None = None,
    ) -> Tensor:
        """Gather from tokens (N, m, D) that are normalised, for keys and for values apart.

        What both norms do alike is done once; in what they differ is one with the maps after them.
        Other arguments as in `forward`; the norms' eps is one.
        """
        scale = torch.ones_like(norm_key.weight)
        plain = F.layer_norm(tokens, scale.shape, scale, torch.zeros_like(scale), norm_key.eps)
        maps = _after(norm_key, self.key), _after(norm_value, self.value)
        return self._gather(query, plain, plain, maps, present)

    def _gather(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        maps: tuple[Map, Map],
        present: Tensor | None,
    ) -> Tensor:
        q = self._heads(self.query(query))  # (N or 1, H, n, E)
        if self._few(query.shape[1], key.shape[1]):
            out = self._gather_before_mapping(q, key, value, maps, present)
        else:
            k, v = (self._heads(F.linear(x, *m)) for x, m in zip((key, value), maps, strict=True))
            out = attend(q.expand(k.shape[0], -1, -1, -1), k, v, present)
        return self.project_out(out.transpose(1, 2).flatten(-2))

    def _few(self, n: int, m: int) -> bool:
        """Tell whether it is less work to map n queries than m keys and values."""
        if torch.compiler.is_exporting():  # a program is for any number
            return False
        width = self.query.in_features
        return n * (width + m * (self.n_heads - 1)) < m * width / 2

    def _gather_before_mapping(
        self,
        q: Tensor,
        key: Tensor,
        value: Tensor,
        maps: tuple[Map, Map],
        present: Tensor | None,
    ) -> Tensor:
        """Attend with the maps of keys and values on the side of the queries, (N, H, n, E).

        A score q . (K x + b) is (K^T q) . x + q . b, and a mean of V x + b is V (mean x) + b.
        """
        (for_k, bias_k), (for_v, bias_v) = (
            (weight.unflatten(0, (self.n_heads, -1)), bias.unflatten(0, (self.n_heads, -1)))
            for weight, bias in maps
        )  # (H, E, D), (H, E)
        q = q * q.shape[-1] ** -0.5
        looks_for = _map_heads(q, for_k).flatten(1, 2)  # (N, H n, D)
        offset = (q * bias_k[:, None]).sum(-1)
        score = torch.baddbmm(
            offset.flatten(1)[..., None],
            looks_for.expand(key.shape[0], -1, -1),
            key.transpose(1, 2),
        )
        if present is not None:
            score = score.masked_fill(~present[:, None], torch.finfo(score.dtype).min)
        seen = torch.bmm(score.softmax(-1), value).unflatten(1, (self.n_heads, -1))
        out = _map_heads(seen, for_v.transpose(1, 2)) + bias_v[:, None]
        if present is not None:
            out = out.masked_fill(~present.any(-1)[:, None, None, None], 0.0)
        return out

    def weights(self, query: Tensor, key: Tensor, present: Tensor | None = None) -> Tensor:
        """Return how much each query looks at each key, (N, n, m), the mean over heads."""
        q, k = self._heads(self.query(query)), self._heads(self.key(key))
        score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if present is not None:
            score = score.masked_fill(~present[:, None, None], float("-inf"))
        return score.softmax(-1).mean(1)


def _map_heads(x: Tensor, maps: Tensor) -> Tensor:
    """Map each head's tokens, (N, H, n, E), by a matrix of its own, (H, E, D)."""
    joined = x.transpose(0, 1).flatten(1, 2)  # (H, N n, E)
    return torch.bmm(joined, maps).unflatten(1, (x.shape[0], -1)).transpose(0, 1)


def _after(norm: nn.LayerNorm, linear: nn.Linear) -> Map:
    """Return a linear map of what a norm scales and moves as one of what it only normalises."""
    return linear.weight * norm.weight, torch.addmv(linear.bias, linear.weight, norm.bias)


class CrossBlock(nn.Module):
    """Tokens attend to each other, gather from others, and are mapped; each part is added.

    Each part sees normalised tokens; what is gathered from is taken as it is.

    Parameters
    ----------
    width, n_heads, hidden : int
        Features of a token, heads, hidden features of the feed-forward layer.
    activation : str
        Of the feed-forward layer.
    """

    def __init__(
        self, width: int, n_heads: int, hidden: int, *, activation: ActivationName = "gelu"
    ):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = FullAttention(width, n_heads)
        self.norm_cross = nn.LayerNorm(width)
        self.cross = CrossAttention(width, n_heads)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, hidden, activation=activation)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """Map tokens (N, n, D) with others (N, m, D) to the shape of the former."""
        grid = self.norm_attention(x)[:, :, None]
        x = x + self.attention(grid, None, None)[:, :, 0]
        x = add_to(x, self.cross(self.norm_cross(x), others, others))
        return add_to(x, self.feedforward(self.norm_feedforward(x)))

"""Sensors to latent sources and back, by cross-attention over channels.

B windows, C channels, S sources, N any number of moments, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _heads(x: Tensor, n_heads: int) -> Tensor:
    """Map (..., n, D) to (..., H, n, E)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(-2, -3)


class SensorsToSources(nn.Module):
    """Learned queries gather what channels measure, moment by moment.

    After BrainOmni's "backward solution" (Xiao et al. 2025, sec. 3.2): queries are not projected,
    keys know feature and sensor, values the feature alone.

    Parameters
    ----------
    width, n_heads, n_sources : int
        D, heads, and S.
    """

    def __init__(self, width: int, n_heads: int, n_sources: int):
        super().__init__()
        self.n_heads = n_heads
        self.queries = nn.Parameter(torch.randn(n_sources, width))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project_out = nn.Linear(width, width)

    def forward(self, x: Tensor, sensors: Tensor, present: Tensor | None = None) -> Tensor:
        """Gather.

        Parameters
        ----------
        x : Tensor, shape (B, C, N, D)
            Features of channels.
        sensors : Tensor, shape (B, C, D)
            Embedded sensors.
        present : Tensor of bool, shape (B, C), optional
            False where a channel is padding or withheld; at least one is not.

        Returns
        -------
        Tensor, shape (B, S, N, D)
            Sources.
        """
        k = _heads(self.key(x + sensors[:, :, None]).transpose(1, 2), self.n_heads)
        v = _heads(self.value(x).transpose(1, 2), self.n_heads)  # (B, N, H, C, E)
        q = _heads(self.queries, self.n_heads).expand(*k.shape[:2], -1, -1, -1)
        mask = None if present is None else present[:, None, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.project_out(out.transpose(-2, -3).flatten(-2).transpose(1, 2))

    def weights(self, x: Tensor, sensors: Tensor, present: Tensor | None = None) -> Tensor:
        """Return how much each source looks at each channel, (B, S, C), the mean over heads."""
        k = _heads(self.key(x + sensors[:, :, None]).transpose(1, 2), self.n_heads)
        q = _heads(self.queries, self.n_heads)
        score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B, N, H, S, C)
        if present is not None:
            score = score.masked_fill(~present[:, None, None, None], float("-inf"))
        return score.softmax(-1).mean((1, 2))


class SourcesToSensors(nn.Module):
    """Sensors, as queries, gather what sources say they should measure.

    After BrainOmni's "forward solution": queries are the embedded sensors, not projected.

    Parameters
    ----------
    width, n_heads : int
        D, and heads.
    n_sources : int, optional
        S, where each source has a learned vector in its key. The published have none: there what
        a source says has to say which source it is, too.
    """

    def __init__(self, width: int, n_heads: int, n_sources: int | None = None):
        super().__init__()
        self.n_heads = n_heads
        self.names: nn.Parameter | None = None
        if n_sources is not None:
            self.names = nn.Parameter(torch.randn(n_sources, width))
        self.key_value = nn.Linear(width, 2 * width)
        self.project_out = nn.Linear(width, width)

    def forward(self, sources: Tensor, sensors: Tensor) -> Tensor:
        """Map sources (B, S, N, D) to channels (B, C, N, D) with `sensors` (B, C, D)."""
        k, v = self.key_value(sources).transpose(1, 2).chunk(2, dim=-1)
        if self.names is not None:
            k = k + self.names
        q = _heads(sensors, self.n_heads)[:, None].expand(-1, k.shape[1], -1, -1, -1)
        out = F.scaled_dot_product_attention(q, _heads(k, self.n_heads), _heads(v, self.n_heads))
        return self.project_out(out.transpose(-2, -3).flatten(-2).transpose(1, 2))

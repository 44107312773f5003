"""Channels from encoded tokens of several: each asks the sites of a patch what it should measure.

B windows, C channels, S sites, P patches, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from neurofm.nn.cross_attention import CrossAttention
from neurofm.nn.feedforward import FeedForward
from neurofm.nn.initialise import initialise_linear
from neurofm.nn.place import PlaceEncoding
from neurofm.signals import Batch, Grid

_N_PARTS = 4  # of a site: where all channels are one, there has to be something to choose from


class ChannelDecoder(nn.Module):
    """Places of channels, as queries, gather from the sites of each patch.

    After the decoders of LUNA and BrainOmni. A channel is known by position, orientation and kind,
    so any may be asked for, whether it was shown or not.

    Parameters
    ----------
    width, n_heads : int
        D, and heads that share it.

    Raises
    ------
    ConfigError
        If heads do not share the width.
    """

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.place = PlaceEncoding(width)
        self.parts = nn.Linear(width, _N_PARTS * width)
        self.norm_query = nn.LayerNorm(width)
        self.norm_parts = nn.LayerNorm(width)
        self.cross = CrossAttention(width, n_heads)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, 4 * width)
        self.norm = nn.LayerNorm(width)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                initialise_linear(layer)

    def forward(self, grid: Grid, batch: Batch) -> Tensor:
        """Map encoded tokens of a batch to its channels, (B, C, P, D)."""
        n_windows, _, n_patches = grid.present.shape
        parts = self.parts(grid.content).unflatten(-1, (_N_PARTS, -1))  # (B, S, P, K, D)
        parts = self.norm_parts(parts.transpose(1, 2).flatten(2, 3).flatten(0, 1))
        present = grid.present.transpose(1, 2).flatten(0, 1).repeat_interleave(_N_PARTS, -1)
        query = self.place.of(batch, 1.0, n_patches)[:, None, :, 0]  # (B, 1, C, D)
        query = query.expand(-1, n_patches, -1, -1).flatten(0, 1)
        x = query + self.cross(self.norm_query(query), parts, parts, present)
        x = x + self.feedforward(self.norm_feedforward(x))
        return self.norm(x).unflatten(0, (n_windows, n_patches)).transpose(1, 2)

"""BIOT (Yang et al., NeurIPS 2023): spectra of every channel under linear attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.nn.feedforward import FeedForward
from neurofm.nn.in_place import add_to
from neurofm.nn.linear_attention import LinearAttention
from neurofm.nn.polar import magnitude
from neurofm.nn.sinusoid import sinusoid
from neurofm.published.entry import Published, Rule, config_of, constructor_values, rename

WIDTH = 256  # of the published table of channels
N_FRAMES = 1000  # of the table of times


class BIOTConfig(Config):
    """Hyper-parameters of `BIOT`.

    Parameters
    ----------
    n_names : int
        Rows of the table of channels.
    n_fft, hop : int
        Samples of a frame, and from frame to frame.
    width, depth, n_heads : int
        Features of a token, layers, heads.
    n_out : int
        Classes; 0 leaves the head out.
    """

    n_names: int = Field(default=18, ge=1)
    n_fft: int = Field(default=200, ge=2)
    hop: int = Field(default=100, ge=1)
    width: int = Field(default=WIDTH, ge=1)
    depth: int = Field(default=4, ge=1)
    n_heads: int = Field(default=8, ge=1)
    n_out: int = Field(default=0, ge=0)

    def build(self) -> BIOT:
        """Build the model with fresh weights.

        Raises
        ------
        ConfigError
            If heads do not share the width evenly.
        """
        return BIOT(self)


class BIOTLayer(nn.Module):
    """Linear attention, then a feed-forward layer, each normalised before and added."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = LinearAttention(width, n_heads)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix and map tokens (B, N, D)."""
        x = x + self.attention(self.norm_attention(x))
        return add_to(x, self.feedforward(self.norm_feedforward(x)))

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of what `forward` gives, (B, D): a linear map may follow the mean."""
        x = x + self.attention(self.norm_attention(x))
        hidden = self.feedforward.hidden(self.norm_feedforward(x))
        return x.mean(1) + self.feedforward.narrow(hidden.mean(1))


class BIOT(nn.Module):
    """Encoder and classifier. Tokens are ordered by channel, then by frame.

    Parameters
    ----------
    config : BIOTConfig
        Hyper-parameters.
    """

    def __init__(self, config: BIOTConfig):
        super().__init__()
        self.config = config
        self.project = nn.Linear(config.n_fft // 2 + 1, config.width)
        self.names = nn.Embedding(config.n_names, config.width)
        # which row of the table each channel has: stored with the weights, so it is read from them
        self.rows: Tensor
        self.register_buffer("rows", torch.arange(config.n_names))
        self.times: Tensor
        self.register_buffer("times", sinusoid(N_FRAMES, config.width))
        self.layers = nn.ModuleList(
            BIOTLayer(config.width, config.n_heads) for _ in range(config.depth)
        )
        self.head = nn.Linear(config.width, config.n_out) if config.n_out else nn.Identity()

    def spectrum(self, signal: Tensor) -> Tensor:
        """Return magnitudes of frames without taper, (B, C, T) to (B, C, frames, bins)."""
        frames = signal.unfold(-1, self.config.n_fft, self.config.hop)
        return magnitude(torch.fft.rfft(frames))

    def embed(self, signal: Tensor, names: Tensor) -> Tensor:
        """Return tokens with their places (B, C frames, D); `names` (C,) numbers the channels."""
        content = self.project(self.spectrum(signal))
        place = self.names(self.rows[names])[:, None] + self.times[: content.shape[2]]
        return (content + place).flatten(1, 2)

    def encode(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, N, D) after the last layer, which no norm follows."""
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

    def forward(self, signal: Tensor, names: Tensor) -> Tensor:
        """Return class scores.

        Parameters
        ----------
        signal : Tensor, shape (B, C, T)
            At 200 Hz, each channel divided by the 95th percentile of its absolute values.
        names : Tensor of int, shape (C,)
            Number of each channel among those of the model.

        Returns
        -------
        Tensor, shape (B, n_out)
            Scores.
        """
        x = self.embed(signal, names)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x)
        return self.head(F.elu(last.mean(x)))  # type: ignore[operator]


# ---------------------------------------------------------------------------------------
# From the original


def from_constructor(constructor: Mapping[str, Any]) -> BIOTConfig:
    """Return our config from the original's arguments."""
    names = {
        "emb_size": "width",
        "heads": "n_heads",
        "depth": "depth",
        "n_classes": "n_out",
        "n_channels": "n_names",
        "n_fft": "n_fft",
        "hop_length": "hop",
    }
    defaults = {"n_classes": 6, "n_channels": 16}
    values = constructor_values(constructor, names, model="BIOT", defaults=defaults)
    return config_of(BIOTConfig, values, model="BIOT")


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    layer = r"biot\.transformer\.layers\.layers\.(\d+)\."
    rules: list[Rule] = [
        (r"biot\.index", "rows"),
        (r"biot\.channel_tokens\.weight", "names.weight"),
        (r"biot\.patch_embedding\.projection\.(\w+)", r"project.\1"),
        (r"biot\.positional_encoding\.pe", "times"),
        (layer + r"0\.norm\.(\w+)", r"layers.\1.norm_attention.\2"),
        (layer + r"0\.fn\.to_(q|k|v)\.weight", r"layers.\1.attention.\2"),
        (layer + r"0\.fn\.to_out\.(\w+)", r"layers.\1.attention.project_out.\2"),
        (layer + r"1\.norm\.(\w+)", r"layers.\1.norm_feedforward.\2"),
        (layer + r"1\.fn\.fn\.w1\.(\w+)", r"layers.\1.feedforward.widen.\2"),
        (layer + r"1\.fn\.fn\.w2\.(\w+)", r"layers.\1.feedforward.narrow.\2"),
        (r"classifier\.clshead\.1\.(\w+)", r"head.\1"),
    ]
    found = rename(original, rules)
    for q in [name for name in found if name.endswith("attention.q")]:
        at = q[:-1]
        joined = torch.cat([found.pop(at + part) for part in "qkv" if at + part in found])
        found[at + "project_in.weight"] = joined
    if "times" in found:
        found["times"] = found["times"].squeeze(0)
    return found


PUBLISHED_BIOT = {
    "BIOT encoder + classifier": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=("nn.linear_attention", "nn.feedforward", "nn.sinusoid"),
    ),
}

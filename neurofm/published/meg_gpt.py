"""MEG-GPT (arXiv 2510.18080): the next code of each channel, from a pyramid over its past.

It follows the released PyTorch code, not the TensorFlow model of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.feedforward import ActivationName, FeedForward
from neurofm.nn.patched_attention import PatchedAttention, causal_view
from neurofm.nn.rotary import Rotary, Turn
from neurofm.nn.sinusoid import sinusoid


class LookupConfig(Config):
    """A table of learned vectors.

    Parameters
    ----------
    n_rows : int
        Rows of the table.
    width : int, optional
        Features of a row, which a linear map brings to those of the model; by default as many.
    """

    n_rows: int = Field(ge=1)
    width: int | None = Field(default=None, ge=1)


class LayerConfig(Config):
    """One layer of the pyramid.

    Parameters
    ----------
    n_out : int
        Moments out: the last of those that come in.
    n_patches, patch_len : int
        Patches of the past and moments in each, together all that come in.
    n_recent : int
        Last moments that are also seen one by one.
    band, recent_band : int, optional
        As `causal_view` takes them.
    channels : "apart", "before" or "beside"
        Channels know nothing of each other; attend to each other before time; or do so beside
        it, and time gathers from the result.
    """

    n_out: int = Field(ge=1)
    n_patches: int = Field(ge=1)
    patch_len: int = Field(default=1, ge=1)
    n_recent: int = Field(default=0, ge=0)
    band: int | None = Field(default=None, ge=0)
    recent_band: int | None = Field(default=None, ge=0)
    channels: Literal["apart", "before", "beside"] = "apart"

    @property
    def n_in(self) -> int:
        """Moments in."""
        return self.n_patches * self.patch_len


PYRAMID = (
    LayerConfig(n_patches=100, n_out=100),
    LayerConfig(n_patches=25, patch_len=4, n_out=80),
    LayerConfig(n_patches=20, patch_len=4, n_out=80),
    LayerConfig(n_patches=10, patch_len=8, n_out=64),
    LayerConfig(n_patches=8, patch_len=8, n_out=16),
)


class MEGGPTConfig(Config):
    """Hyper-parameters of `MEGGPT`.

    Parameters
    ----------
    codes, times, channels : LookupConfig
        Tables of codes, of moments in a window, and of channels.
    time : "learned", "sinusoidal" or "rotary"
        Whether the table of moments is learned, or holds sines and cosines; or is not there, and
        time attention turns its queries and keys.
    rotary_base : float
        Of these turns; see `neurofm.nn.rotary.Rotary`.
    labels : tuple of LookupConfig
        Tables of what else is known of a moment, such as its session.
    lookup_width : int
        Features of the sum of what is looked up.
    width, n_heads, hidden : int
        Of the layers; 256, 4 and 1024.
    activation : str
        Of the feed-forward layers.
    n_channel_keys : int, optional
        Mixtures of channels that channels attend to, instead of the channels themselves.
    layers : tuple of LayerConfig
        The pyramid; each takes in what the one before gives out.
    """

    codes: LookupConfig = LookupConfig(n_rows=66)
    times: LookupConfig = LookupConfig(n_rows=100)
    channels: LookupConfig = LookupConfig(n_rows=52)
    time: Literal["learned", "sinusoidal", "rotary"] = "learned"
    rotary_base: float = Field(default=10_000.0, gt=0)
    labels: tuple[LookupConfig, ...] = ()
    lookup_width: int = Field(default=256, ge=1)
    width: int = Field(default=256, ge=1)
    n_heads: int = Field(default=4, ge=1)
    hidden: int = Field(default=1024, ge=1)
    activation: ActivationName = "gelu"
    n_channel_keys: int | None = Field(default=None, ge=1)
    layers: tuple[LayerConfig, ...] = PYRAMID

    def build(self) -> MEGGPT:
        """Build the model with fresh weights.

        Raises
        ------
        ConfigError
            If a layer does not take in what the one before gives out, or moments that are turned
            are put in patches.
        """
        if self.time == "rotary" and any(la.patch_len > 1 or la.n_recent for la in self.layers):
            raise ConfigError(
                "MEG-GPT: rotary time needs layers without patches and without recent moments",
                hint="set patch_len to 1 and n_recent to 0 in every layer, or time to learned",
            )
        n = self.times.n_rows
        for i, layer in enumerate(self.layers):
            if layer.n_in != n or layer.n_out > n:
                raise ConfigError(
                    f"MEG-GPT: {n} moments come to layer {i}, which takes in {layer.n_in} "
                    f"({layer.n_patches} patches of {layer.patch_len}) and gives out {layer.n_out}",
                    hint="n_patches times patch_len must be what comes in, and n_out no more",
                )
            n = layer.n_out
        return MEGGPT(self)


class Waves(nn.Module):
    """A table of sines and cosines, which is not learned and not stored."""

    table: Tensor

    def __init__(self, n_rows: int, width: int):
        super().__init__()
        self.register_buffer("table", sinusoid(n_rows, width), persistent=False)

    def forward(self, row: Tensor) -> Tensor:
        """Look up rows (...), giving (..., width)."""
        return self.table[row]


class Lookup(nn.Module):
    """A row of a table, learned or not, brought to the width of the model."""

    def __init__(self, config: LookupConfig, width: int, *, learned: bool = True):
        super().__init__()
        own = config.width or width
        self.table = (nn.Embedding if learned else Waves)(config.n_rows, own)
        self.project = nn.Linear(own, width) if own != width else None

    def forward(self, row: Tensor) -> Tensor:
        """Look up rows (...), giving (..., width)."""
        x = self.table(row)
        return x if self.project is None else self.project(x)


class Channels(nn.Module):
    """The channels of one moment attend to each other, and are mapped; each part is added."""

    def __init__(self, config: MEGGPTConfig):
        super().__init__()
        width, n = config.width, config.channels.n_rows
        self.norm_attention = nn.LayerNorm(width)
        n_keys = config.n_channel_keys
        self.mix = nn.Linear(n, n_keys) if n_keys else None
        everyone = torch.ones(n, n_keys or n, dtype=torch.bool)
        self.attention = PatchedAttention(width, config.n_heads, everyone)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, config.hidden, activation=config.activation)

    def gather(self, x: Tensor) -> Tensor:
        """Return what channels (B, C, L, D) gather from each other."""
        moments = self.norm_attention(x).transpose(1, 2)
        query = moments.flatten(0, 1)
        keys = query if self.mix is None else self.mix(query.transpose(1, 2)).transpose(1, 2)
        out = self.attention(query, keys)
        return out.unflatten(0, moments.shape[:2]).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, L, D) to the same shape."""
        x = x + self.gather(x)
        return x + self.feedforward(self.norm_feedforward(x))


class Layer(nn.Module):
    """The last moments of each channel attend to its past, and are mapped."""

    def __init__(self, config: MEGGPTConfig, layer: LayerConfig):
        super().__init__()
        width, n_heads = config.width, config.n_heads
        beside = layer.channels == "beside"
        self.channels = None if layer.channels == "apart" else Channels(config)
        self.norm_time = nn.LayerNorm(width)
        sees = causal_view(
            layer.n_in if beside else layer.n_out,
            layer.n_patches,
            layer.patch_len,
            layer.n_recent,
            band=layer.band,
            recent_band=layer.recent_band,
        )
        self.time = PatchedAttention(
            width, n_heads, sees, patch_len=layer.patch_len, n_recent=layer.n_recent
        )
        self.rotary = None
        if config.time == "rotary":
            self.rotary = Rotary(width // n_heads, base=config.rotary_base)
        self.cross = None
        if beside:
            sees = causal_view(layer.n_out, layer.n_patches, layer.patch_len, band=layer.band)
            self.cross = PatchedAttention(width, n_heads, sees, patch_len=layer.patch_len)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, config.hidden, activation=config.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, moments in, D) to (B, C, moments out, D)."""
        shape = x.shape[:2]
        mixed = x if self.channels is None else self.channels(x)
        x = (x if self.cross is not None else mixed).flatten(0, 1)
        normed = self.norm_time(x)
        x = _add(x, self.time(normed, normed, turns=self._turns(normed)))
        if self.cross is not None:
            x = _add(x, self.cross(x, mixed.flatten(0, 1)))
        return (x + self.feedforward(self.norm_feedforward(x))).unflatten(0, shape)

    def _turns(self, x: Tensor) -> tuple[Turn, Turn] | None:
        """Return the turns of queries, which are the last moments, and of keys (N, L, D)."""
        if self.rotary is None or self.time.sees is None:
            return None
        when = torch.arange(x.shape[1], device=x.device)
        return self.rotary.at(when[-len(self.time.sees) :], x), self.rotary.at(when, x)


def _add(x: Tensor, gathered: Tensor) -> Tensor:
    return x[:, -gathered.shape[1] :] + gathered


class MEGGPT(nn.Module):
    """Codes, moments, channels and labels looked up, and a pyramid of layers.

    Parameters
    ----------
    config : MEGGPTConfig
        Hyper-parameters.
    """

    def __init__(self, config: MEGGPTConfig):
        super().__init__()
        self.config = config
        width = config.lookup_width
        self.codes = Lookup(config.codes, width)
        self.times = None
        if config.time != "rotary":
            self.times = Lookup(config.times, width, learned=config.time == "learned")
        self.channels = Lookup(config.channels, width)
        self.labels = nn.ModuleList(Lookup(label, width) for label in config.labels)
        self.project_in = nn.Linear(width, config.width) if width != config.width else None
        self.layers = nn.ModuleList(Layer(config, layer) for layer in config.layers)
        self.head = nn.Linear(config.width, config.codes.n_rows)

    def embed(self, codes: Tensor, labels: Sequence[Tensor] = ()) -> Tensor:
        """Look up codes and what is known of them, (B, C, T, lookup_width); see `forward`.

        Raises
        ------
        ConfigError
            If channels, moments or labels are not as many as the model has tables for.
        """
        config = self.config
        found = (codes.shape[1], codes.shape[2], len(labels))
        if found != (config.channels.n_rows, config.times.n_rows, len(config.labels)):
            raise ConfigError(
                f"MEG-GPT: {found[0]} channels, {found[1]} moments and {found[2]} labels; the "
                f"model is for {config.channels.n_rows}, {config.times.n_rows} and "
                f"{len(config.labels)}",
                hint="it knows channels and moments by their number, so it takes no others",
            )
        device = codes.device
        x = self.codes(codes)
        if self.times is not None:
            x = x + self.times(torch.arange(found[1], device=device))
        x = x + self.channels(torch.arange(found[0], device=device))[:, None]
        for table, label in zip(self.labels, labels, strict=True):
            x = x + table(label)[:, None]
        return x

    def forward(self, codes: Tensor, labels: Sequence[Tensor] = ()) -> Tensor:
        """Score the code that follows each of the last moments.

        Parameters
        ----------
        codes : Tensor of int, shape (B, C, T)
            Codes of samples.
        labels : sequence of Tensor of int, shape (B, T)
            What else is known.

        Returns
        -------
        Tensor, shape (B, C, moments out, n_codes)
            Scores.
        """
        x = self.embed(codes, labels)
        if self.project_in is not None:
            x = self.project_in(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def next_code_loss(
    scores: Tensor, following: Tensor, n_last: int, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy of the codes that follow the last moments, of shape ().

    Parameters
    ----------
    scores : Tensor, shape (B, C, at least n_last, n_codes)
        What the model returns.
    following : Tensor of int, shape (B, C, at least n_last)
        Codes one moment later.
    n_last : int
        Moments that count.
    label_smoothing : float
        Share of the target that goes to all codes alike.
    """
    scores, following = scores[..., -n_last:, :], following[..., -n_last:]
    return F.cross_entropy(
        scores.flatten(0, -2), following.flatten(), label_smoothing=label_smoothing
    )

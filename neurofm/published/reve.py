"""REVE (El Ouahidi et al., NeurIPS 2025): any electrodes, by four-dimensional places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError, SignalError
from neurofm.nn.attention import AttentionStyle
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.feedforward import ActivationName
from neurofm.nn.place_time import PlaceTime
from neurofm.published.entry import (
    Published,
    Rule,
    config_of,
    constructor_values,
    rename,
    section,
)

EPS = 1e-6


class REVEConfig(Config):
    """Hyper-parameters of `REVE`.

    Parameters
    ----------
    patch_len, overlap : int
        Samples in a patch, and those it shares with the next.
    width, depth, n_heads, head_width : int
        Features of a token, blocks, heads and their features.
    mlp_ratio : float
        Hidden features of the feed-forward layer, as a multiple of the width, rounded down.
    gated : bool
        Whether the feed-forward layer is gated.
    n_frequencies : int
        Waves an axis of the places.
    pools : bool
        Whether there is a query for `REVE.pool`.
    """

    patch_len: int = Field(default=200, ge=1)
    overlap: int = Field(default=20, ge=0)
    width: int = Field(default=512, ge=2)
    depth: int = Field(default=22, ge=1)
    n_heads: int = Field(default=8, ge=1)
    head_width: int = Field(default=64, ge=1)
    mlp_ratio: float = Field(default=2.66, gt=0)
    gated: bool = True
    n_frequencies: int = Field(default=4, ge=1)
    pools: bool = True

    def build(self) -> REVE:
        """Build the encoder with fresh weights."""
        return REVE(self)

    def blocks(self) -> nn.ModuleList:
        """Return its blocks: without offsets, normalised before each part, none after the last."""
        activation: ActivationName = "geglu" if self.gated else "gelu"
        style = BlockStyle(
            norm="rms",
            norm_eps=EPS,
            attention=AttentionStyle(bias=False, out_bias=False, head_width=self.head_width),
            activation=activation,
            bias=False,
        )
        hidden = int(self.mlp_ratio * self.width)
        return nn.ModuleList(
            Block(self.width, self.n_heads, attention="full", hidden=hidden, style=style)
            for _ in range(self.depth)
        )


class REVE(nn.Module):
    """Encoder. Tokens are ordered by channel, then by patch.

    Parameters
    ----------
    config : REVEConfig
        Hyper-parameters.
    """

    def __init__(self, config: REVEConfig):
        super().__init__()
        self.config = config
        self.project = nn.Linear(config.patch_len, config.width)
        self.place = PlaceTime(config.width, config.n_frequencies)
        self.blocks = config.blocks()
        self.query = nn.Parameter(torch.randn(config.width)) if config.pools else None

    def patches(self, signal: Tensor) -> Tensor:
        """Cut signals (B, C, T) into patches (B, C, P, L); a tail that fills none is left out.

        Raises
        ------
        SignalError
            If a window holds no patch.
        """
        length = self.config.patch_len
        if signal.shape[-1] < length:
            raise SignalError(
                f"REVE: windows of {signal.shape[-1]} samples hold no patch of {length}"
            )
        return signal.unfold(-1, length, length - self.config.overlap)

    def embed(self, signal: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return content and place of every token, each (B, C P, D)."""
        content = self.project(self.patches(signal))
        place = self.place(position, content.shape[2])
        return content.flatten(1, 2), place.flatten(1, 2)

    def encode(self, tokens: Tensor) -> list[Tensor]:
        """Return tokens (B, N, D) as they enter, and after each block."""
        return run_blocks(self.blocks, tokens)

    def forward(self, signal: Tensor, position: Tensor) -> Tensor:
        """Encode windows.

        Parameters
        ----------
        signal : Tensor, shape (B, C, T)
            At 200 Hz, standardised by session and clipped at 15.
        position : Tensor, shape (B, C, 3)
            Metres.

        Returns
        -------
        Tensor, shape (B, C, P, D)
            After the last block, which no norm follows.
        """
        content, place = self.embed(signal, position)
        return self.encode(content + place)[-1].unflatten(1, (signal.shape[1], -1))

    def pool(self, tokens: Tensor) -> Tensor:
        """Return the mean of tokens (B, N, D) weighted by a learned query, (B, D).

        Raises
        ------
        ConfigError
            If the model was built without a query.
        """
        if self.query is None:
            raise ConfigError("REVE: built without a query to pool by", hint="set pools to true")
        score = tokens @ self.query / tokens.shape[-1] ** 0.5
        return (score.softmax(-1)[..., None] * tokens).sum(1)


def run_blocks(blocks: nn.ModuleList, tokens: Tensor) -> list[Tensor]:
    """Return tokens (B, N, D) as they enter, and after each block."""
    out = [tokens]
    for block in blocks:
        out.append(block(out[-1][:, None], None, None)[:, 0])
    return out


class REVEPretrainingConfig(Config):
    """Hyper-parameters of `REVEPretraining`.

    Parameters
    ----------
    encoder, decoder : REVEConfig
        Of the decoder only the blocks count.
    pooled_weight : float
        Of the loss of patches predicted from the pooled token, where the encoder pools.
    """

    encoder: REVEConfig
    decoder: REVEConfig
    pooled_weight: float = Field(default=0.1, ge=0)

    def build(self) -> REVEPretraining:
        """Build the model with fresh weights.

        Raises
        ------
        ConfigError
            If encoder and decoder differ in width, and there is a pooled token.
        """
        if self.encoder.pools and self.encoder.width != self.decoder.width:
            raise ConfigError(
                f"REVE: the encoder is {self.encoder.width} wide and the decoder "
                f"{self.decoder.width}",
                hint="the pooled token is decoded with the decoder's places: make them equal",
            )
        return REVEPretraining(self)


class REVEPretraining(nn.Module):
    """Masked patches predicted by a decoder, and by a pooled token alone.

    Parameters
    ----------
    config : REVEPretrainingConfig
        Hyper-parameters.
    """

    def __init__(self, config: REVEPretrainingConfig):
        super().__init__()
        width, length = config.encoder.width, config.encoder.patch_len
        inner = config.decoder.width
        self.config = config
        self.encoder = config.encoder.build()
        self.blocks = config.decoder.blocks()
        self.mask_token = nn.Parameter(0.02 * torch.randn(inner))
        self.to_decoder = self.place_to_decoder = self.widen = self.narrow = None
        if inner != width:
            self.to_decoder, self.place_to_decoder = (nn.Linear(width, inner) for _ in range(2))
        self.to_patch = nn.Linear(inner, length)
        if config.encoder.pools:
            self.widen = nn.Linear(width, 4 * width, bias=False)
            self.narrow = nn.Linear(4 * width, length)

    def decoder_input(
        self, encoded: Tensor, place: Tensor, visible: Tensor, masked: Tensor
    ) -> Tensor:
        """Return all tokens in order: those encoded and mask tokens, with their places.

        Parameters
        ----------
        encoded : Tensor, shape (B, n_visible, D)
            The encoder's output.
        place : Tensor, shape (B, N, D)
            Of all tokens.
        visible, masked : Tensor of int, shapes (B, n_visible), (B, n_masked)
            Which tokens these are.
        """
        if self.to_decoder is not None and self.place_to_decoder is not None:
            encoded, place = self.to_decoder(encoded), self.place_to_decoder(place)
        x = torch.empty_like(place)
        x.scatter_(1, visible[..., None].expand_as(encoded), encoded)
        mask = self.mask_token.expand(*masked.shape, -1)
        x = x.scatter(1, masked[..., None].expand_as(mask), mask)
        return x + place

    def decode(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """Predict masked patches (B, n_masked, L) from the decoder's output (B, N, D)."""
        return self.to_patch(take(tokens, masked))

    def from_pooled(self, pooled: Tensor, place: Tensor, masked: Tensor) -> Tensor:
        """Predict masked patches (B, n_masked, L) from one vector a window (B, D).

        Raises
        ------
        ConfigError
            If the model was built without a pooled token.
        """
        if self.widen is None or self.narrow is None:
            raise ConfigError(
                "REVE: built without a pooled token", hint="set encoder.pools to true"
            )
        x = pooled[:, None] + take(place, masked)
        return self.narrow(self.widen(x).relu())


def take(tokens: Tensor, which: Tensor) -> Tensor:
    """Return some tokens of (B, N, D), by their numbers (B, n)."""
    return tokens.gather(1, which[..., None].expand(-1, -1, tokens.shape[-1]))


# ---------------------------------------------------------------------------------------
# From the original


def encoder_config(constructor: Mapping[str, Any]) -> REVEConfig:
    """Return our config of an encoder, or of a decoder, from the original's arguments."""
    names = {
        "embed_dim": "width",
        "depth": "depth",
        "heads": "n_heads",
        "head_dim": "head_width",
        "mlp_dim_ratio": "mlp_ratio",
        "use_geglu": "gated",
        "freqs": "n_frequencies",
        "patch_size": "patch_len",
        "patch_overlap": "overlap",
        "noise_ratio": None,
    }
    return config_of(REVEConfig, constructor_values(constructor, names, model="REVE"), model="REVE")


def pretraining_config(constructor: Mapping[str, Any]) -> REVEPretrainingConfig:
    """Return our config of the masked auto-encoder from the original's arguments."""
    names = {
        "token_avg": "pools",
        "token_avg_lambda": "pooled_weight",
        **dict.fromkeys(("encoder", "decoder", "masking_ratio")),
    }
    values = constructor_values(constructor, names, model="REVE")
    pools = values.pop("pools", True)
    for part in ("encoder", "decoder"):
        values[part] = encoder_config(section(constructor, part, model="REVE"))
    values["encoder"] = values["encoder"].model_copy(update={"pools": pools})
    return config_of(REVEPretrainingConfig, values, model="REVE")


def block_rules(theirs: str, ours: str) -> list[Rule]:
    """Return the rules for a stack of blocks."""
    at = theirs + r"layers\.(\d+)\."
    to = ours + r"blocks.\1."
    return [
        (at + r"0\.norm\.weight", to + "norm_attention.weight"),
        (at + r"0\.to_qkv\.weight", to + "attention.project_in.weight"),
        (at + r"0\.to_out\.weight", to + "attention.project_out.weight"),
        (at + r"1\.net\.0\.weight", to + "norm_feedforward.weight"),
        (at + r"1\.net\.1\.weight", to + "feedforward.widen.weight"),
        (at + r"1\.net\.3\.weight", to + "feedforward.narrow.weight"),
    ]


def encoder_rules(theirs: str = "", ours: str = "") -> list[Rule]:
    """Return the rules for an encoder."""
    return [
        *block_rules(theirs + r"transformer\.", ours),
        (theirs + r"to_patch_embedding\.0\.(\w+)", ours + r"project.\1"),
        (theirs + r"mlp4d\.0\.weight", ours + "place.linear.weight"),
        (theirs + r"mlp4d\.2\.(\w+)", ours + r"place.norm_linear.\1"),
        (theirs + r"ln\.(\w+)", ours + r"place.norm.\1"),
        ("cls_query_token", ours + "query"),
    ]


def _flat(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: v.flatten() if n.endswith(("query", "mask_token")) else v for n, v in found.items()}


def encoder_weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map an encoder."""
    return _flat(rename(original, encoder_rules()))


def pretraining_weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the masked auto-encoder."""
    rules = [
        *encoder_rules(r"encoder\.", "encoder."),
        *block_rules(r"decoder\.", ""),
        ("mask_token", "mask_token"),
        (r"enc_to_dec\.(\w+)", r"to_decoder.\1"),
        (r"pos_enc_to_dec\.(\w+)", r"place_to_decoder.\1"),
        (r"to_pixels\.(\w+)", r"to_patch.\1"),
        (r"cls_to_pixels\.0\.weight", "widen.weight"),
        (r"cls_to_pixels\.2\.(\w+)", r"narrow.\1"),
    ]
    return _flat(rename(original, rules))


PARTS = ("nn.place_time", "nn.block", "nn.attention (full)")
PUBLISHED_REVE = {
    "REVE encoder": Published(
        from_constructor=encoder_config, weights=encoder_weights, parts=PARTS
    ),
    "REVE masked auto-encoder": Published(
        from_constructor=pretraining_config, weights=pretraining_weights, parts=PARTS
    ),
}

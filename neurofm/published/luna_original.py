"""LUNA's arguments and weights, from the names of the original to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from neurofm.errors import ConfigError
from neurofm.published.entry import (
    Published,
    Rule,
    config_of,
    constructor_values,
    norm_eps,
    rename,
)
from neurofm.published.luna import LUNAConfig

EPS = 1e-5


def from_constructor(constructor: Mapping[str, Any]) -> LUNAConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown, or has a value without a counterpart here.
    """
    names = {
        "patch_size": "patch_len",
        "num_queries": "n_queries",
        "embed_dim": "width",
        "depth": "depth",
        "num_heads": "n_heads",
        "mlp_ratio": "mlp_ratio",
        "num_classes": "n_classes",
        "norm_layer": None,
        "drop_path": None,
    }
    norm = constructor.get("norm_layer")
    if norm_eps(norm, model="LUNA") != EPS:
        raise ConfigError(
            f"LUNA: norm_layer = {norm!r} has no counterpart here",
            hint=f"every norm adds {EPS:g}, which LayerNorm does by default",
        )
    return config_of(LUNAConfig, constructor_values(constructor, names, model="LUNA"), model="LUNA")


def _attention(theirs: str, ours: str) -> list[Rule]:
    return [
        (theirs + r"in_proj_(weight|bias)", ours + r"project_in.\1"),
        (theirs + r"out_proj\.(\w+)", ours + r"project_out.\1"),
    ]


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    block, query = r"blocks\.(\d+)\.", r"cross_attn\.query_self_attn\.layers\.(\d+)\."
    layer = r"decoder_head\.decoder_pred\.layers\.0\."
    rules: list[Rule] = [
        ("mask_token", "mask_token"),
        (r"freq_embed\.frequency_to_embed\.fc1\.(\w+)", r"spectrum.widen.\1"),
        (r"freq_embed\.frequency_to_embed\.fc2\.(\w+)", r"spectrum.narrow.\1"),
        (r"channel_location_embedder\.0\.fc1\.(\w+)", r"place.0.\1"),
        (r"channel_location_embedder\.0\.norm\.(\w+)", r"place.2.\1"),
        (r"channel_location_embedder\.0\.fc2\.(\w+)", r"place.3.\1"),
        (r"cross_attn\.query_embed", "unify.queries"),
        (r"cross_attn\.queries_norm\.(\w+)", r"unify.norm_query.\1"),
        (r"cross_attn\.keys_norm\.(\w+)", r"unify.norm_key.\1"),
        (r"cross_attn\.values_norm\.(\w+)", r"unify.norm_value.\1"),
        *_attention(r"cross_attn\.cross_attention\.", "unify.cross."),
        (r"cross_attn\.ffn\.fc1\.(\w+)", r"unify.feedforward.widen.\1"),
        (r"cross_attn\.ffn\.norm\.(\w+)", r"unify.feedforward.norm.\1"),
        (r"cross_attn\.ffn\.fc2\.(\w+)", r"unify.feedforward.narrow.\1"),
        (query + r"self_attn\.in_proj_(\w+)", r"unify.blocks.\1.attention.project_in.\2"),
        (query + r"self_attn\.out_proj\.(\w+)", r"unify.blocks.\1.attention.project_out.\2"),
        (query + r"linear1\.(\w+)", r"unify.blocks.\1.feedforward.widen.\2"),
        (query + r"linear2\.(\w+)", r"unify.blocks.\1.feedforward.narrow.\2"),
        (query + r"norm1\.(\w+)", r"unify.blocks.\1.norm_attention.\2"),
        (query + r"norm2\.(\w+)", r"unify.blocks.\1.norm_feedforward.\2"),
        (block + r"norm1\.(\w+)", r"blocks.\1.norm_attention.\2"),
        (block + r"norm2\.(\w+)", r"blocks.\1.norm_feedforward.\2"),
        (block + r"attn\.qkv_proj\.(\w+)", r"blocks.\1.attention.project_in.\2"),
        (block + r"attn\.proj\.(\w+)", r"blocks.\1.attention.project_out.\2"),
        (block + r"mlp\.fc1\.(\w+)", r"blocks.\1.feedforward.widen.\2"),
        (block + r"mlp\.norm\.(\w+)", r"blocks.\1.feedforward.norm.\2"),
        (block + r"mlp\.fc2\.(\w+)", r"blocks.\1.feedforward.narrow.\2"),
        (r"norm\.(\w+)", r"norm.\1"),
        (r"channel_emb\.embeddings\.weight", "reconstruct.names.weight"),
        *_attention(layer + r"self_attn\.", "reconstruct.block.attention."),
        *_attention(layer + r"multihead_attn\.", "reconstruct.block.cross."),
        (layer + r"linear1\.(\w+)", r"reconstruct.block.feedforward.widen.\1"),
        (layer + r"linear2\.(\w+)", r"reconstruct.block.feedforward.narrow.\1"),
        (layer + r"norm1\.(\w+)", r"reconstruct.block.norm_attention.\1"),
        (layer + r"norm2\.(\w+)", r"reconstruct.block.norm_cross.\1"),
        (layer + r"norm3\.(\w+)", r"reconstruct.block.norm_feedforward.\1"),
        (r"decoder_head\.norm\.(\w+)", r"reconstruct.norm.\1"),
        (r"decoder_head\.decoder_linear\.fc1\.(\w+)", r"reconstruct.widen.\1"),
        (r"decoder_head\.decoder_linear\.fc2\.(\w+)", r"reconstruct.narrow.\1"),
        (r"classifier\.learned_agg", "classify.query"),
        *_attention(r"classifier\.decoder_attn\.", "classify.cross."),
        (r"classifier\.decoder_ffn\.fc1\.(\w+)", r"classify.widen.\1"),
        (r"classifier\.decoder_ffn\.fc2\.(\w+)", r"classify.narrow.\1"),
    ]
    for i in range(3):  # each convolution is followed by a norm and GELU
        at = r"patch_embed\.proj_in\."
        rules.append((at + rf"{3 * i}\.(\w+)", rf"convs.convs.{i}.\1"))
        rules.append((at + rf"{3 * i + 1}\.(\w+)", rf"convs.norms.{i}.\1"))
    unused = {
        r"cross_attn\.temparature": "in the state dict, and in no forward",
        r"blocks\.\d+\.attn\.rotary_emb\.\w+": "angles, which are computed here",
    }
    return _reshape(rename(original, rules, unused=unused))


def _reshape(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop axes of length one; cross-attention has its three maps apart."""
    out: dict[str, Tensor] = {}
    for name, value in found.items():
        if ".cross.project_in." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[name.replace("project_in", part)] = third
        elif name in ("mask_token", "classify.query"):
            out[name] = value.flatten()
        elif name == "unify.queries":
            out[name] = value.squeeze(0)
        elif name.startswith("convs.convs.") and value.ndim == 4:
            out[name] = value.squeeze(2)  # kernels of height one
        else:
            out[name] = value
    return out


PUBLISHED_LUNA = {
    "LUNA": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=(
            "nn.patch_convs",
            "nn.magnitude_phase",
            "nn.octaves",
            "nn.cross_attention",
            "nn.block",
            "nn.attention (full)",
            "nn.rotary",
        ),
    ),
}

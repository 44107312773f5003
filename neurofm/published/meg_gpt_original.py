"""MEG-GPT's arguments and weights, from the names of the original to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from neurofm.errors import ConfigError
from neurofm.published.entry import Published, Rule, constructor_values, rename
from neurofm.published.meg_gpt import LayerConfig, LookupConfig, MEGGPTConfig

_ONLY: dict[str, dict[str, Any]] = {
    "input_embedding": {"pos_embedding_type": "absolute"},
    "transformer_decoder": {"norm_type": "layer", "n_groups": None, "chan_attn_chandim": None},
}
_BY_LAYER = (
    "n_patches_out",
    "patch_len_out",
    "n_patches_in",
    "patch_len_in",
    "unpatched_len_in",
    "l_unpatched_b",
    "l_patched_b",
    "do_chan_attention",
    "do_cross_attention",
)
_TRAINING = (
    "full_channel_attention_dropout",
    "channel_attention_channel_dropout",
    "time_attention_channel_dropout",
    "dropout",
    # which channels may look at which is a buffer, and comes with the weights
    "chan_attention_mask",
)


def from_constructor(constructor: Mapping[str, Any]) -> MEGGPTConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown, or asks for what the released model does not have.
    """
    parts = ("input_embedding", "transformer_decoder")
    names = ("name", "sequence_length", "n_channels", *parts, "loss", "training")
    constructor_values(constructor, dict.fromkeys(names), model="MEG-GPT")
    for part, only in _ONLY.items():
        for name, value in only.items():
            if constructor[part].get(name, value) != value:
                raise ConfigError(
                    f"MEG-GPT {part}: {name} = {constructor[part][name]!r} has no counterpart here",
                    hint=f"the released model has {name} = {value!r}",
                )
    return MEGGPTConfig.model_validate({**_lookups(constructor), **_layers(constructor)})


def _lookups(constructor: Mapping[str, Any]) -> dict[str, Any]:
    given = constructor["input_embedding"]
    names: dict[str, str | None] = {
        "n_tokens": "n_codes",
        "embedding_dim": "lookup_width",
        "token_embedding_dim": "codes",
        "pos_embedding_dim": "times",
        "channel_embedding_dim": "channels",
        "extra_label_specs": "labels",
        **dict.fromkeys(("pos_embedding_type", "rope_base")),
    }
    values = constructor_values(given, names, model="MEG-GPT input_embedding")
    rows = {
        "codes": values.pop("n_codes"),
        "times": constructor["sequence_length"],
        "channels": constructor["n_channels"],
    }
    for name, n_rows in rows.items():
        values[name] = LookupConfig(n_rows=n_rows, width=values.get(name))
    values["labels"] = tuple(
        LookupConfig(n_rows=label["n_classes"], width=label.get("label_dim"))
        for label in values.get("labels") or ()
    )
    return values


def _layers(constructor: Mapping[str, Any]) -> dict[str, Any]:
    given = constructor["transformer_decoder"]
    names: dict[str, str | None] = {
        "n_heads": "n_heads",
        "model_dim": "width",
        "feed_forward_dim": "hidden",
        "feed_forward_activation": "activation",
        **dict.fromkeys((*_BY_LAYER, *_TRAINING, *_ONLY["transformer_decoder"])),
    }
    values = constructor_values(given, names, model="MEG-GPT transformer_decoder")
    if values.get("activation") == "swish":
        values["activation"] = "silu"
    columns = zip(*(given[name] for name in _BY_LAYER), strict=True)
    values["layers"] = tuple(_layer(dict(zip(_BY_LAYER, row, strict=True))) for row in columns)
    return values


def _layer(given: Mapping[str, Any]) -> LayerConfig:
    if given["do_cross_attention"] and not given["do_chan_attention"]:
        raise ConfigError(
            "MEG-GPT: do_cross_attention without do_chan_attention has nothing to gather from",
            hint="switch both on, or both off, layer by layer",
        )
    channels = "before" if given["do_chan_attention"] else "apart"
    return LayerConfig.model_validate(
        {
            "n_out": given["n_patches_out"] * given["patch_len_out"],
            "n_patches": given["n_patches_in"],
            "patch_len": given["patch_len_in"],
            "n_recent": given["unpatched_len_in"],
            "band": given["l_patched_b"],
            "recent_band": given["l_unpatched_b"],
            "channels": "beside" if given["do_cross_attention"] else channels,
        }
    )


def _attention(theirs: str, ours: str) -> list[Rule]:
    rules: list[Rule] = [
        (theirs + r"query_projection\.(\w+)", ours + r"query.\2"),
        (theirs + r"output_projection\.(\w+)", ours + r"project_out.\2"),
        (theirs + r"gasp_layer\.attention_mask", ours + "sees"),
    ]
    for part, name in (("k", "key"), ("v", "value")):
        rules += [
            (theirs + rf"patched_projection_{part}\.(\w+)", ours + rf"{name}.\2"),
            (theirs + rf"patch_projection_{part}\.(\w+)", ours + rf"merge_{name}.\2"),
            (theirs + rf"unpatched_projection_{part}\.(\w+)", ours + rf"recent_{name}.\2"),
        ]
    return rules


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names; masks say what is seen, not what is not."""
    layer, to = r"transformer_decoder\.layers\.(\d+)\.", r"layers.\1."
    rules: list[Rule] = [
        (r"prediction_head\.(\w+)", r"head.\1"),
        (r"transformer_decoder\.input_projection\.(\w+)", r"project_in.\1"),
        (layer + r"norm_time1\.norm_layer\.(\w+)", to + r"norm_time.\2"),
        (layer + r"norm_time2\.norm_layer\.(\w+)", to + r"norm_feedforward.\2"),
        (layer + r"norm_chan1\.norm_layer\.(\w+)", to + r"channels.norm_attention.\2"),
        (layer + r"norm_chan2\.norm_layer\.(\w+)", to + r"channels.norm_feedforward.\2"),
        (layer + r"ff_time\.net\.0\.(\w+)", to + r"feedforward.widen.\2"),
        (layer + r"ff_time\.net\.2\.(\w+)", to + r"feedforward.narrow.\2"),
        (layer + r"ff_chan\.net\.0\.(\w+)", to + r"channels.feedforward.widen.\2"),
        (layer + r"ff_chan\.net\.2\.(\w+)", to + r"channels.feedforward.narrow.\2"),
        *_attention(layer + r"gasp_time_attention\.", to + "time."),
        *_attention(layer + r"gasp_chan_attention\.", to + "channels.attention."),
        *_attention(layer + r"gasp_cross_attention\.", to + "cross."),
    ]
    for theirs, ours in (
        (r"(token)_embed", "codes"),
        (r"(pos)_embed", "times"),
        (r"(channel)_embed", "channels"),
        (r"extra_embeds\.(\d+)", r"labels.\1"),
    ):
        at = r"input_embedding_layer\." + theirs
        rules.append((at + r"\.base_module\.\w+", ours + ".table.weight"))
        rules.append((at + r"\.proj\.(\w+)", ours + r".project.\2"))
    found = rename(original, rules)
    return {name: ~value if name.endswith(".sees") else value for name, value in found.items()}


PUBLISHED_MEG_GPT = {
    "MEG-GPT": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=("nn.patched_attention", "nn.feedforward"),
    ),
}

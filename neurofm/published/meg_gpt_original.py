"""MEG-GPT's arguments and weights, from the names of the original to ours."""

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
    rename,
    section,
)
from neurofm.published.meg_gpt import LayerConfig, MEGGPTConfig

MODEL = "MEG-GPT"
_TIMES = {"absolute": "learned", "sinusoidal": "sinusoidal", "rope": "rotary"}
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
        If an argument is unknown, or asks for what has no counterpart here.
    """
    parts = ("input_embedding", "transformer_decoder")
    names = ("name", "sequence_length", "n_channels", *parts, "loss", "training")
    constructor_values(constructor, dict.fromkeys(names), model=MODEL)
    layers = _layers(constructor)
    n_times = constructor.get("sequence_length") or layers["layers"][0].n_in
    values = {**_lookups(constructor, n_times), **layers}
    return config_of(MEGGPTConfig, values, model=MODEL)


def _lookups(constructor: Mapping[str, Any], n_times: int) -> dict[str, Any]:
    names: dict[str, str | None] = {
        "n_tokens": "n_codes",
        "embedding_dim": "lookup_width",
        "token_embedding_dim": "codes",
        "pos_embedding_dim": "times",
        "pos_embedding_type": "time",
        "rope_base": "rotary_base",
        "channel_embedding_dim": "channels",
        "extra_label_specs": "labels",
    }
    given = section(constructor, "input_embedding", model=MODEL)
    values = constructor_values(
        given, names, model=f"{MODEL} input_embedding", defaults={"pos_embedding_type": "absolute"}
    )
    values["time"] = _TIMES.get(values["time"], values["time"])
    rows = {
        "codes": values.pop("n_codes", None),
        "times": n_times,
        "channels": constructor.get("n_channels"),
    }
    for name, n_rows in rows.items():
        values[name] = {"n_rows": n_rows, "width": values.get(name)}
    values["labels"] = [
        {"n_rows": label.get("n_classes"), "width": label.get("label_dim")}
        for label in values.get("labels") or ()
    ]
    return values


def _layers(constructor: Mapping[str, Any]) -> dict[str, Any]:
    names: dict[str, str | None] = {
        "n_heads": "n_heads",
        "model_dim": "width",
        "feed_forward_dim": "hidden",
        "feed_forward_activation": "activation",
        "chan_attn_chandim": "n_channel_keys",
        **dict.fromkeys((*_BY_LAYER, *_TRAINING)),
    }
    values = constructor_values(
        section(constructor, "transformer_decoder", model=MODEL),
        names,
        model=f"{MODEL} transformer_decoder",
        defaults={"n_heads": 1, "feed_forward_activation": "relu"},
        only={"norm_type": "layer", "n_groups": None},
    )
    if values["activation"] == "swish":
        values["activation"] = "silu"
    columns = _columns(constructor)
    rows = zip(*columns.values(), strict=True)
    values["layers"] = [_layer(dict(zip(columns, row, strict=True))) for row in rows]
    return values


def _columns(constructor: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what is said layer by layer; what a layer gives out may follow from the next."""
    given = dict(constructor["transformer_decoder"])
    if given.get("n_patches_out") is None:
        last = section(constructor, "loss", model=MODEL).get("loss_sequence_length")
        given["n_patches_out"] = [*(given.get("n_patches_in") or ())][1:] + [last]
        given["patch_len_out"] = [*(given.get("patch_len_in") or ())][1:] + [1]
    columns = {name: given.get(name) for name in _BY_LAYER}
    lengths = {len(column) if isinstance(column, list) else 0 for column in columns.values()}
    if len(lengths) > 1 or not all(lengths):
        raise ConfigError(
            f"{MODEL} transformer_decoder: {columns} do not say the same number of layers",
            hint=f"give a list with one value a layer for each of {', '.join(_BY_LAYER)}",
        )
    return {name: column for name, column in columns.items() if column is not None}


def _layer(given: Mapping[str, Any]) -> LayerConfig:
    if given["do_cross_attention"] and not given["do_chan_attention"]:
        raise ConfigError(
            "MEG-GPT: do_cross_attention without do_chan_attention has nothing to gather from",
            hint="switch both on, or both off, layer by layer",
        )
    channels = "before" if given["do_chan_attention"] else "apart"
    recent_band = given["l_unpatched_b"]
    if recent_band is None:  # as the original has it, which is not no band at all
        recent_band = given["n_patches_in"] * given["patch_len_in"]
    values = {
        "n_out": given["n_patches_out"] * given["patch_len_out"],
        "n_patches": given["n_patches_in"],
        "patch_len": given["patch_len_in"],
        "n_recent": given["unpatched_len_in"],
        "band": given["l_patched_b"],
        "recent_band": recent_band,
        "channels": "beside" if given["do_cross_attention"] else channels,
    }
    return config_of(LayerConfig, values, model=f"{MODEL} transformer_decoder")


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
        (layer + r"chan_att_dim_proj\.(\w+)", to + r"channels.mix.\2"),
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

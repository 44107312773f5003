"""LaBraM's arguments and weights, from the names of the original to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neurofm.published.entry import (
    Published,
    Rule,
    config_of,
    constructor_values,
    norm_eps,
    rename,
)
from neurofm.published.labram import Form, LaBraMConfig

NAMES: dict[str, str | None] = {
    "patch_size": "patch_len",
    "in_chans": "n_in",
    "out_chans": "n_filters",
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "n_heads",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
    "qk_norm": "qk_norm",
    "norm_layer": "norm",
    "init_values": "layer_scale",
    # what says nothing about the numbers of evaluation
    **dict.fromkeys(
        ("EEG_size", "drop_rate", "attn_drop_rate", "drop_path_rate", "init_scale", "init_std")
    ),
}
OF_FORM: dict[Form, dict[str, str | None]] = {
    "finetuning": {"num_classes": "n_out", "use_mean_pooling": "mean_pooling"},
    "pretraining": {"vocab_size": "n_out"},
}
DEFAULTS: dict[Form, dict[str, Any]] = {
    "finetuning": {"num_classes": 1000},
    "pretraining": {"vocab_size": 8192, "qkv_bias": True},
}
ONLY = {
    "use_abs_pos_emb": True,
    "use_rel_pos_bias": False,
    "use_shared_rel_pos_bias": False,
    "qk_scale": None,
    "attn_head_dim": None,
}


def from_constructor(
    constructor: Mapping[str, Any], form: Form, *, model: str = "LaBraM"
) -> LaBraMConfig:
    """Return our config from the original's arguments.

    A part with another number of channels in than one takes features in place of samples.

    Raises
    ------
    ConfigError
        If an argument is unknown, or asks for what LaBraM's weights never had.
    """
    values = constructor_values(
        constructor,
        {**NAMES, **OF_FORM[form]},
        model=model,
        defaults={"in_chans": 1, **DEFAULTS[form]},
        only=ONLY,
    )
    n_in = values.pop("n_in")
    if n_in != 1:
        values |= {"n_filters": None, "patch_len": n_in}
    qk_norm = values.pop("qk_norm", None)
    if qk_norm is not None:
        values["qk_norm_eps"] = norm_eps(qk_norm, model=model)
    values["qk_norm"] = None if qk_norm is None else "layer"
    values["norm_eps"] = norm_eps(values.pop("norm", None), model=model)
    values["layer_scale"] = values.get("layer_scale") or None
    values["pooling"] = "mean" if values.pop("mean_pooling", True) else "class"
    found = config_of(LaBraMConfig, {**values, "form": form}, model=model)
    # the original's heads leave out what the width has left over
    head_width = found.width // found.n_heads
    return found.model_copy(update={"head_width": head_width}) if head_width else found


def trunk_rules(ours: str = "", theirs: str = "") -> list[Rule]:
    """Return the rules for one encoder, whose names begin with a prefix on each side."""
    rules: list[Rule] = [
        (theirs + "cls_token", ours + "class_token"),
        (theirs + "mask_token", ours + "mask_token"),
        (theirs + "pos_embed", ours + "names"),
        (theirs + "time_embed", ours + "times"),
        (theirs + r"patch_embed\.proj\.(\w+)", ours + r"convs.\1"),
        (theirs + r"(?:fc_norm|norm)\.(\w+)", ours + r"norm.\1"),
        (theirs + r"head\.(\w+)", ours + r"head.\1"),
    ]
    block = theirs + r"blocks\.(\d+)\."
    for pattern, to in (
        (r"norm1\.(\w+)", r"norm_attention.\2"),
        (r"norm2\.(\w+)", r"norm_feedforward.\2"),
        (r"attn\.qkv\.weight", r"attention.project_in.weight"),
        (r"attn\.(q|v)_bias", r"attention.\2_bias"),  # joined below
        (r"attn\.(q|k)_norm\.(\w+)", r"attention.norm_\2.\3"),
        (r"attn\.proj\.(\w+)", r"attention.project_out.\2"),
        (r"gamma_1", r"scale_attention"),
        (r"gamma_2", r"scale_feedforward"),
        (r"mlp\.fc1\.(\w+)", r"feedforward.widen.\2"),
        (r"mlp\.fc2\.(\w+)", r"feedforward.narrow.\2"),
    ):
        rules.append((block + pattern, ours + r"blocks.\1." + to))
    for i in (1, 2, 3):
        at = theirs + r"patch_embed\."
        rules.append((at + rf"conv{i}\.(\w+)", ours + rf"convs.convs.{i - 1}.\1"))
        rules.append((at + rf"norm{i}\.(\w+)", ours + rf"convs.norms.{i - 1}.\1"))
    return rules


def reshape(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give renamed weights our shapes: drop axes of length one, join offsets of q, k and v."""
    out: dict[str, Tensor] = {}
    for name, value in found.items():
        last = name.rsplit(".", 1)[-1]
        if last in ("class_token", "mask_token"):
            out[name] = value.flatten()
        elif last in ("names", "times"):
            out[name] = value.squeeze(0)
        elif ".convs." in f".{name}" and value.ndim == 4:
            # kernels of height one; a 1 x 1 convolution is a linear map
            out[name] = value.flatten(1) if value.shape[-1] == 1 else value.squeeze(2)
        elif last == "v_bias" and (q_bias := name.replace("v_bias", "q_bias")) in found:
            joined = (found[q_bias], torch.zeros_like(value), value)
            out[name.replace("v_bias", "project_in.bias")] = torch.cat(joined)
        elif last != "q_bias":
            out[name] = value
    return out


def encoder_weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the fine-tuning form."""
    return reshape(rename(original, trunk_rules()))


def masked_weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the pretraining form; two heads that the original never calls are left out."""
    unused = {
        r"student\.lm_head\.\w+": "a second head that no forward uses",
        r"projection_head\.0\.\w+": "belongs to an objective that was dropped",
    }
    rules = [*trunk_rules(theirs=r"student\."), (r"lm_head\.(\w+)", r"head.\1")]
    return reshape(rename(original, rules, unused=unused))


PARTS = ("nn.patch_convs", "nn.block", "nn.attention (full)")
PUBLISHED_LABRAM = {
    "LaBraM encoder (fine-tuning form)": Published(
        from_constructor=lambda constructor: from_constructor(constructor, "finetuning"),
        weights=encoder_weights,
        parts=PARTS,
    ),
    "LaBraM masked code modelling": Published(
        from_constructor=lambda constructor: from_constructor(constructor, "pretraining"),
        weights=masked_weights,
        parts=PARTS,
    ),
}

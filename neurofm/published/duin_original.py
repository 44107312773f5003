"""Du-IN's arguments and weights, from the names of the original to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neurofm.published.duin import DuINConfig, StackConfig
from neurofm.published.entry import Rule, config_of, constructor_values, section

MODEL = "Du-IN"

# what the original could also be told to do, and no published weights were made with
_ONLY: dict[str, dict[str, Any]] = {
    "subj": {"use_proj": False},
    "desubj": {"use_proj": False},
    "encoder": {"res_attn": False, "rot_theta": None, "norm_first": False},
    "decoder": {"res_attn": False, "rot_theta": None, "norm_first": False},
    "rgs": {"d_hidden": []},
    "contra": {"loss_mode": "unicl"},
}
_EVERY_LAYER = {
    "tokenizer": {"dilation_rates": 1, "use_bn": True, "use_res": False, "pool_sizes": 1},
    "rgs": {"dilation_rates": 1},
}
_PARTS = ("subj", "tokenizer", "encoder", "decoder", "vq", "rgs", "desubj", "cls", "contra")


def part_values(
    constructor: Mapping[str, Any], part: str, names: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return what one part of the original's arguments says, under our names.

    Raises
    ------
    ConfigError
        If the part is lacking, an argument is unknown, or it asks for what Du-IN's weights never
        had.
    """
    given = section(constructor, part, model=MODEL)
    n_layers = len(given.get("n_filters", ()))
    each = {name: [value] * n_layers for name, value in _EVERY_LAYER.get(part, {}).items()}
    only = {**_ONLY.get(part, {}), **each}
    return constructor_values(given, names, model=f"{MODEL} {part}", only=only)


def layers(prefix: str = "") -> dict[str, str]:
    """Return our names of what is said layer by layer of convolutions."""
    names = {"n_filters": "filters", "kernel_sizes": "kernels", "n_strides": "strides"}
    return {theirs: prefix + ours for theirs, ours in names.items()}


def stack_from(constructor: Mapping[str, Any], part: str) -> StackConfig:
    """Return the config of a stack of blocks."""
    names = {
        "d_model": "width",
        "n_blocks": "depth",
        "n_heads": "n_heads",
        "d_head": "head_width",
        "d_ff": "hidden",
        **dict.fromkeys(("emb_len", "attn_dropout", "proj_dropout", "ff_dropout")),
    }
    values = part_values(constructor, part, names)
    return config_of(StackConfig, values, model=f"{MODEL} {part}")


def trunk_from(constructor: Mapping[str, Any]) -> DuINConfig:
    """Return the config of the encoder, with the arguments of other parts unread."""
    subject = {"n_subjects": "n_subjects", "d_input": "n_channels", "d_output": "n_virtual"}
    values = part_values(constructor, "subj", {**subject, "use_bias": "subject_bias"})
    tokenizer = {
        "seg_len": "patch_len",
        **layers(),
        **dict.fromkeys(("grad_scale", "d_neural", "d_model", "token_len")),
    }
    values |= part_values(constructor, "tokenizer", tokenizer)
    values["encoder"] = stack_from(constructor, "encoder")
    return config_of(DuINConfig, values, model=MODEL)


def check_arguments(constructor: Mapping[str, Any]) -> None:
    """Refuse arguments that the original does not have."""
    sizes = ("n_subjects", "n_channels", "seq_len", "seg_len", "n_labels", "mask_ratio")
    scales = ("cls_loss_scale", "contra_loss_scale", "rgs_loss_scale", "vq_loss_scale")
    known = dict.fromkeys((*sizes, *scales, *_PARTS))
    constructor_values(constructor, known, model=MODEL)


UNUSED = {
    r"emb_time\.time_encodings": "sines and cosines, which are computed here",
    r".*\.mha\.attention\.scale": "one over the root of a head's width, and not trained",
}


def stack_rules(theirs: str, ours: str) -> list[Rule]:
    """Return the rules for one stack; queries, keys and values are joined by `join`."""
    block, to = theirs + r"\.1\.xfmr_blocks\.(\d+)\.", ours + r".blocks.\1."
    return [
        (block + r"mha\.W_(q|k|v)\.W\.(\w+)", to + r"attention.\2_\3"),
        (block + r"mha\.norm_(q|k)\.(\w+)", to + r"attention.norm_\2.\3"),
        (block + r"mha\.proj\.0\.(\w+)", to + r"attention.project_out.\2"),
        (block + r"norm_mha\.(\w+)", to + r"norm_attention.\2"),
        (block + r"norm_ffn\.(\w+)", to + r"norm_feedforward.\2"),
        (block + r"ffn\.fc1\.0\.(\w+)", to + r"feedforward.widen.\2"),
        (block + r"ffn\.fc2\.0\.(\w+)", to + r"feedforward.narrow.\2"),
    ]


def head_rules(original: Mapping[str, Tensor]) -> list[Rule]:
    """Return the rules for a head, whose layers count what flattens and drops among them."""
    at = r"cls_block\.cls_head\.(\d+)\.0\.weight"
    numbers = sorted(int(match[1]) for match in (re.fullmatch(at, n) for n in original) if match)
    return [
        (rf"cls_block\.cls_head\.{number}\.0\.(\w+)", rf"head.layers.{i}.\1")
        for i, number in enumerate(numbers)
    ]


def trunk_rules(ours: str = "encoder") -> list[Rule]:
    """Return the rules for the encoder."""
    return [
        *stack_rules("encoder", ours + ".stack"),
        (r"subj_block\.subj_layer\.W\.weight", ours + ".subjects.weight"),
        (r"subj_block\.subj_layer\.B\.weight", ours + ".subjects.bias"),
        (r"tokenizer\.conv_blocks\.(\d+)\.0\.1\.(\w+)", ours + r".convs.convs.\1.\2"),
        (r"tokenizer\.conv_blocks\.(\d+)\.1\.1\.(\w+)", ours + r".convs.norms.\1.\2"),
    ]


def join(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give renamed weights our shapes: subjects first; queries, keys and values in one map.

    Whatever lacks its counterpart stays as it is named, and is refused by that name later.
    """
    out = dict(found)
    for name, value in found.items():
        match = re.fullmatch(r"(.*attention\.)q_(weight|bias)", name)
        parts = [f"{match[1]}{part}_{match[2]}" for part in "qkv"] if match else []
        if match and all(part in found for part in parts):
            out[f"{match[1]}project_in.{match[2]}"] = torch.cat([out.pop(part) for part in parts])
        elif name.endswith("subjects.bias"):
            out[name] = value.T
        elif name.endswith("subjects.weight"):
            first = found.get(name.removesuffix("subjects.weight") + "convs.convs.0.weight")
            if first is not None:
                out[name] = per_subject(value, n_out=first.shape[1])
    return out


def per_subject(weight: Tensor, *, n_in: int = -1, n_out: int = -1) -> Tensor:
    """Map a weight (n_in n_out, n_subjects), channels out fast, to (n_subjects, n_in, n_out)."""
    return weight.T.unflatten(1, (n_in, n_out))

"""SimpleConv's arguments and weights, from the names of the original to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from neurofm.errors import ConfigError
from neurofm.published.entry import Published, Rule, config_of, constructor_values, rename
from neurofm.published.simpleconv import SimpleConvConfig

MODEL = "SimpleConv"
BOOST = 5.0  # the original keeps layer scales divided by this, so that they learn faster
NAMES: dict[str, str | None] = {
    "in_channels": "n_channels",
    "out_channels": "n_out",
    "hidden": "width",
    "depth": "depth",
    "kernel_size": "kernel",
    "growth": "growth",
    "dilation_growth": "dilation_growth",
    "dilation_period": "dilation_period",
    "dropout": "dropout",
    "merger": "merger",
    "merger_channels": "n_merged",
    "merger_pos_dim": "merger_features",
    "initial_linear": "n_initial",
    "initial_depth": "initial_depth",
    "initial_nonlin": "initial_bend",
    "n_subjects": "n_subjects",
    "subject_layers": "subject_layers",
    "subject_layers_dim": "subject_layers_dim",
    "subject_dim": "subject_width",
    "embedding_scale": "subject_scale",
    "glu": "glu_every",
    "glu_context": "glu_context",
    "scale": "layer_scale",
    "gelu": "gelu",
    "relu_leakiness": "leak",
    "complex_out": "complex",
    "linear_out": "linear",
    "skip": "skip",
    "batch_norm": "batch_norm",
    # of training alone, or of how weights are first drawn
    **dict.fromkeys(("conv_dropout", "dropout_input", "dropout_rescale", "subject_layers_id")),
    **dict.fromkeys(("merger_dropout", "merger_penalty")),
}
DEFAULTS = {
    "depth": 4,
    "kernel_size": 5,
    "merger_pos_dim": 256,
    "merger_channels": 270,
    "subject_dim": 64,
}
ONLY = {
    "concatenate": False,
    "post_skip": False,
    "rewrite": False,
    "groups": 1,
    "glu_glu": True,
    "dual_path": 0,
    "n_fft": None,
    "fft_complex": True,
    "merger_per_subject": False,
    "subsample_meg_channels": 0,
}
MATRICES = {"input": "square", "hidden": "to_width"}


def from_constructor(constructor: Mapping[str, Any]) -> SimpleConvConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown or has no counterpart here, or more than one kind of signal is
        asked for.
    """
    values = constructor_values(constructor, NAMES, model=MODEL, defaults=DEFAULTS, only=ONLY)
    for name, theirs in (("n_channels", "in_channels"), ("width", "hidden")):
        given = values.get(name)
        if not isinstance(given, Mapping) or list(given) != ["meg"]:
            raise ConfigError(
                f"SimpleConv: {theirs} = {given!r} has no counterpart here",
                hint=f"give {theirs} of meg alone, which may be any kind of signal",
            )
        values[name] = given["meg"]
    if values.pop("gelu", False):
        values["leak"] = None
    if not values.pop("merger", False):
        values["n_merged"] = 0
    # dropping channels also silences those without a position, in evaluation too
    values["drops_unlocated"] = values.pop("dropout", 0.0) > 0
    values["dilation_period"] = values.get("dilation_period") or 0
    matrix = values.pop("subject_layers_dim", "input")
    has_matrix = values.pop("subject_layers", False)
    values["subject_matrix"] = MATRICES.get(matrix, matrix) if has_matrix else "none"
    linear, complex_ = values.pop("linear", False), values.pop("complex", False)
    values["out"] = "linear" if linear else "complex" if complex_ else "none"
    return config_of(SimpleConvConfig, values, model=MODEL)


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    rules: list[Rule] = [
        (r"merger\.heads", "merger.heads"),
        (r"subject_layers\.weights", "subject_matrix"),
        (r"subject_embedding\.embedding\.weight", "subject_vector.weight"),
        (r"encoders\.meg\.sequence\.(\d+)\.\d+\.scale", r"blocks.\1.scale"),
        *_normed(original),
        (r"encoders\.meg\.sequence\.(\d+)\.\d+\.(\w+)", r"blocks.\1.conv.\2"),
        (r"encoders\.meg\.glus\.(\d+)\.0\.(\w+)", r"gates.\1.\2"),
        (r"final\.0\.(\w+)", r"final.widen.\1"),
        (r"final\.2\.(\w+)", r"final.narrow.\1"),
        (r"final\.(weight|bias)", r"final.\1"),
    ]
    first = {name.split(".")[1] for name in original if name.startswith("initial_linear.")}
    for i, number in enumerate(sorted(first, key=int)):  # bends are counted too
        rules.append((rf"initial_linear\.{number}\.(\w+)", rf"initial.{i}.\1"))
    found = rename(original, rules)
    for name in [n for n in found if n.endswith(".scale")]:
        found[name] = BOOST * found[name]
    return found


def _normed(original: Mapping[str, Tensor]) -> list[Rule]:
    """Return the rules for norms, whose number depends on what is dropped before them."""
    rules: list[Rule] = []
    for name in original:
        match = re.fullmatch(r"encoders\.meg\.sequence\.(\d+)\.(\d+)\.running_mean", name)
        if match:
            at = rf"encoders\.meg\.sequence\.{match[1]}\.{match[2]}\.(\w+)"
            rules.append((at, rf"blocks.{match[1]}.norm.\1"))
    return rules


PUBLISHED_SIMPLECONV = {
    "SimpleConv (brain decoder with spatial merger and subject layer)": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=("nn.spatial_merger", "published.simpleconv"),
    ),
}

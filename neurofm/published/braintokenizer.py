"""BrainTokenizer of BrainOmni (Xiao et al., NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from neurofm.published.entry import Published, Rule, config_of, constructor_values, rename
from neurofm.tokenizers.brain_parts import BrainPartsConfig

N_KINDS = 3  # EEG 0, magnetometer 1, gradiometer 2, as in the code; the paper swaps the last two

NAMES = {
    "window_length": "window_len",
    "n_filters": "n_filters",
    "ratios": "ratios",
    "kernel_size": "kernel",
    "last_kernel_size": "last_kernel",
    "n_dim": "width",
    "n_head": "n_heads",
    "n_neuro": "n_sources",
    "codebook_size": "n_codes",
    "num_quantizers": "n_levels",
    "rotation_trick": "gradient",
    "codebook_dim": "code_width",
    "dropout": None,
    "mask_ratio": None,
    "noise_std": None,
}
ONLY = {"quantize_optimize_method": "ema"}


def from_constructor(constructor: Mapping[str, Any]) -> BrainPartsConfig:
    """Return our config from the original's arguments."""
    values = constructor_values(constructor, NAMES, model="BrainTokenizer", only=ONLY)
    if "gradient" in values:
        values["gradient"] = "rotation" if values["gradient"] else "straight_through"
    values |= {"n_kinds": N_KINDS, "unknown": False}
    return config_of(BrainPartsConfig, values, model="BrainTokenizer")


def rules(ours: str = "", theirs: str = "", n_ratios: int = 3) -> list[Rule]:
    """Return the rules for one tokenizer, whose names begin with a prefix on each side.

    The original numbers the layers of its networks one after another; activations count.
    """
    out: list[Rule] = []
    for side, net, first_unit in (
        ("encoder", "seanet_encoder", 1),
        ("decoder", "seanet_decoder", 4),
    ):
        at = theirs + rf"{side}\.{net}\.model\."
        to = ours + f"{side}."
        end = 3 * n_ratios
        recurrent = end + 1 if side == "encoder" else 1
        out += _conv(at + "0", to + "first")
        out += _conv(at + str(end + 3), to + "last")
        out.append((at + rf"{recurrent}\.lstm\.(\w+)", to + r"recurrent.lstm.\1"))
        for i in range(n_ratios):
            unit = at + str(first_unit + 3 * i)
            out += _conv(unit + r"\.block\.1", to + f"units.{i}.first")
            out += _conv(unit + r"\.block\.3", to + f"units.{i}.second")
            out += _conv(unit + r"\.shortcut", to + f"units.{i}.shortcut")
            out += _conv(
                at + str(3 * i + 3), to + ("down" if side == "encoder" else "up") + f".{i}"
            )
    attention = (
        (r"encoder\.neuros", "to_sources.queries"),
        (r"encoder\.k_proj\.(\w+)", r"to_sources.key.\1"),
        (r"encoder\.backwardsolution\.v\.(\w+)", r"to_sources.value.\1"),
        (r"encoder\.backwardsolution\.proj\.(\w+)", r"to_sources.project_out.\1"),
        (r"decoder\.forwardsolution\.kv\.(\w+)", r"to_sensors.key_value.\1"),
        (r"decoder\.forwardsolution\.proj\.(\w+)", r"to_sensors.project_out.\1"),
        (r"quantizer\.rvq\.layers\.(\d+)\.project_(in|out)\.(\w+)", r"codes.map_\2.\1.\3"),
        (r"quantizer\.rvq\.layers\.(\d+)\._codebook\.embed", r"codes.levels.\1.vectors"),
        (r"quantizer\.rvq\.layers\.(\d+)\._codebook\.embed_avg", r"codes.levels.\1.total"),
        (r"quantizer\.rvq\.layers\.(\d+)\._codebook\.cluster_size", r"codes.levels.\1.count"),
        (r"quantizer\.rvq\.layers\.(\d+)\._codebook\.inited", r"codes.levels.\1.started"),
        (r"sensor_embed\.pos_embedding_layer\.0\.(\w+)", r"sensors.widen.\1"),
        (r"sensor_embed\.pos_embedding_layer\.2\.(\w+)", r"sensors.narrow.\1"),
        (r"sensor_embed\.sensor_embedding_layer\.weight", "sensors.kinds.weight"),
        (r"sensor_embed\.aggregate_mlp\.layer\.0\.(\w+)", r"sensors.mix.widen.\1"),
        (r"sensor_embed\.aggregate_mlp\.layer\.2\.(\w+)", r"sensors.mix.narrow.\1"),
        (r"sensor_embed\.norm\.weight", "sensors.norm.weight"),
    )
    return out + [(theirs + pattern, ours + to) for pattern, to in attention]


def _conv(theirs: str, ours: str) -> list[Rule]:
    """Return the rules for a weight-normalised convolution, transposed or not."""
    at = theirs + r"\.conv(?:tr)?\.conv(?:tr)?\."
    weight = ours + ".conv.parametrizations.weight.original"
    return [
        (at + "bias", ours + ".conv.bias"),
        (at + "weight_g", weight + "0"),
        (at + "weight_v", weight + "1"),
    ]


def n_ratios_of(original: Mapping[str, Tensor], theirs: str = "") -> int:
    """Count the strides of a tokenizer by its transposed convolutions."""
    start = theirs + "decoder.seanet_decoder.model."
    return sum(n.startswith(start) and n.endswith("convtr.bias") for n in original)


def as_flags(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make flags of the numbers that say a codebook has begun."""
    return {n: v.bool().squeeze() if n.endswith(".started") else v for n, v in found.items()}


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    return as_flags(rename(original, rules(n_ratios=n_ratios_of(original))))


PUBLISHED_BRAINTOKENIZER = {
    "BrainTokenizer": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=(
            "tokenizers.brain_parts",
            "nn.seanet",
            "nn.sensor_embedding",
            "nn.latent_sources",
            "nn.residual_codes",
        ),
    ),
}

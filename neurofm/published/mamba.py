"""The mixers of `mamba_ssm`: our parts have their weight names, so nothing is renamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config, parse_config
from neurofm.nn.mamba1 import Mamba1Config
from neurofm.nn.mamba2 import Mamba2Config
from neurofm.published.entry import Published, constructor_values

# What has no influence on the numbers of given weights: which kernels run, where, in which layer,
# and how weights were first drawn.
IGNORED: dict[str, str | None] = dict.fromkeys(
    ("use_fast_path", "use_mem_eff_path", "layer_idx", "device", "dtype")
    + ("dt_init", "dt_scale", "dt_init_floor", "conv_init")
)
MAMBA1 = ("d_state", "d_conv", "expand", "dt_rank", "bias", "conv_bias", "dt_min", "dt_max")
MAMBA2 = (
    *("d_state", "d_conv", "expand", "headdim", "d_ssm", "ngroups", "rmsnorm", "bias"),
    *("conv_bias", "D_has_hdim", "norm_before_gate", "chunk_size", "dt_min", "dt_max", "dt_limit"),
    "A_init_range",
)


# what the original takes where nothing is said, and our configs do not
DEFAULTS: dict[str, dict[str, Any]] = {"mamba1": {}, "mamba2": {"d_state": 128, "headdim": 64}}


class MixerConfig(Config):
    """A mixer by itself.

    Parameters
    ----------
    width : int
        Features of a token.
    mixer : Mamba1Config or Mamba2Config
        Its hyper-parameters.
    """

    width: int = Field(ge=1)
    mixer: Mamba1Config | Mamba2Config = Field(discriminator="name")

    def build(self) -> nn.Module:
        """Build the mixer with fresh weights."""
        return self.mixer.build(self.width)


def mixer_config(version: str, constructor: Mapping[str, Any]) -> MixerConfig:
    """Return our config of a mixer from the arguments of `mamba_ssm`.

    Raises
    ------
    ConfigError
        If an argument is unknown or has a wrong value.
    """
    names = {**IGNORED, "d_model": "width"}
    names |= {name: name for name in (MAMBA1 if version == "mamba1" else MAMBA2)}
    values = constructor_values(constructor, names, model=version)
    width = values.pop("width", None)
    if values.get("dt_rank") == "auto":
        del values["dt_rank"]
    if "dt_limit" in values:
        least, greatest = (float(limit) for limit in values["dt_limit"])
        values["dt_limit"] = [least, None if greatest == float("inf") else greatest]
    values = {"width": width, "mixer": {"name": version, **DEFAULTS[version], **values}}
    return parse_config(MixerConfig, values, where=f"constructor of {version}")


def same_names(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as they are."""
    return dict(original)


PUBLISHED_MAMBA = {
    "Mamba block (v1)": Published(
        from_constructor=lambda constructor: mixer_config("mamba1", constructor),
        weights=same_names,
        parts=("nn.mamba1", "nn.selective_scan"),
    ),
    "Mamba-2 block": Published(
        from_constructor=lambda constructor: mixer_config("mamba2", constructor),
        weights=same_names,
        parts=("nn.mamba2", "nn.ssd"),
    ),
}

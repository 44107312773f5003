"""BaRISTA (Oganesian et al., NeurIPS 2025): intracranial channels placed by atlas tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.backbones.transformer import TransformerConfig
from neurofm.config import Config
from neurofm.errors import ConfigError, SignalError
from neurofm.nn.dilated_convs import DilatedConvs
from neurofm.published.entry import (
    Published,
    Rule,
    config_of,
    constructor_values,
    rename,
    section,
)
from neurofm.signals import Grid

# rows of the tables: left, inferior and posterior coordinates; parcels; lobes. Row 0 of the
# last two stands for a channel whose region is not known.
TABLES = {"coords": (200, 200, 200), "destrieux": (121,), "lobes": (21,)}


class BaRISTAConfig(Config):
    """Hyper-parameters of `BaRISTA`.

    Parameters
    ----------
    patch_len : int
        Samples in a patch; 512 at 2048 Hz.
    width : int
        Features of a token.
    conv_depth, n_filters, kernel : int
        Of the dilated convolutions.
    tables : "coords", "destrieux" or "lobes"
        What places a channel.
    backbone : TransformerConfig
        Full attention, with rotary time.
    n_tokens, n_out : int
        Tokens of a segment and classes of the downstream head; 0 leaves it out.
    """

    patch_len: int = Field(default=512, ge=1)
    width: int = Field(default=64, ge=2)
    conv_depth: int = Field(default=4, ge=1)
    n_filters: int = Field(default=5, ge=1)
    kernel: int = Field(default=3, ge=1)
    tables: str = Field(default="destrieux", pattern="^(coords|destrieux|lobes)$")
    backbone: TransformerConfig
    n_tokens: int = Field(default=0, ge=0)
    n_out: int = Field(default=0, ge=0)

    def build(self) -> BaRISTA:
        """Build the model with fresh weights."""
        return BaRISTA(self)


class BaRISTA(nn.Module):
    """Tokens of patches and places, and a transformer over all of a segment.

    Parameters
    ----------
    config : BaRISTAConfig
        Hyper-parameters.
    """

    def __init__(self, config: BaRISTAConfig):
        super().__init__()
        self.config = config
        self.convs = DilatedConvs(config.conv_depth, config.n_filters, config.kernel)
        self.project = nn.Linear(config.patch_len, config.width, bias=False)
        self.tables = nn.ModuleList(
            nn.Embedding(rows, config.width) for rows in TABLES[config.tables]
        )
        self.backbone = config.backbone.build(config.width)
        self.pool = self.head = None
        if config.n_out:
            self.pool = nn.Linear(config.n_tokens, 1, bias=False)
            self.head = nn.Linear(config.width, config.n_out)

    def place(self, rows: Tensor) -> Tensor:
        """Return the place (C, D) of channels from their rows in each table (C, n_tables)."""
        found = [table(rows[:, i]) for i, table in enumerate(self.tables)]
        return torch.stack(found).sum(0)

    def grid(self, signal: Tensor, rows: Tensor) -> Grid:
        """Make tokens.

        Parameters
        ----------
        signal : Tensor, shape (B, C, T)
            Standardised by segment; a tail that fills no patch is left out.
        rows : Tensor of int, shape (C, n_tables)
            Rows in the tables.

        Returns
        -------
        Grid
            One site a channel.

        Raises
        ------
        SignalError
            If a segment holds no patch.
        """
        length = self.config.patch_len
        if signal.shape[-1] < length:
            raise SignalError(
                f"BaRISTA: segments of {signal.shape[-1]} samples hold no patch of {length}"
            )
        patches = signal.unfold(-1, length, length)
        content = self.project(self.convs(patches.flatten(0, 2)[:, None])[:, 0])
        return Grid(
            content=content.unflatten(0, patches.shape[:3]),
            place=self.place(rows)[None, :, None].expand(len(signal), -1, -1, -1),
            present=torch.ones(patches.shape[:3], dtype=torch.bool, device=signal.device),
        )

    def forward(self, signal: Tensor, rows: Tensor) -> Tensor:
        """Encode segments as `grid` takes them; tokens (B, C, P, D)."""
        return self.backbone(self.grid(signal, rows)).content

    def classify(self, tokens: Tensor) -> Tensor:
        """Return class scores (B, n_out): a learned mean over tokens (B, C, P, D), a linear map.

        Raises
        ------
        ConfigError
            If the model was built without a head.
        """
        if self.pool is None or self.head is None:
            raise ConfigError("BaRISTA: built without a head", hint="give n_tokens and n_out")
        flat = tokens.transpose(1, 2).flatten(1, 2)  # time slow, channels fast
        return self.head(self.pool(flat.transpose(1, 2))[..., 0])


# ---------------------------------------------------------------------------------------
# From the original


MODEL = "BaRISTA"
ACTIVATIONS = {"gelu": "geglu", "silu": "swiglu"}


def from_constructor(constructor: Mapping[str, Any]) -> BaRISTAConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown or asks for what the original's weights do not hold, or those of
        a part are lacking.
    """
    parts = dict.fromkeys(("backbone", "tokenizer", "sessions"))
    names = {**parts, "downstream_outputs": "n_out"}
    top = constructor_values(constructor, names, model=MODEL)
    given = section(constructor, "tokenizer", model=MODEL)
    length = given.get("temporal_subsegment_len")
    tokenizer = constructor_values(
        given,
        {
            "temporal_subsegment_len": "patch_len",
            "samp_frequency": "sfreq",
            "num_seconds": "n_s",
            "d_hidden": "width",
            "spatial_grouping": "tables",
            "temporal_encoder": None,
            "embedding_init_scale": None,
        },
        model=f"{MODEL} tokenizer",
        only={
            "temporal_subsegment_step": length,
            "add_spatial_encoding": True,
            "embedding_max_dim": None,
        },
    )
    convs = constructor_values(
        section(given, "temporal_encoder", model=f"{MODEL} tokenizer"),
        {
            "depth": "conv_depth",
            "hidden_dims": "n_filters",
            "kernel_size": "kernel",
            "enable_checkpointing": None,
        },
        model=f"{MODEL} temporal_encoder",
        only={"input_dims": 1, "output_dims": 1, "stride": 1},
    )
    sfreq, n_s = tokenizer.pop("sfreq", 0), tokenizer.pop("n_s", 0)
    values = {**tokenizer, **convs, "n_out": top.get("n_out") or 0}
    if values["n_out"]:
        first: Mapping[str, Any] = next(iter(constructor.get("sessions") or ()), {})
        n_patches = int(sfreq * n_s) // int(length or 1)
        values["n_tokens"] = n_patches * first.get("channels", 0)
    backbone = section(constructor, "backbone", model=MODEL)
    values["backbone"] = _backbone(backbone, values.get("width"))
    return config_of(BaRISTAConfig, values, model=MODEL)


def _backbone(constructor: Mapping[str, Any], width: int | None) -> TransformerConfig:
    names = {
        "num_layers": "depth",
        "num_heads": "n_heads",
        "mlp_ratio": "mlp_ratio",
        "norm_eps": "norm_eps",
        "activation": "activation",
        "max_position": None,
        "dropout": "dropout",
    }
    values = constructor_values(
        constructor,
        names,
        model=f"{MODEL} backbone",
        only={"norm": "rmsnorm", **dict.fromkeys(("d_hidden", "d_input", "d_out"), width)},
    )
    if width and "mlp_ratio" in values:  # rounded down there, to the nearest by our backbone
        values["mlp_ratio"] = int(width * values["mlp_ratio"]) / width
    bend = str(values.get("activation"))
    values["activation"] = ACTIVATIONS.get(bend, bend)
    values |= {"attention": "full", "norm": "rms", "rotary_base": 10_000.0}
    return config_of(TransformerConfig, values, model=f"{MODEL} backbone")


def weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    layer = r"backbone\.layers\.(\d+)\."
    net = r"tokenizer\.temporal_encoder\.feature_extractor\.net\.(\d+)\."
    rules: list[Rule] = [
        (layer + r"attention\.qkv_proj\.(\w+)", r"backbone.blocks.\1.attention.project_in.\2"),
        (layer + r"attention\.o_proj\.(\w+)", r"backbone.blocks.\1.attention.project_out.\2"),
        (layer + r"norm1\.weight", r"backbone.blocks.\1.norm_attention.weight"),
        (layer + r"norm2\.weight", r"backbone.blocks.\1.norm_feedforward.weight"),
        (layer + r"mlp\.(up|gate)_proj\.(\w+)", r"backbone.blocks.\1.feedforward.\2.\3"),
        (layer + r"mlp\.down_proj\.(\w+)", r"backbone.blocks.\1.feedforward.narrow.\2"),
        (r"backbone\.norm\.weight", "backbone.norm.weight"),
        (r"tokenizer\.spatial_encoder\.subcomponent_embeddings\.(\d)\.weight", r"tables.\1.weight"),
        (net + r"conv1\.conv\.(\w+)", r"convs.blocks.\1.first.conv.\2"),
        (net + r"conv2\.conv\.(\w+)", r"convs.blocks.\1.second.conv.\2"),
        (net + r"projector\.(\w+)", r"convs.blocks.\1.project.\2"),
        (r"tokenizer\.temporal_pooler\.final_layer\.weight", "project.weight"),
        (r"channel_weights\.weight", "pool.weight"),
        (r"binary_classifier\.(\w+)", r"head.\1"),
    ]
    unused = {
        layer + r"attention\.rotary_emb\.\w+": "a table that is computed here",
        r"tokenizer\.spatial_encoder\.\w+_queryvec": "rows of the sessions it was trained on",
    }
    found = rename(original, rules, unused=unused)
    for name in [n for n in found if n.startswith("convs.") and n.endswith("weight")]:
        found[name] = found[name].squeeze(2)  # kernels of height one
    for name in [n for n in found if ".feedforward.up." in n]:
        gate = name.replace(".up.", ".gate.")
        if gate in found:  # or else it is refused as it is named
            joined = torch.cat((found.pop(name), found.pop(gate)))
            found[name.replace(".up.", ".widen.")] = joined
    return found


PUBLISHED_BARISTA = {
    f"BaRISTA ({scale})": Published(
        from_constructor=from_constructor,
        weights=weights,
        parts=("nn.dilated_convs", "backbones.transformer (full)"),
    )
    for scale in ("channels", "parcels", "lobes")
}

"""LaBraM (Jiang et al., ICLR 2024): a table of electrode names, a transformer over all patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.attention import AttentionStyle
from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.norm import NormName
from neurofm.nn.patch_convs import PatchConvs
from neurofm.published.entry import Published, Rule, constructor_values, rename

N_GROUPS = 4
N_NAMES = 129  # 128 electrode names, and one row before them for the class token
N_PATCHES = 16
EPS = 1e-6
Form = Literal["finetuning", "pretraining"]


class LaBraMConfig(Config):
    """Hyper-parameters of `LaBraM`.

    Parameters
    ----------
    patch_len : int
        Samples in a patch; 200, at 200 Hz.
    width : int
        Features of a token: filters times 25 steps.
    n_filters : int
        Filters of the temporal convolutions. None takes features in place of samples, through
        one linear map: the form of the tokenizer's decoder.
    depth, n_heads : int
        Blocks, and heads of each.
    mlp_ratio : float
        Hidden features of the feed-forward layer, as a multiple of the width.
    qkv_bias : bool
        Whether queries and values have offsets; keys never do.
    qk_norm : "layer", optional
        Normalise queries and keys.
    layer_scale : float, optional
        Start value of the factors of what a block adds.
    n_out : int
        Classes, or codes; 0 leaves the head out.
    form : "finetuning" or "pretraining"
        Mean pooling, then a norm and a head; or a norm and scores of every patch, with a mask
        token.
    """

    patch_len: int = Field(default=200, ge=1)
    width: int = Field(default=200, ge=1)
    n_filters: int | None = Field(default=8, ge=1)
    depth: int = Field(default=12, ge=1)
    n_heads: int = Field(default=10, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    qkv_bias: bool = False
    qk_norm: NormName | None = "layer"
    layer_scale: float | None = 0.1
    n_out: int = Field(default=0, ge=0)
    form: Form = "finetuning"

    def build(self) -> LaBraM:
        """Build the model with fresh weights.

        Raises
        ------
        ConfigError
            If the filters' output is not as wide as a token.
        """
        return LaBraM(self)


class LaBraM(nn.Module):
    """Encoder, with a class token that is counted as the first.

    In the fine-tuning form the class token has the place of row 0 of the names; in the published
    pretraining form that of the first channel. Both are kept, since weights depend on them.

    Parameters
    ----------
    config : LaBraMConfig
        Hyper-parameters.
    """

    def __init__(self, config: LaBraMConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.convs: nn.Module
        if config.n_filters is None:
            self.convs = nn.Linear(config.patch_len, width)
        else:
            self.convs = _patch_convs(config.n_filters, config)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.names = nn.Parameter(torch.zeros(N_NAMES, width))
        self.times = nn.Parameter(torch.zeros(N_PATCHES, width))
        style = BlockStyle(
            norm_eps=EPS,
            attention=AttentionStyle(bias=config.qkv_bias, qk_norm=config.qk_norm, norm_eps=EPS),
            layer_scale=config.layer_scale,
        )
        hidden = round(width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(width, config.n_heads, attention="full", hidden=hidden, style=style)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, config.n_out) if config.n_out else nn.Identity()
        pretraining = config.form == "pretraining"
        self.mask_token = nn.Parameter(torch.zeros(width)) if pretraining else None

    def embed(self, patches: Tensor) -> Tensor:
        """Map patches (B, C, P, patch_len) to tokens (B, C P, D) without place."""
        return self.convs(patches.flatten(1, 2))

    def place(self, x: Tensor, names: Tensor, n_patches: int) -> Tensor:
        """Add places to tokens (B, C P, D) and put the class token before them."""
        channel, time = self.names[names], self.times[:n_patches]
        x = x + (channel[1:, None] + time).flatten(0, 1)
        first = channel[1] if self.config.form == "pretraining" else channel[0]
        start = (self.class_token + first).expand(len(x), 1, -1)
        return torch.cat((start, x), dim=1)

    def encode(self, patches: Tensor, names: Tensor, hide: Tensor | None = None) -> Tensor:
        """Encode patches.

        Parameters
        ----------
        patches : Tensor, shape (B, C, P, patch_len)
            Microvolts divided by 100, at 200 Hz.
        names : Tensor of int, shape (1 + C,)
            Zero for the class token, then one plus each channel's index among LaBraM's names.
        hide : Tensor of bool, shape (B, C P), optional
            Patches whose tokens the mask token replaces; only in the pretraining form.

        Returns
        -------
        Tensor, shape (B, 1 + C P, D)
            After the last block, before the norm.

        Raises
        ------
        ConfigError
            If there are more patches than the table of times has rows, or nothing to hide with.
        """
        if patches.shape[2] > N_PATCHES:
            raise ConfigError(
                f"LaBraM: {patches.shape[2]} patches in a window; its table of times ends at "
                f"{N_PATCHES}",
                hint=f"cut windows of at most {N_PATCHES} s",
            )
        x = self.embed(patches)
        if hide is not None:
            if self.mask_token is None:
                raise ConfigError(
                    "LaBraM: the fine-tuning form has no mask token",
                    hint="build it with form: pretraining",
                )
            x = torch.where(hide[..., None], self.mask_token, x)
        x = self.place(x, names, patches.shape[2])[:, None]  # a grid of one site
        for block in self.blocks:
            x = block(x, None, None)
        return x[:, 0]

    def forward(self, patches: Tensor, names: Tensor, hide: Tensor | None = None) -> Tensor:
        """Return class scores (B, n_out), or in the pretraining form scores (B, C P, n_out)."""
        x = self.encode(patches, names, hide)
        if self.config.form == "pretraining":
            return self.head(self.norm(x)[:, 1:])
        return self.head(self.pool(x))

    def pool(self, x: Tensor) -> Tensor:
        """Return the normalised mean of all but the class token, (B, D)."""
        return self.norm(x[:, 1:].mean(1))


def _patch_convs(n_filters: int, config: LaBraMConfig) -> PatchConvs:
    convs = PatchConvs(
        n_filters,
        N_GROUPS,
        kernels=(15, 3, 3),
        strides=(8, 1, 1),
        paddings=(7, 1, 1),
        filters_fast=True,
    )
    if convs.n_features(config.patch_len) != config.width:
        raise ConfigError(
            f"LaBraM: {n_filters} filters give {convs.n_features(config.patch_len)} features of a "
            f"patch, and width is {config.width}",
            hint=f"set width to {convs.n_features(config.patch_len)}",
        )
    return convs


# ---------------------------------------------------------------------------------------
# From the original

# what says nothing about the numbers of evaluation, or has one value that we build in
_FIXED = dict.fromkeys(
    ("EEG_size", "in_chans", "drop_rate", "attn_drop_rate", "drop_path_rate", "init_scale")
)

_ONLY = {
    "use_mean_pooling": True,
    "use_abs_pos_emb": True,
    "use_rel_pos_bias": False,
    "use_shared_rel_pos_bias": False,
}


def from_constructor(constructor: Mapping[str, Any], form: Form) -> LaBraMConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown, or asks for what LaBraM's weights never had.
    """
    names = {
        **_FIXED,
        "patch_size": "patch_len",
        "embed_dim": "width",
        "out_chans": "n_filters",
        "depth": "depth",
        "num_heads": "n_heads",
        "mlp_ratio": "mlp_ratio",
        "qkv_bias": "qkv_bias",
        "qk_norm": "qk_norm",
        "init_values": "layer_scale",
        "num_classes": "n_out",
        "vocab_size": "n_out",
        "norm_layer": None,
        "qk_scale": None,
        **dict.fromkeys(_ONLY),
    }
    for name, only in _ONLY.items():
        if constructor.get(name, only) is not only:
            raise ConfigError(
                f"LaBraM: {name} = {constructor[name]!r} has no counterpart here",
                hint=f"every published LaBraM has {name} = {only}",
            )
    values = constructor_values(constructor, names, model="LaBraM")
    values["qk_norm"] = "layer" if values.get("qk_norm") else None
    values["layer_scale"] = values.get("layer_scale") or None
    values.setdefault("n_filters", None)
    return LaBraMConfig.model_validate({**values, "form": form})


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
        elif last == "q_bias":
            joined = (value, torch.zeros_like(value), found[name[: -len("q_bias")] + "v_bias"])
            out[name[: -len("q_bias")] + "project_in.bias"] = torch.cat(joined)
        elif last != "v_bias":
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

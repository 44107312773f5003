"""Encoders of every part, small windows, and what is done to both."""

import itertools
from dataclasses import replace

import pytest
import torch

from neurofm.backbones.table import BACKBONES
from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.sensors import text_code
from neurofm.signals import Batch
from neurofm.tokenizers.place import PLACES
from neurofm.tokenizers.table import TOKENIZERS

CONTRACT = SignalContract(sfreq=50, band_hz=(0.5, 25), window_s=2)
# attention along one axis only is no backbone of its own: tests/backbones has its properties
MIXES = ("full", "criss_cross", "split_halves", "swapped_halves", "factorised")
MAMBA1 = {"name": "mamba1", "d_state": 4}
MAMBA2 = {"name": "mamba2", "d_state": 8, "headdim": 8}
VARIANTS = {
    "transformer": {mix: {"depth": 2, "n_heads": 4, "attention": mix} for mix in MIXES}
    | {
        "causal": {"depth": 2, "n_heads": 4, "attention": "full", "causal": True},
        "linear": {"depth": 2, "n_heads": 4, "attention": "linear", "time": "learned"},
        "waves": {"depth": 2, "n_heads": 4, "time": "sinusoid"},
        "convolved": {"depth": 2, "n_heads": 4, "time": "conv"},
        "summary": {"depth": 2, "n_heads": 4, "attention": "full", "n_summary": 2},
    },
    "mamba": {
        "version_1": {"depth": 1, "mixer": MAMBA1, "scan": "time_within_site"},
        "version_2": {"depth": 1, "mixer": MAMBA2, "scan": "site_within_time"},
        "per_site": {"depth": 1, "mixer": MAMBA2, "scan": "per_site", "norm_place": "post"},
        "hybrid": {"depth": 3, "mixer": MAMBA2, "attention_every": 2, "n_heads": 4},
    },
    "pyramid": {
        "past": {"n_heads": 4, "layers": [{}, {"group": 2, "near": 2, "sites": True}]},
        "both_sides": {
            "n_heads": 4,
            "causal": False,
            "layers": [{"sites": True}, {"group": 4, "near": 2}],
        },
    },
}
MIXERS = [(b, v) for b in BACKBONES for v in VARIANTS[b]]
TABLE = [(t, *mixer) for t, mixer in itertools.product(TOKENIZERS, MIXERS)]
# what a property needs: every tokenizer with every backbone, its variants in turn, and every variant
_BY_BACKBONE = [[(b, v) for v in VARIANTS[b]] for b in BACKBONES]
COVER = [("linear_patch", *mixer) for mixer in MIXERS] + [
    (t, *variants[i % len(variants)])
    for i, t in enumerate(TOKENIZERS)
    for variants in _BY_BACKBONE
    if t != "linear_patch"
]
every_encoder = pytest.mark.parametrize("parts", COVER, ids="-".join)


PLACE_VALUES = {name: {"name": name} for name in PLACES} | {
    "regions": {"name": "regions", "regions": ["V1", "M1", "hippocampus"]}
}
every_place = pytest.mark.parametrize("place", PLACES)
NAMES = ("Fp1", "Cz", "mag:1", "seeg:Cz", "Oz", "Pz", "T7", "T8")
TOKENIZER_VALUES = {
    "du_in": {"per": "montage", "channels": {"anyone": NAMES}},
    "merged_patch": {"n_virtual": 6, "n_waves": 8},
}
REGIONS = ("V1", "", "M1", "V2", "V1", "V1", "M1", "hippocampus")


def build_encoder(
    parts=("linear_patch", "transformer", "criss_cross"), place="fourier", padding="mask", **changes
):
    tokenizer, backbone, variant = parts
    values = {
        "width": 32,
        "padding": padding,
        "tokenizer": {
            "name": tokenizer,
            "patch_s": 0.4,
            "place": PLACE_VALUES[place],
            **TOKENIZER_VALUES.get(tokenizer, {}),
        },  # fmt: skip
        "backbone": {"name": backbone, **VARIANTS[backbone][variant], **changes},
    }
    torch.manual_seed(0)
    return parse_config(EncoderConfig, values, where="test").build(CONTRACT)


def make_windows(n_channels=5, n_windows=2, n_times=100, seed=0):
    """Channels of several kinds; the second is not located, the third is a coil."""
    draw = torch.Generator().manual_seed(seed)
    shape = (n_windows, n_channels)
    kind = torch.tensor([0, 0, 2, 5, 1, 6, 3, 7])[:n_channels].expand(shape)
    located = torch.ones(shape, dtype=torch.bool)
    located[:, 1:2] = False
    normal = torch.nn.functional.normalize(torch.randn(*shape, 3, generator=draw), dim=-1)
    return Batch(
        signal=torch.randn(*shape, n_times, generator=draw),
        position=0.05 * torch.randn(*shape, 3, generator=draw) * located[..., None],
        orientation=normal,
        kind=kind,
        located=located,
        oriented=(kind == 2) | (kind == 1),
        present=torch.ones(shape, dtype=torch.bool),
        sfreq=50.0,
        name_code=torch.tensor([text_code(n) for n in NAMES[:n_channels]]).expand(shape),
        region_code=torch.tensor([text_code(r) for r in REGIONS[:n_channels]]).expand(shape),
    )


def take_channels(batch, index):
    tensors = {k: v[:, index] for k, v in vars(batch).items() if torch.is_tensor(v)}
    return replace(batch, **tensors)


def with_value(batch, name, index, value):
    changed = getattr(batch, name).clone()
    changed[index] = value
    return replace(batch, **{name: changed})


def encode(encoder, batch, hide=None):
    with torch.no_grad():
        return encoder.eval()(batch, hide)


def differ(a, b, atol=1e-4):
    return float((a - b).detach().abs().max()) > atol


def shape_of(encoder, batch):
    """Windows, sites and patches of the grid."""
    with torch.no_grad():
        return tuple(encoder.tokenizer(batch).present.shape)


def sites_are_channels(parts):
    """Whether a channel is a site, and has the same number."""
    several = {"plane_patch", "merged_patch", "luna", "brain_tokenizer", "du_in"}
    return parts[0] not in several


def replace_windows(batch, index):
    tensors = {k: v[index : index + 1] for k, v in vars(batch).items() if torch.is_tensor(v)}
    return replace(batch, **tensors)


def replace_all(batch, index):
    """Make every window the same as one of them."""
    tensors = {
        k: v[index : index + 1].expand(len(batch), *v.shape[1:])
        for k, v in vars(batch).items()
        if torch.is_tensor(v)
    }
    return replace(batch, **tensors)

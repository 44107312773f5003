"""No value of a config is ignored: each changes weights, or what comes out of training with them."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from encoder_cases import CONTRACT, NAMES, make_windows

from neurofm.backbones.table import BACKBONES
from neurofm.config import parse_config
from neurofm.encoder import EncoderConfig
from neurofm.nn.mamba1 import Mamba1Config
from neurofm.nn.mamba2 import Mamba2Config
from neurofm.sensors import text_code
from neurofm.tokenizers.table import TOKENIZERS
from neurofm.tokenizers.trainable import TRAINABLE

SMALL = {"inner": 16, "n_heads": 2, "depth": 1, "n_codes": 12, "code_width": 8}
WHOLE = {"frozen": True, "discrete": True}  # tokens are made of codes, by all there is
BASES = {
    "luna": {"inner": 16},
    "merged_patch": {"n_virtual": 5, "n_waves": 4},
    "brain_tokenizer": {
        "inner": 16, "n_filters": 4, "n_sources": 5, "n_codes": 8, "n_levels": 2, "ratios": [5, 4],
        "discrete": True,
    },
    "vqnsp": SMALL | WHOLE,
    "du_in": SMALL | WHOLE | {"per": "montage", "channels": {"anyone": NAMES}, "n_filters": 8},
    "annealed_samples": {"inner": 8, "n_codes": 12},
    "transformer": {"depth": 2, "n_heads": 4},
    "mamba": {"depth": 2, "n_heads": 4, "mixer": {"name": "mamba2", "headdim": 8, "d_state": 8}},
    "pyramid": {"n_heads": 4, "layers": [{}, {"group": 2, "near": 2, "sites": True}]},
}  # fmt: skip
CODES = {
    "levels": [3, 4], "n_codes": 9, "code_width": 4, "decay": 0.5, "commitment": 2.0, "gradient": "rotation",
    "revive_below": 8.0,
}  # fmt: skip
STACKS = {"inner": 24, "n_heads": 4, "depth": 3, "decoder_depth": 2, "mlp_ratio": 3.0}
OTHERS = {
    "linear_patch": {},
    "conv_patch": {"n_filters": 4, "kernel": 7, "stride": 4},
    "plane_patch": {"n_channels": 3},
    "merged_patch": {"n_virtual": 4, "n_waves": 3, "subject_layer": True},
    "luna": {
        "inner": 24, "n_queries": 3, "n_heads": 4, "n_filters": 4, "norm_over": "window"
    },
    "labram_conv": {"norm_over": "window", "n_filters": 4},
    "cbramod_conv": {"norm_over": "window", "n_filters": 10},
    "strided_conv": {"n_filters": 8, "kernels": [3, 5, 2, 2], "strides": [2, 2, 2, 2]},
    "dilated_conv": {"depth": 3, "n_filters": 4, "kernel": 5},
    "stft": {"frame_s": 0.2, "hop_s": 0.2, "taper": "hann", "values": "log_power"},
    "multi_scale_spectra": {"n_scales": 2},
    "brain_tokenizer": {
        "ratios": [5, 2], "n_filters": 6, "kernel": 3, "last_kernel": 3, "inner": 24, "n_heads": 2,
        "n_sources": 4, "n_levels": 1, "n_codes": 6, "gradient": "straight_through",
        "revive_below": 8.0, "straight": False, "discrete": False, "frozen": True,
    },
    "vqnsp": CODES | STACKS | {"n_filters": 4, "layer_scale": 0.1, **dict.fromkeys(WHOLE, False)},
    "du_in": CODES | STACKS | {
        "channels": {"anyone": (*NAMES, "X1")}, "n_regions": 3, "n_filters": 4, "batch_norm": True,
        **dict.fromkeys(WHOLE, False),
    },
    "mu_law_samples": {"embed": 3, "n_codes": 200},
    "quantile_samples": {"embed": 3, "n_codes": 99},
    "annealed_samples": {
        "embed": 3, "n_codes": 9, "inner": 6, "n_layers": 2, "recurrent": "lstm", "kernel": 5,
        "frozen": True,
    },
    "transformer": {
        "depth": 3, "n_heads": 2, "mlp_ratio": 3.0, "dropout": 0.5, "attention": "full",
        "norm": "rms", "norm_eps": 0.5, "norm_place": "post", "qk_norm": "layer",
        "activation": "silu", "bias": False, "layer_scale": 0.1, "drop_path": 0.5, "causal": True,
        "time": "sinusoid", "rotary_base": 5.0, "time_rows": 99, "time_kernel": 5, "n_summary": 2,
    },
    "mamba": {
        "depth": 1, "mixer": {"name": "mamba1"}, "bidirectional": False,
        "scan": "site_within_time", "norm": "rms", "norm_place": "post", "dropout": 0.5,
        "attention_every": 2, "attention": "full", "n_heads": 2, "mlp_ratio": 3.0,
    },
    "pyramid": {
        "layers": [{}], "n_heads": 2, "mlp_ratio": 3.0, "dropout": 0.5, "norm": "rms",
        "activation": "silu", "causal": False, "rotary": False, "rotary_base": 5.0,
    },
    "mamba1": {
        "d_state": 4, "d_conv": 3, "expand": 1, "dt_rank": 5, "bias": True, "conv_bias": False,
        "dt_min": 0.05, "dt_max": 0.5,
    },
    "mamba2": {
        "d_state": 4, "d_conv": 3, "expand": 1, "headdim": 16, "d_ssm": 32, "ngroups": 2,
        "rmsnorm": False, "bias": True, "conv_bias": False, "D_has_hdim": True,
        "norm_before_gate": True, "dt_min": 0.05, "dt_max": 0.5, "dt_limit": [0.0, 0.01],
        "A_init_range": [2.0, 3.0],
    },
}  # fmt: skip
# where a value counts only beside another
BESIDE = {
    ("stft", "hop_s"): {"frame_s": 0.1},
    ("brain_tokenizer", "patch_s"): {"ratios": [5]},
    ("transformer", "time_rows"): {"time": "learned"},
    ("transformer", "time_kernel"): {"time": "conv"},
    ("mamba", "attention"): {"attention_every": 1},
    ("mamba", "n_heads"): {"attention_every": 1},
    ("mamba", "mlp_ratio"): {"attention_every": 1},
    ("merged_patch", "subject_layer"): {"subjects": ["toy_sub-1"]},
    ("vqnsp", "levels"): {"n_codes": 12, "code_width": 2},
    ("du_in", "levels"): {"n_codes": 12, "code_width": 2},
    ("vqnsp", "frozen"): {"discrete": False},
    ("du_in", "frozen"): {"discrete": False},
}
# whose part in what comes out other tests have: owners and unseen ones; steps at a time; one value
ELSEWHERE = {
    "name", "subjects", "unseen", "per", "chunk_size",
    *(f"{name}.spectrum" for name, config in TOKENIZERS.items()
      if config.model_fields["spectrum"].annotation is not bool),
}  # fmt: skip
MIXERS = {"mamba1": Mamba1Config, "mamba2": Mamba2Config}
FAMILIES = {**TOKENIZERS, **BACKBONES, **MIXERS}
SHARED = {"patch_s": 0.2, "spectrum": True, "place": {"name": "names"}}
FIXED_PLACE = {"plane_patch", "merged_patch", "luna", "brain_tokenizer", "du_in"}


def fields_of(name):
    for field in FAMILIES[name].model_fields:
        fixed = field == "place" and name in FIXED_PLACE
        if not fixed and field not in ELSEWHERE and f"{name}.{field}" not in ELSEWHERE:
            yield field


CASES = [(name, field) for name in FAMILIES for field in fields_of(name)]


def config_of(name, **values):
    parts = {
        "tokenizer": {"name": "linear_patch", "patch_s": 0.4},
        "backbone": {"name": "transformer", "depth": 1, "n_heads": 4},
    }
    if name in MIXERS:
        mixer = {"name": name, **({"headdim": 8} if name == "mamba2" else {}), **values}
        parts["backbone"] = {"name": "mamba", "depth": 1, "mixer": mixer}
    else:
        part = "tokenizer" if name in TOKENIZERS else "backbone"
        length = {"patch_s": 0.4} if part == "tokenizer" else {}
        parts[part] = {"name": name, **length, **BASES.get(name, {}), **values}
    return parse_config(EncoderConfig, {"width": 32, **parts}, where="test")


def trained(module, run):
    """Return all that a step of training leaves: weights, gradients, and the loss."""
    torch.manual_seed(1)
    module.train()
    loss = run(module)
    if loss.requires_grad:
        loss.backward()
    gradients = {f"{n} learns": p.grad for n, p in module.named_parameters() if p.grad is not None}
    return {**module.state_dict(), **gradients, "loss": loss.detach()}


def what_comes_of(name, **values):
    config, batch = config_of(name, **values), make_windows()
    batch = replace(batch, subject_code=torch.full((2,), text_code("toy_sub-1")))
    torch.manual_seed(0)
    encoder = config.build(CONTRACT)
    found = trained(encoder, lambda e: e(batch).content.pow(3).mean())
    if name in TRAINABLE:
        torch.manual_seed(0)
        coder = config.tokenizer.build_parts(CONTRACT)
        coder.begin(4)

        def rebuilt(coder):
            again = coder.rebuild(batch, batch.present)
            return coder.losses(again, batch)["total"]

        found |= {f"coder.{k}": v for k, v in trained(coder, rebuilt).items()}
    return found


@cache
def usual(name):
    return what_comes_of(name)


def before(name, field):
    """Return what comes of the values that another one stands beside."""
    beside = {k: v for k, v in BESIDE.get((name, field), {}).items() if k != "subjects"}
    return what_comes_of(name, **beside) if beside else usual(name)


def same(a, b):
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a
    )


def test_every_value_of_every_config_is_tried():
    for name in FAMILIES:
        shared = {f for f in SHARED if f in fields_of(name)} if name in TOKENIZERS else set()
        assert set(OTHERS[name]) | shared == set(fields_of(name)), name


@pytest.mark.parametrize(("name", "field"), CASES, ids=map(".".join, CASES))
def test_no_value_of_a_config_is_ignored(name, field):
    beside = BESIDE.get((name, field), {})
    other = OTHERS[name].get(field, SHARED.get(field))
    assert not same(before(name, field), what_comes_of(name, **beside, **{field: other}))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_compared_is_the_same_for_the_same_config(name):
    assert same(usual(name), what_comes_of(name))

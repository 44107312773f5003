"""Encoders as programs: `torch.compile` and `torch.export` take every part, and give the same."""

import warnings

import pytest
import torch
from batches import plain_batch
from torch import nn

from neurofm.backbones.table import BACKBONES
from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.signals import Batch
from neurofm.tokenizers.place import PLACES
from neurofm.tokenizers.table import TOKENIZERS

CONTRACT = SignalContract(sfreq=50, band_hz=(0.5, 25), window_s=2)
PATCH_LEN = 20
MAMBA2 = {"name": "mamba2", "d_state": 8, "headdim": 8}
MIXERS = {
    "full": {"name": "transformer", "depth": 1, "n_heads": 4, "attention": "full"},
    "criss_cross": {"name": "transformer", "depth": 1, "n_heads": 4},
    "split_halves": {"name": "transformer", "depth": 1, "n_heads": 4, "attention": "split_halves"},
    "sites": {"name": "transformer", "depth": 1, "n_heads": 4, "attention": "sites"},
    "causal": {"name": "transformer", "depth": 1, "n_heads": 4, "attention": "full", "causal": True},
    "linear": {
        "name": "transformer", "depth": 1, "n_heads": 4, "attention": "linear", "time": "learned",
    },
    "summary": {
        "name": "transformer", "depth": 1, "n_heads": 4, "attention": "sites", "n_summary": 2,
        "time": "conv",
    },
    "factorised": {"name": "transformer", "depth": 2, "n_heads": 4, "attention": "factorised"},
    "pyramid": {"name": "pyramid", "n_heads": 4, "layers": [{"group": 2, "near": 2, "sites": True}]},
    "mamba_1": {"name": "mamba", "depth": 1, "mixer": {"name": "mamba1", "d_state": 4}},
    "mamba_2": {"name": "mamba", "depth": 1, "mixer": MAMBA2},
    "hybrid": {
        "name": "mamba", "depth": 2, "mixer": MAMBA2, "attention_every": 2, "n_heads": 4,
        "scan": "per_site",
    },
}  # fmt: skip
PARTS = (
    [("linear_patch", "fourier", mixer) for mixer in MIXERS]
    + [(t, "fourier", "criss_cross") for t in TOKENIZERS if t != "linear_patch"]
    + [("linear_patch", place, "criss_cross") for place in PLACES if place != "fourier"]
)
every_part = pytest.mark.parametrize("parts", PARTS, ids="-".join)
# torch.compile leaves their recurrent layers outside its graph
RECURRENT = {"brain_tokenizer", "annealed_samples"}
# tracing for gradients is slow: every mixer, and tokenizers and places of different makes
SOME = [
    *PARTS[: len(MIXERS)],
    ("stft", "names", "criss_cross"),
    ("plane_patch", "fourier", "full"),
    ("merged_patch", "fourier", "full"),
    ("brain_tokenizer", "fourier", "sites"),
]


def build_small_encoder(parts):
    tokenizer, place, mixer = parts
    regions = {"regions": ["V1", "M1"]} if place == "regions" else {}
    channels = {"per": "montage", "channels": {"anyone": [""]}} if tokenizer == "du_in" else {}
    values = {
        "width": 16,
        "tokenizer": {
            "name": tokenizer,
            "patch_s": 0.4,
            "place": {"name": place, **regions},
            **channels,
        },
        "backbone": MIXERS[mixer],
    }
    torch.manual_seed(0)
    return parse_config(EncoderConfig, values, where="test").build(CONTRACT).eval()


def make_montage(seed):
    draw = torch.Generator().manual_seed(seed)
    return plain_batch(
        torch.randn(2, 4, 100, generator=draw),
        position=0.05 * torch.randn(2, 4, 3, generator=draw),
        sfreq=50.0,
        name_code=torch.zeros(2, 4, dtype=torch.int64),
        region_code=torch.zeros(2, 4, dtype=torch.int64),
    )


def make_padded_montage():
    batch = make_montage(1)
    batch.present[0, 2:] = False
    batch.located[1, 0] = False
    return batch


def tensors_of(batch):
    return {k: v for k, v in vars(batch).items() if torch.is_tensor(v)}


class OfTensors(nn.Module):
    """An encoder of what programs are made of."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, tensors):
        return self.encoder(Batch(**tensors, sfreq=50.0)).content


def test_parts_cover_the_tables():
    tokenizers, places, mixers = map(set, zip(*PARTS, strict=True))
    assert (tokenizers, places) == (set(TOKENIZERS), set(PLACES))
    assert {MIXERS[m]["name"] for m in mixers} == set(BACKBONES)


def more_channels(batch):
    """Three montages side by side, some of it padding, in five windows."""
    tensors = {k: torch.cat([v, v, v], 1) for k, v in tensors_of(batch).items()}
    tensors = {k: torch.cat([v, v, v[:1]]) for k, v in tensors.items()}
    tensors["present"][0, 5:] = False
    return Batch(**tensors, sfreq=50.0)


def one_window(batch):
    return Batch(**{k: v[:1, :3] for k, v in tensors_of(batch).items()}, sfreq=50.0)


def of_patches(batch, n):
    draw = torch.Generator().manual_seed(n)
    signal = torch.randn(*batch.signal.shape[:2], n * PATCH_LEN, generator=draw)
    return Batch(**{**tensors_of(batch), "signal": signal}, sfreq=50.0)


@every_part
@torch.no_grad()
def test_an_exported_encoder_gives_the_same_for_any_windows_channels_and_patches(parts):
    encoder = build_small_encoder(parts)
    example = {k: torch.cat([v, v[:1]]) for k, v in tensors_of(make_montage(0)).items()}
    any_number, patches = torch.export.Dim.DYNAMIC, torch.export.Dim("patches", min=2)
    dynamic = {k: {0: any_number, 1: any_number} for k in example}
    dynamic["signal"][2] = PATCH_LEN * patches
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            OfTensors(encoder), (example,), dynamic_shapes=(dynamic,), strict=False
        ).module()
    montage = make_montage(2)
    several = of_patches(more_channels(montage), 12)
    for batch in (make_padded_montage(), several, of_patches(one_window(montage), 3)):
        torch.testing.assert_close(
            program(tensors_of(batch)), encoder(batch).content, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("parts", SOME, ids="-".join)
def test_a_compiled_encoder_is_one_graph_and_gives_the_same_tokens_and_gradients(parts):
    encoder = build_small_encoder(parts)
    torch.compiler.reset()
    whole_graph = parts[0] not in RECURRENT
    # what is traced, not how it is run
    compiled = torch.compile(encoder, backend="eager", fullgraph=whole_graph)
    for batch in (make_montage(0), make_padded_montage(), make_montage(1).to("cpu")):
        found = []
        for run in (encoder, compiled):
            encoder.zero_grad()
            content = run(batch).content
            content.pow(3).sum().backward()
            grads = [p.grad for p in encoder.parameters() if p.grad is not None]
            found.append((content.detach(), [g.clone() for g in grads]))
        torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[1][1], found[0][1], atol=1e-4, rtol=1e-3)


def test_what_is_known_to_be_whole_is_not_masked_when_compiled():
    """Without a mask torch may take its fastest attention."""
    encoder = build_small_encoder(("linear_patch", "fourier", "full"))
    seen = []

    def look(graph, _):
        calls = [n for n in graph.graph.nodes if "scaled_dot_product" in str(n.target)]
        seen.append([n.kwargs.get("attn_mask") is not None for n in calls])
        return graph

    torch.compiler.reset()
    compiled = torch.compile(encoder, backend=look, fullgraph=True)
    with torch.no_grad():
        for batch in (make_montage(0), make_montage(0).to("cpu")):
            compiled(batch)
    assert seen == [[True], [False]]


def test_what_is_compiled_masks_where_it_would_pack():
    encoder = build_small_encoder(("linear_patch", "fourier", "full"))
    encoder.config = encoder.config.model_copy(update={"padding": "pack"})
    torch.compiler.reset()
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    batch = make_padded_montage()
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(batch).content, encoder(batch).content, atol=1e-5, rtol=1e-5
        )

"""Windows of different numbers of sites side by side, without padding."""

import itertools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import flex_attention

from neurofm.backbones.mamba import MambaConfig
from neurofm.backbones.packed import encode_packed
from neurofm.backbones.pyramid import PyramidConfig
from neurofm.backbones.transformer import TransformerConfig
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.nn import packed_kernels
from neurofm.nn import packing as packing_module
from neurofm.nn.attention import ATTENTIONS
from neurofm.nn.block import drop_path
from neurofm.nn.mamba2 import Mamba2Config
from neurofm.nn.packing import Packing
from neurofm.signals import Grid

SITES = (2, 5, 0, 2, 3)  # of each window
SMALL = {"depth": 2, "n_heads": 2}
MIXER = Mamba2Config(d_state=4, headdim=8)
BACKBONES = {
    **{name: TransformerConfig(**SMALL, attention=name) for name in ATTENTIONS if name != "linear"},
    "linear": TransformerConfig(**SMALL, attention="linear", time="conv"),
    "factorised": TransformerConfig(**SMALL, attention="factorised"),
    "causal": TransformerConfig(**SMALL, attention="full", causal=True),
    "post": TransformerConfig(**SMALL, norm_place="post"),
    "mamba": MambaConfig(depth=1, mixer=MIXER, scan="site_within_time"),
    "pyramid": PyramidConfig(n_heads=2, layers=[{"sites": True}, {"group": 2, "n_out": 3}]),
    "hybrid": MambaConfig(**SMALL, mixer=MIXER, attention_every=2, scan="per_site"),
}
every_backbone = pytest.mark.parametrize("name", BACKBONES)


def build(name):
    torch.manual_seed(0)
    return BACKBONES[name].build(32).eval()


def mixed_grid(n_patches=4, width=32):
    """Windows of different numbers of sites; what is padding is no number."""
    draw = torch.Generator().manual_seed(0)
    shape = (len(SITES), max(SITES))
    present = torch.zeros(*shape, n_patches, dtype=torch.bool)
    for window, n in enumerate(SITES):
        present[window, torch.randperm(shape[1], generator=draw)[:n]] = True
    content = torch.randn(*shape, n_patches, width, generator=draw)
    return Grid(
        content=content.masked_fill(~present[..., None], float("nan")),
        place=torch.randn(*shape, 1, width, generator=draw),
        present=present,
        position=0.06 * torch.randn(*shape, 3, generator=draw),
        located=torch.ones(shape, dtype=torch.bool),
    )


def window_alone(grid, window):
    here = grid.present[window, :, 0]
    parts = ("content", "place", "present", "position", "located")
    return Grid(**{name: getattr(grid, name)[window, here][None] for name in parts}), here


@every_backbone
@torch.no_grad()
def test_packed_windows_are_encoded_as_each_alone(name):
    backbone, grid = build(name), mixed_grid()
    found = encode_packed(backbone, grid)
    packed = found.content
    for window, n in enumerate(SITES):
        alone, here = window_alone(grid, window)
        if n:
            expected = backbone(alone).content[0]
            torch.testing.assert_close(packed[window, here], expected, atol=1e-5, rtol=1e-5)
            assert torch.equal(found.present[window, here], backbone(alone).present[0])
        assert not packed[window, ~here].any() and not found.present[window, ~here].any()


@every_backbone
@torch.no_grad()
def test_packs_go_through_mixed_and_half_precision(name):
    backbone, grid = build(name), mixed_grid()
    single = backbone(grid).content
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encode_packed(backbone, grid.evolve(content=grid.content.bfloat16())).content
    halves = grid.evolve(content=grid.content.bfloat16(), place=grid.place.bfloat16())
    half = encode_packed(backbone.bfloat16(), halves).content
    scale = single.abs().mean()
    for found in (mixed, half):
        assert (found.float() - single).abs().mean() < 0.05 * scale


@every_backbone
def test_packed_windows_teach_what_masked_ones_do(name):
    backbone, grid = build(name), mixed_grid()
    grads = []
    for encode in (backbone, lambda g: encode_packed(backbone, g)):
        backbone.zero_grad()
        encode(grid).content.pow(3).sum().backward()
        grads.append([p.grad.clone() for p in backbone.parameters() if p.grad is not None])
    torch.testing.assert_close(grads[1], grads[0], atol=1e-4, rtol=1e-3)


def stretches(q, k, v, edges, longest):
    """What flash attention of varying lengths does, on a processor."""
    assert edges.dtype is torch.int32 and longest == edges.diff().max()
    found = torch.full_like(q, float("nan"))
    for start, stop in itertools.pairwise(edges.tolist()):
        parts = (t[start:stop].transpose(0, 1) for t in (q, k, v))
        found[start:stop] = F.scaled_dot_product_attention(*parts).transpose(0, 1)
    return found


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("name", ["full", "causal", "criss_cross", "sites"])
@pytest.mark.parametrize("by", ["flex", "varlen"])
@torch.no_grad()
def test_windows_kept_apart_in_one_call_are_the_same_as_a_call_a_bucket(name, by, monkeypatch):
    """As on a GPU; there FlexAttention is compiled, and leaves out what the mask does."""
    monkeypatch.setattr(packed_kernels, "compiled_flex", lambda: flex_attention)
    monkeypatch.setattr(packing_module, "varlen", stretches)
    monkeypatch.setattr(packed_kernels, "_varlen_takes", lambda q: True)
    backbone, grid = build(name), mixed_grid()
    apart = Packing.of(grid.present, "calls")
    fused = Packing.of(grid.present, by)
    x = apart.take(grid.tokens)
    torch.testing.assert_close(backbone.mix(x, fused), backbone.mix(x, apart), atol=1e-5, rtol=1e-5)
    # made once, used by every block; time is a matter of masks
    assert len(fused._masks) == (0 if name == "causal" and by == "varlen" else 1)
    assert not apart._masks


@pytest.mark.parametrize(
    ("by", "device", "dtype", "width", "causal", "kernel"),
    [
        ("auto", "cpu", torch.float32, 32, False, "calls"),
        ("varlen", "cpu", torch.bfloat16, 32, False, "calls"),
        ("flex", "cpu", torch.float32, 32, True, "flex"),
        ("flex", "cpu", torch.float32, 8, False, "calls"),
        ("auto", "cuda", torch.bfloat16, 32, False, "varlen"),
        ("auto", "cuda", torch.bfloat16, 32, True, "flex"),
        ("auto", "cuda", torch.float32, 32, False, "flex"),
        ("varlen", "cuda", torch.float16, 12, False, "calls"),
        ("varlen", "cuda", torch.float32, 32, False, "flex"),
        ("auto", "cuda", torch.bfloat16, 264, False, "flex"),
        ("flex", "cuda", torch.bfloat16, 32, False, "flex"),
        ("calls", "cuda", torch.bfloat16, 32, False, "calls"),
    ],
)
def test_what_cannot_keep_windows_apart_gives_way(
    by, device, dtype, width, causal, kernel, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    q = SimpleNamespace(
        is_cuda=device == "cuda", device=device, dtype=dtype, shape=(width,), requires_grad=False
    )
    assert packed_kernels.kernel_for(by, q, causal=causal) == kernel


def test_flex_attention_gives_way_where_it_has_no_gradient():
    """A run trains with what a user has chosen for its encoder, also on a processor."""
    values = {"width": 32, "padding": "pack", "packed_by": "flex", "backbone": SMALL}
    encoder = EncoderConfig.model_validate(values).build(
        SignalContract(sfreq=50, band_hz=(0.5, 20), window_s=2)
    )
    grid = mixed_grid()
    found = encode_packed(encoder.backbone, grid, encoder.config.packed_by)
    found.content.square().sum().backward()
    assert encoder.backbone.blocks[0].attention.project_in.weight.grad.isfinite().all()


def test_a_pack_holds_what_is_present_and_gives_it_back():
    grid = mixed_grid()
    packing = Packing.of(grid.present)
    packed = packing.take(grid.content)
    assert packed.shape == (1, sum(SITES), 4, 32) and packed.isfinite().all()
    assert packing.buckets == ((2, 2), (1, 3), (1, 5))
    expected = grid.content.nan_to_num()
    torch.testing.assert_close(packing.put(packed, grid.content), expected, atol=0, rtol=0)


def test_sites_present_for_a_part_of_the_time_are_masked_as_ever():
    backbone, grid = build("full"), mixed_grid()
    grid = grid.evolve(content=grid.content.nan_to_num())
    present = grid.present.clone()
    present[1, 0, 2] = ~present[1, 0, 2]
    grid = grid.evolve(present=present)
    assert Packing.of(present) is None
    torch.testing.assert_close(encode_packed(backbone, grid).content, backbone(grid).content)


@every_backbone
@torch.no_grad()
def test_nothing_is_packed_where_nothing_is_padding_or_nothing_is_present(name):
    backbone, (alone, _) = build(name), window_alone(mixed_grid(), 1)
    assert torch.equal(encode_packed(backbone, alone).content, backbone(alone).content)
    empty = mixed_grid().evolve(present=torch.zeros(len(SITES), max(SITES), 4, dtype=torch.bool))
    assert not encode_packed(backbone, empty).content.any()


def test_paths_are_dropped_by_window_in_a_pack_too():
    torch.manual_seed(0)
    packing = Packing.of(mixed_grid().present)
    x = torch.ones(1, sum(SITES), 4, 32)
    for _ in range(20):
        dropped = drop_path(x, 0.5, packing)[0, :, 0, 0]
        for window in packing.window.unique():
            assert len(dropped[packing.window == window].unique()) == 1
    assert set(dropped.tolist()) <= {0.0, 2.0}

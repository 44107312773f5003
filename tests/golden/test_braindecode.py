"""Published models against braindecode's, over other sizes than the reference fixtures have.

Where braindecode is installed, as it is for benchmarks. Its modules are other people's readings of
the same originals; where one leaves something out, so does the comparison.
"""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from neurofm.published.table import PUBLISHED

PEERS = Path(__file__).parents[2] / "benchmarks" / "_peers.py"


@pytest.fixture(scope="module")
def models():
    """braindecode's models."""
    if importlib.util.find_spec("braindecode") is None:
        pytest.skip("braindecode is not installed: it comes with the extra `bench`")
    spec = importlib.util.spec_from_file_location("peers_of_published_models", PEERS)
    peers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peers)
    peers.mend_torchaudio()
    return importlib.import_module("braindecode.models")


def drawn(module, seed=0):
    """Draw all weights anew, in float32, so that nothing is zero or one by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in (p for p in module.parameters() if p.requires_grad):
            fan_in = value[0].numel() if value.ndim > 1 else 10
            value.copy_(torch.randn(value.shape, generator=generator) / fan_in**0.5)
    return module.eval()


def renamed(module, *rules):
    """Return a state dict under the names of the original."""
    state = module.state_dict()
    for pattern, to in rules:
        state = {re.sub(pattern, to, name): value for name, value in state.items()}
    return {name: value for name, value in state.items() if name}


def near(ours, peer, *, atol=1e-9):
    """Compare what two modules return in double precision, so that rounding hides nothing."""
    torch.testing.assert_close(ours, peer, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("n_channels", "n_patches", "heads", "hidden", "depth"),
    [(1, 1, 2, 16, 1), (19, 4, 8, 30, 2), (23, 9, 10, 7, 1), (4, 2, 20, 200, 3)],
)
@torch.no_grad()
def test_cbramod_at_any_size(models, n_channels, n_patches, heads, hidden, depth):
    peer = drawn(
        models.CBraMod(
            n_outputs=2, n_chans=n_channels, n_times=200 * n_patches, sfreq=200, n_layer=depth,
            nhead=heads, dim_feedforward=hidden, drop_prob=0.0,
        )
    )  # fmt: skip
    sizes = {"nhead": heads, "dim_feedforward": hidden, "n_layer": depth}
    ours = PUBLISHED["CBraMod"].load(sizes, renamed(peer, (r"^final_layer.*", "")))
    signal = torch.randn(2, n_channels, 200 * n_patches, dtype=torch.float64)
    found = ours.double()(signal.unflatten(-1, (-1, 200)))
    near(found, peer.double()(signal, return_features=True)["features"])


@pytest.mark.parametrize(
    ("n_channels", "n_times", "hop", "heads", "depth"),
    [(1, 200, 100, 8, 1), (5, 777, 50, 4, 2), (20, 1000, 200, 16, 1)],
)
@torch.no_grad()
def test_biot_at_any_size(models, n_channels, n_times, hop, heads, depth):
    peer = drawn(
        models.BIOT(
            n_outputs=3, n_chans=n_channels, n_times=n_times, sfreq=200, hop_length=hop,
            num_heads=heads, num_layers=depth,
        )
    )  # fmt: skip
    weights = renamed(
        peer,
        (r"^encoder\.", "biot."),
        (r"^final_layer\.classification_head", "classifier.clshead.1"),
    )
    weights["biot.index"] = torch.arange(n_channels)
    sizes = {"n_channels": n_channels, "n_classes": 3, "hop_length": hop, "depth": depth}
    ours = PUBLISHED["BIOT encoder + classifier"].load({**sizes, "heads": heads}, weights)
    signal = torch.randn(2, n_channels, n_times, dtype=torch.float64)
    near(ours.double()(signal, torch.arange(n_channels)), peer.double()(signal))


@pytest.mark.parametrize(
    ("n_channels", "n_patches", "ratio", "scale", "qkv_bias", "n_filters"),
    [(1, 1, 4.0, 0.1, False, 8), (7, 3, 2.66, 0.0, True, 4), (30, 2, 1.0, 1e-5, False, 16)],
)
@torch.no_grad()
def test_labram_at_any_size(models, n_channels, n_patches, ratio, scale, qkv_bias, n_filters):
    width = 25 * n_filters
    peer = drawn(
        models.Labram(
            n_outputs=3, n_chans=n_channels, n_times=200 * n_patches, sfreq=200, num_layers=2,
            embed_dim=width, conv_out_channels=n_filters, num_heads=5, mlp_ratio=ratio,
            init_values=scale, qkv_bias=qkv_bias, use_mean_pooling=True,
        )
    )  # fmt: skip
    weights = renamed(
        peer,
        (r"^position_embedding", "pos_embed"),
        (r"^temporal_embedding", "time_embed"),
        (r"temporal_conv\.", ""),
        (r"mlp\.0\.", "mlp.fc1."),
        (r"mlp\.2\.", "mlp.fc2."),
        (r"^final_layer", "head"),
    )
    times = weights["time_embed"]
    weights["time_embed"] = torch.cat((times, torch.zeros(1, 16 - times.shape[1], width)), 1)
    constructor = {
        "embed_dim": width,
        "out_chans": n_filters,
        "depth": 2,
        "num_heads": 5,
        "mlp_ratio": ratio,
        "init_values": scale,
        "qkv_bias": qkv_bias,
        "norm_layer": "LayerNorm(eps=1e-6)",
        "qk_norm": "LayerNorm(eps=1e-6)",
        "num_classes": 3,
    }
    ours = PUBLISHED["LaBraM encoder (fine-tuning form)"].load(constructor, weights)
    signal = torch.randn(2, n_channels, 200 * n_patches, dtype=torch.float64)
    names = list(models.labram.LABRAM_CHANNEL_ORDER[:n_channels])
    found = ours.double()(signal.unflatten(-1, (-1, 200)), torch.arange(1 + n_channels))
    near(found, peer.double()(signal, ch_names=names))


def luna(peer, patch_len, n_queries, width, heads, n_out):
    """Return ours with the peer's weights, without two norms that braindecode's leaves out."""
    entry = PUBLISHED["LUNA"]
    constructor = {
        "patch_size": patch_len,
        "num_queries": n_queries,
        "embed_dim": width,
        "depth": len(peer.blocks),
        "num_heads": heads,
        "num_classes": n_out,
    }
    ours = entry.from_constructor(constructor).build()
    ours.place[2], ours.unify.feedforward.norm = nn.Identity(), None
    weights = renamed(
        peer,
        (r"^channel_location_embedder\.", "channel_location_embedder.0."),
        (r"temperature", "temparature"),
        (r"^final_layer\.", "classifier."),
    )
    ours.load_state_dict(entry.weights(weights))
    return ours.double().eval()


@pytest.mark.parametrize(
    ("n_channels", "patch_len", "n_queries", "width", "heads", "n_out"),
    [(3, 40, 1, 16, 2, 2), (9, 16, 3, 32, 4, 5), (26, 64, 4, 48, 1, 1)],
)
@torch.no_grad()
def test_luna_at_any_size(models, n_channels, patch_len, n_queries, width, heads, n_out):
    peer = drawn(
        models.LUNA(
            n_outputs=n_out, n_chans=n_channels, n_times=3 * patch_len, sfreq=256, depth=2,
            patch_size=patch_len, num_queries=n_queries, embed_dim=width, num_heads=heads,
        )
    )  # fmt: skip
    ours = luna(peer, patch_len, n_queries, width, heads, n_out)
    signal, position = (
        torch.randn(2, n_channels, 3 * patch_len, dtype=torch.float64),
        torch.rand(2, n_channels, 3, dtype=torch.float64),
    )
    found = ours(signal, position)
    # spectra, and sines of time, are of single precision here
    near(found, peer.double()(signal, channel_locations=position), atol=2e-5)


@pytest.mark.parametrize(
    ("n_channels", "patch_len", "n_queries", "width", "heads"),
    [(2, 20, 2, 16, 2), (7, 48, 1, 32, 4)],
)
@torch.no_grad()
def test_luna_reconstructs_at_any_size(models, n_channels, patch_len, n_queries, width, heads):
    peer = drawn(
        models.LUNA(
            n_outputs=0, n_chans=n_channels, n_times=4 * patch_len, sfreq=256, depth=1,
            patch_size=patch_len, num_queries=n_queries, embed_dim=width, num_heads=heads,
        )
    )  # fmt: skip
    ours = luna(peer, patch_len, n_queries, width, heads, 0)
    signal = torch.randn(1, n_channels, 4 * patch_len, dtype=torch.float64)
    position = torch.rand(1, n_channels, 3, dtype=torch.float64)
    names = torch.randint(0, 90, (1, n_channels))
    expected = peer.double()(signal, channel_locations=position, channel_names=names)
    near(ours(signal, position, names=names), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("n_channels", "patch_len", "n_summary", "width", "heads", "qkv_bias"),
    [(1, 64, 1, 16, 2, True), (11, 32, 4, 24, 3, False), (58, 50, 2, 20, 5, True)],
)
@torch.no_grad()
def test_eegpts_encoder_at_any_size(
    models, n_channels, patch_len, n_summary, width, heads, qkv_bias
):
    peer = drawn(
        models.eegpt._EEGTransformer(
            n_chans=n_channels, n_times=4 * patch_len, patch_size=patch_len, embed_dim=width,
            embed_num=n_summary, depth=2, num_heads=heads, qkv_bias=qkv_bias,
        )
    )  # fmt: skip
    names = torch.randperm(62)[:n_channels]
    small = {"depth": 1, "num_heads": 1}
    entry = PUBLISHED["EEGPT (encoder, predictor, reconstructor)"]
    encoder = {"embed_dim": width, "embed_num": n_summary, "depth": 2, "num_heads": heads}
    constructor = {
        "patch_size": patch_len,
        "qkv_bias": qkv_bias,
        "encoder": encoder,
        "predictor": {"predictor_embed_dim": 4, **small},
        "reconstructor": {"reconstructor_embed_dim": 4, **small},
    }
    ours = entry.from_constructor(constructor).build().encoder
    found = entry.weights(renamed(peer, (r"^", "encoder.")))
    ours.load_state_dict({name.removeprefix("encoder."): v for name, v in found.items()})
    signal = torch.randn(2, n_channels, 4 * patch_len, dtype=torch.float64)
    patches = signal.unflatten(-1, (-1, patch_len)).transpose(1, 2)
    near(ours.double().eval()(patches, names), peer.double()(signal, names[None]))


@pytest.mark.parametrize(
    ("width", "heads", "head_width", "ratio", "gated", "n_frequencies", "overlap"),
    [(16, 2, 8, 2.66, True, 2, 20), (30, 3, 6, 1.5, False, 2, 0), (48, 1, 10, 4.0, True, 4, 90)],
)
@torch.no_grad()
def test_reve_at_any_size(models, width, heads, head_width, ratio, gated, n_frequencies, overlap):
    parts = models.reve
    peer = nn.ModuleDict(
        {
            "transformer": parts.TransformerBackbone(
                width, 2, heads, head_width, int(width * ratio), gated
            ),
            "to_patch_embedding": nn.Sequential(nn.Linear(100, width)),
            "mlp4d": nn.Sequential(nn.Linear(4, width, bias=False), nn.GELU(), nn.LayerNorm(width)),
            "ln": nn.LayerNorm(width),
        }
    )
    constructor = {
        "embed_dim": width,
        "depth": 2,
        "heads": heads,
        "head_dim": head_width,
        "mlp_dim_ratio": ratio,
        "use_geglu": gated,
        "freqs": n_frequencies,
        "patch_size": 100,
        "patch_overlap": overlap,
    }
    weights = {**drawn(peer).state_dict(), "cls_query_token": torch.randn(1, 1, width)}
    ours = PUBLISHED["REVE encoder"].load(constructor, weights)
    signal, position = (
        torch.randn(2, 3, 350, dtype=torch.float64),
        0.1 * torch.randn(2, 3, 3, dtype=torch.float64),
    )
    peer, ours = peer.double(), ours.double()
    patches = signal.unfold(2, 100, 100 - overlap)
    place = parts.FourierEmb4D.add_time_patch(position, patches.shape[2])
    waves = parts.FourierEmb4D(width, n_frequencies)(place)
    tokens = peer["to_patch_embedding"](patches).flatten(1, 2)
    tokens = tokens + peer["ln"](waves + peer["mlp4d"](place))
    near(ours(signal, position).flatten(1, 2), peer["transformer"](tokens), atol=1e-6)

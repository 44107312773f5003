"""In evaluation nothing is drawn, whatever training drops."""

import pytest
import torch
from encoder_cases import BACKBONES, VARIANTS, build_encoder, differ, encode, make_windows

from neurofm import encoder as encoder_module

DROPS = {"dropout": 0.5, "drop_path": 0.5}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("padding", ["mask", "pack"])
def test_what_training_drops_evaluation_does_not_know_of(backbone, padding):
    variant = "hybrid" if backbone == "mamba" else next(iter(VARIANTS[backbone]))
    parts, batch = ("linear_patch", backbone, variant), make_windows()
    batch.present[0, 4:] = False
    drops = {k: v for k, v in DROPS.items() if k in BACKBONES[backbone].model_fields}
    plain = build_encoder(parts, padding=padding)
    dropping = build_encoder(parts, padding=padding, **drops)
    dropping.load_state_dict(plain.state_dict())
    expected = encode(plain, batch).content
    for _ in range(2):
        torch.testing.assert_close(encode(dropping, batch).content, expected)
    with torch.no_grad():
        once, twice = (dropping.train()(batch).content for _ in range(2))
    assert differ(once, twice)


@pytest.mark.parametrize("name", ["dropout", "drop_path"])
def test_what_is_dropped_is_made_up_for_on_the_mean(name):
    """What is kept is scaled up, so that what the next layer sees is as large as in evaluation."""
    encoder = build_encoder(("linear_patch", "transformer", "full"), depth=2, **{name: 0.3})
    block, x = encoder.backbone.blocks[1], torch.randn(400, 2, 2, 32)
    style = block.style
    assert (style.dropout, style.drop_path) == ((0.3, 0.0) if name == "dropout" else (0.0, 0.3))
    added = torch.ones_like(x)
    with torch.no_grad():
        found = block.train()._added(added, None, None)
    assert found.mean() == pytest.approx(1.0, abs=0.1)
    assert (found == 0).float().mean() == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(("padding", "packed"), [("mask", 0), ("pack", 1)])
def test_windows_are_packed_where_that_is_asked_for(padding, packed, monkeypatch):
    calls, real = [], encoder_module.encode_packed
    monkeypatch.setattr(encoder_module, "encode_packed", lambda *a: calls.append(a) or real(*a))
    encode(build_encoder(padding=padding), make_windows())
    assert len(calls) == packed

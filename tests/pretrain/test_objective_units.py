"""What losses are measured in, and how much masks hide."""

import dataclasses
import math

import pytest
import torch
from batches import plain_batch

from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.pretrain.code_prediction import CodePredictionConfig
from neurofm.pretrain.masked_reconstruction import MaskedReconstructionConfig
from neurofm.pretrain.masks import SpatialRadiusMaskConfig
from neurofm.witness import witness

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
BACKBONE = {"name": "transformer", "depth": 1, "n_heads": 2}
CODED = {
    "name": "brain_tokenizer", "patch_s": 0.5, "ratios": [4, 4], "n_filters": 2, "inner": 8,
    "n_heads": 2, "n_sources": 4, "n_levels": 2, "n_codes": 8, "frozen": True,
}  # fmt: skip


def make_encoder(**tokenizer):
    torch.manual_seed(0)
    values = {"width": 16, "tokenizer": tokenizer, "backbone": BACKBONE}
    return EncoderConfig.model_validate(values).build(CONTRACT)


def make_batch(n_windows=4, n_channels=5, located=True):
    draw = torch.Generator().manual_seed(0)
    shape = (n_windows, n_channels)
    return plain_batch(
        torch.randn(*shape, 128, generator=draw),
        position=0.1 * torch.randn(*shape, 3, generator=draw),
        located=torch.full(shape, located),
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_windows_that_have_enough_hidden_get_no_more_while_others_are_short(ratio):
    """Balls of two tokens: no window can be more than one of them beyond its share."""
    mask = SpatialRadiusMaskConfig(ratio=ratio, patches=2)
    hide = mask(make_batch(64, 5, located=False), 10, generator())
    goal = ratio * 50
    assert (hide.flatten(1).sum(1) >= goal).all()
    assert (hide.flatten(1).sum(1) < goal + 2).all()


def test_an_artefact_weighs_by_its_size_and_not_by_its_square():
    config = MaskedReconstructionConfig(spectrum=0.0, visible=0.0)
    objective = config.build(make_encoder(name="linear_patch", patch_s=0.5), CONTRACT)
    for parameter in objective.predict_signal.parameters():
        torch.nn.init.zeros_(parameter)
    small, large = (
        dataclasses.replace(make_batch(), signal=make_batch().signal * size) for size in (50, 500)
    )
    ours, theirs = (float(objective(batch, generator()).total) for batch in (large, small))
    assert ours / theirs == pytest.approx(10.0, rel=0.05)


def test_guessing_codes_costs_one():
    objective = CodePredictionConfig().build(make_encoder(**CODED), CONTRACT)
    for parameter in objective.predict.parameters():
        torch.nn.init.zeros_(parameter)
    total = float(objective(make_batch(), generator()).total)
    assert total == pytest.approx(1.0, abs=1e-6)
    # whoever is sure of what is wrong pays more: eight codes, one of them named
    objective.predict.bias.data.view(*objective.shape)[..., 0] = 100.0
    assert objective(make_batch(), generator()).total > 10 / math.log(8)


def test_the_witness_holds_what_is_not_located_not_oriented_and_not_there():
    """So that another way to treat any of them shows in what a checkpoint computes."""
    encoder, seen = make_encoder(name="linear_patch", patch_s=0.5), []
    encoder.tokenizer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    before = witness(encoder, CONTRACT)
    (batch,) = seen
    assert not batch.present.all()
    assert (batch.present & ~batch.located).any()
    assert (batch.present & batch.located).any()
    assert (batch.oriented & batch.present).any()
    assert (~batch.oriented & batch.present).any()
    assert len(batch.kind.unique()) > 3
    for part in ("unknown_position", "unknown_orientation"):
        with torch.no_grad():
            getattr(encoder.tokenizer.place, part).add_(1.0)
        after = witness(encoder, CONTRACT)
        assert (after - before).abs().max() > 1e-2
        before = after

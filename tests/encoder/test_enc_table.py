"""Every tokenizer with every backbone runs."""

from typing import get_args

import pytest
import torch
from encoder_cases import (
    COVER,
    MIXERS,
    MIXES,
    TABLE,
    VARIANTS,
    build_encoder,
    make_windows,
    shape_of,
)

from neurofm.backbones.table import BACKBONES
from neurofm.encoder import EncoderConfig
from neurofm.nn.attention import ATTENTIONS, AttentionName
from neurofm.tokenizers.table import TOKENIZERS


@pytest.mark.parametrize("parts", TABLE, ids="-".join)
def test_every_combination_runs_forward_and_backward_and_reaches_every_parameter(parts):
    encoder = build_encoder(parts)
    batch = make_windows()
    shape = shape_of(encoder, batch)
    hide = torch.zeros(shape, dtype=torch.bool)
    hide[:, ::2, 1] = True

    grid = encoder(batch, hide)
    weights = torch.randn(grid.content.shape, generator=torch.Generator().manual_seed(1))
    (grid.content * weights).sum().backward()

    n_sites = VARIANTS[parts[1]][parts[2]].get("n_summary", shape[1])
    assert grid.content.shape == (shape[0], n_sites, shape[2], 32)
    untouched = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untouched


def test_the_tables_hold_every_part_under_its_own_name():
    for table in (TOKENIZERS, BACKBONES):
        assert all(config.model_fields["name"].default == name for name, config in table.items())
    for part, table in (("tokenizer", TOKENIZERS), ("backbone", BACKBONES)):
        union = EncoderConfig.model_fields[part].annotation
        parts = {getattr(part, "__origin__", part) for part in get_args(union)}
        assert parts == set(table.values())
    assert set(VARIANTS) == set(BACKBONES)
    assert {parts[0] for parts in COVER} == set(TOKENIZERS)
    assert {parts[1:] for parts in COVER} == set(MIXERS)
    assert (
        set(ATTENTIONS)
        == set(get_args(AttentionName))
        == {*MIXES[:4], "sites", "patches", "linear"}
    )

"""Which block is what, and what of a setting reaches it."""

import pytest
import torch

from neurofm.backbones.mamba import MambaConfig
from neurofm.backbones.transformer import TransformerConfig
from neurofm.errors import ConfigError
from neurofm.nn.block import Block
from neurofm.nn.feedforward import FeedForward
from neurofm.nn.heads import require_heads
from neurofm.nn.mamba2 import Mamba2Config
from neurofm.nn.place_table import CoordinateTables
from neurofm.nn.rotary import Rotary


@pytest.mark.parametrize(("every", "attending"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3])])
def test_every_so_manyth_block_is_one_of_attention(every, attending):
    mixer = Mamba2Config(headdim=8, d_state=4)
    config = MambaConfig(depth=4, attention_every=every, n_heads=2, mixer=mixer)
    blocks = config.build(16).blocks
    assert [i for i, b in enumerate(blocks, 1) if isinstance(b, Block)] == attending


@pytest.mark.parametrize(("depth", "shares"), [(1, [0.0]), (3, [0.0, 0.1, 0.2])])
def test_paths_are_dropped_the_more_the_deeper(depth, shares):
    blocks = TransformerConfig(depth=depth, n_heads=2, drop_path=0.2).build(16).blocks
    assert [b.style.drop_path for b in blocks] == pytest.approx(shares)


def test_hidden_features_are_dropped_in_training_only():
    layer, x = FeedForward(8, 64, 0.5), torch.randn(100, 8)
    assert (layer.hidden(x) == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    assert not (layer.eval().hidden(x) == 0).any()


@pytest.mark.parametrize("n_heads", [0, -2])
def test_there_is_a_head_at_least(n_heads):
    with pytest.raises(ConfigError, match=rf"width 8 cannot be split into {n_heads} heads"):
        require_heads(8, n_heads)


def test_time_is_counted_exactly_in_half_precision():
    rotary, when = Rotary(8), torch.tensor([0, 255, 257, 999, 1001])
    exact, half = (
        rotary.at(when, torch.zeros((), dtype=t)) for t in (torch.float32, torch.bfloat16)
    )
    for ours, theirs in zip(half[:2], exact[:2], strict=True):
        torch.testing.assert_close(ours, theirs.to(torch.bfloat16))


def test_each_millimetre_has_a_row_and_what_is_beyond_the_last():
    tables = CoordinateTables(4, n_rows=200, reach_m=0.1)
    at = torch.tensor([-0.3, -0.0999, -0.0989, 0.0, 0.0985, 0.0995, 0.3])
    rows = [0, 0, 1, 100, 198, 199, 199]
    for axis, table in enumerate(tables.tables):
        position = torch.zeros(7, 3)
        position[:, axis] = at
        others = sum(t.weight[100] for i, t in enumerate(tables.tables) if i != axis)
        torch.testing.assert_close(tables(position), table.weight[rows] + others)

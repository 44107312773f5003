"""Places by table, and as volume conduction sees them."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.nn.place_smoothed import SlowTime, SmoothedPlace
from neurofm.nn.place_table import CodeTable, CoordinateTables


def test_each_known_code_has_its_row_in_the_order_given_and_others_share_the_first():
    table = CodeTable([70, 3, 2**62], 8)
    rows = table(torch.tensor([[70, 3], [2**62, 0], [4, 2**63 - 1]]))
    expected = table.rows.weight[torch.tensor([[1, 2], [3, 0], [0, 0]])]
    assert torch.equal(rows, expected)


def test_codes_survive_half_precision():
    codes = [2**61 + 1, 2**61 + 2]
    table = CodeTable(codes, 4).to(torch.bfloat16)
    rows = table(torch.tensor(codes))
    assert torch.equal(rows, table.rows.weight[1:])


def test_a_code_that_is_there_twice_is_refused():
    with pytest.raises(ConfigError, match="two rows of the same name"):
        CodeTable([1, 2, 1], 4)


def test_positions_of_the_same_millimetre_share_rows():
    tables = CoordinateTables(8)
    a = tables(torch.tensor([0.0102, -0.05, 0.0]))
    b = tables(torch.tensor([0.0108, -0.05, 0.0]))
    c = tables(torch.tensor([0.0112, -0.05, 0.0]))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    far = tables(torch.tensor([[0.11, -1.0, 0.1], [5.0, -2.0, 0.3]]))
    assert torch.equal(far[0], far[1])


def test_a_sensor_alone_is_where_it_is_and_among_others_is_drawn_to_them():
    layer = SmoothedPlace(3)
    torch.nn.init.eye_(layer.linear.weight)
    position = torch.tensor([[[0.0, 0.0, 0.08], [0.0, 0.04, 0.08], [0.05, 0.0, 0.0]]])
    alone = torch.tensor([[True, False, False]])
    torch.testing.assert_close(layer(position, alone)[0, 0], position[0, 0] * 10)
    weight = torch.exp(-torch.cdist(position[0], position[0]) / layer.tau_m)
    mean = (weight / weight.sum(-1, keepdim=True)) @ position[0]
    torch.testing.assert_close(layer(position, torch.ones(1, 3, dtype=torch.bool))[0], mean * 10)


def test_the_reach_begins_at_eight_centimetres_and_is_learnt():
    layer = SmoothedPlace(4)
    torch.testing.assert_close(layer.tau_m, torch.tensor(0.08))
    layer(0.05 * torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)).pow(2).sum().backward()
    assert layer.reach.grad.isfinite()
    assert layer.reach.grad != 0


def test_times_are_told_apart_in_seconds():
    layer = SlowTime(16)
    codes = layer(60, 1.0)
    assert codes.shape == (60, 16)
    assert (torch.cdist(codes, codes) + torch.eye(60)).min() > 1e-3
    torch.testing.assert_close(layer(30, 2.0), codes[::2], atol=1e-4, rtol=1e-4)

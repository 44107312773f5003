"""Original weights and constructor arguments under our names: nothing lost, nothing invented."""

import pytest
import torch
from torch import nn

from neurofm.errors import CheckpointError, ConfigError
from neurofm.published.entry import Published, constructor_values, rename


def entry(rules, unused=None):
    class Linear:
        def __init__(self, width):
            self.width = width

        def build(self):
            return nn.Linear(self.width, 1)

    return Published(
        from_constructor=lambda values: Linear(
            **constructor_values(values, {"dim": "width", "device": None}, model="toy")
        ),
        weights=lambda original: rename(original, rules, unused=unused),
        parts=("nn.Linear",),
    )


RULES = [(r"fc\.(weight|bias)", r"\1")]
ORIGINAL = {"fc.weight": torch.ones(1, 3), "fc.bias": torch.zeros(1)}


def test_weights_go_where_the_rules_say():
    module = entry(RULES).load({"dim": 3, "device": "cpu"}, ORIGINAL)
    assert module.weight.tolist() == [[1.0, 1.0, 1.0]]
    assert not module.training


def test_a_weight_without_a_rule_is_refused_by_name():
    with pytest.raises(CheckpointError, match=r"no place here: 'head\.weight'.*\n.*another model"):
        entry(RULES).load({"dim": 3}, {**ORIGINAL, "head.weight": torch.ones(1)})


def test_a_weight_may_be_left_out_with_a_reason():
    unused = {r"head\..*": "the head of pretraining"}
    entry(RULES, unused).load({"dim": 3}, {**ORIGINAL, "head.weight": torch.ones(1)})


def test_a_weight_of_ours_that_nothing_fills_is_refused():
    with pytest.raises(CheckpointError, match="1 missing: bias"):
        entry(RULES).load({"dim": 3}, {"fc.weight": torch.ones(1, 3)})


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(CheckpointError, match=r"weight has shape \(1, 3\), needed is \(1, 4\)"):
        entry(RULES).load({"dim": 4}, ORIGINAL)


def test_two_weights_for_one_place_are_refused():
    with pytest.raises(CheckpointError, match="become 'weight'; the second is 'fc.weight'"):
        rename({"a": torch.ones(1), "fc.weight": torch.ones(1)}, [("a", "weight"), *RULES])


def test_an_unknown_constructor_argument_names_the_nearest():
    with pytest.raises(ConfigError, match=r"toy: unknown .* 'dims'; known: dim, device\n.*'dim'"):
        entry(RULES).load({"dims": 3}, ORIGINAL)

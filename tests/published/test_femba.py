"""FEMBA: sizes as published, heads, and what each argument of the original becomes."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.published.femba import FembaConfig, from_constructor


@pytest.mark.parametrize(
    ("depth", "n_filters", "millions"),
    [(2, 35, 7.8), (12, 35, 47.7), (4, 79, 77.8), (20, 79, 386)],
    ids=["tiny", "base", "large", "huge"],
)
def test_the_published_sizes_come_out_but_for_heads(depth, n_filters, millions):
    with torch.device("meta"):
        model = FembaConfig(depth=depth, n_filters=n_filters).build()
    count = sum(p.numel() for p in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.025)


@pytest.mark.parametrize(
    ("head", "shape"), [("bc", (2, 3)), ("mcc", (2, 3)), ("mc", (2, 4)), ("mmc", (2, 4, 3))]
)
def test_heads_score_classes_channels_or_both(head, shape):
    model = from_constructor(
        {"num_channels": 4, "seq_length": 64, "embed_dim": 3, "num_classes": 3,
         "classification_type": head}
    ).build()  # fmt: skip
    assert model(torch.randn(2, 4, 64)).shape == shape


def test_an_unknown_head_is_refused_by_name():
    with pytest.raises(ConfigError, match="FEMBA: head: .*'per_channel'.*found 'xx'"):
        from_constructor({"num_classes": 2, "classification_type": "xx"})


def test_an_unknown_argument_names_the_nearest():
    with pytest.raises(ConfigError, match=r"FEMBA: .*'num_block'.*\n.*'num_blocks'"):
        from_constructor({"num_block": 2})


def test_a_window_is_decoded_to_its_own_length():
    model = FembaConfig(n_channels=4, n_times=64, n_filters=3, depth=1).build()
    assert model(torch.randn(1, 4, 64)).shape == (1, 4, 64)

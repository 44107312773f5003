"""What makes a run another one: every key of its config is known to decide its weights, or not."""

from types import SimpleNamespace

import pytest

from neurofm.pretrain.run import PretrainConfig
from neurofm.tokenizers.run import TokenizeConfig

SAME = {
    "stores": ("b",), "folder": "elsewhere", "snapshot_every": 3, "resume": "never",
    "accelerator": "auto", "threads": 1,
}  # fmt: skip
OTHER = {
    "optim": {"lr": 0.2}, "steps": 8, "seed": 1, "precision": "bf16-mixed",
    "loader": {"token_budget": 99},
}  # fmt: skip
KEYS = {
    PretrainConfig: (
        SAME | {"codes": "stored", "tokenizer_from": "elsewhere"},
        OTHER | {"encoder": {"width": 16}, "objective": {"name": "code_prediction"}},
    ),
    TokenizeConfig: (
        SAME | {"quality": {"windows": 3}},
        OTHER | {
            "held_out": ("a",), "objective": {"noise": 0.3}, "tokenizer": {"name": "vqnsp"},
        },
    ),
}  # fmt: skip


def identity(kind, **values):
    needed = {"stores": ("a",), "folder": "here", "steps": 7}
    if kind is PretrainConfig:
        config = kind.model_validate({**needed, "encoder": {}, "tokenizer_from": "x"} | values)
        return config.identity(SimpleNamespace(digest="1"))
    return kind.model_validate(needed | values).identity()


@pytest.mark.parametrize("kind", KEYS)
def test_what_decides_the_weights_is_another_run_and_nothing_else_is(kind):
    same, other = KEYS[kind]
    loader = kind.model_fields["loader"].get_default(call_default_factory=True)
    same = same | {"loader": loader.model_copy(update={"prefetch": 9, "workers": 3})}
    assert set(same) | set(other) == set(kind.model_fields)
    first = identity(kind)
    for key, value in same.items():
        assert identity(kind, **{key: value}) == first, key
    for key, value in other.items():
        assert identity(kind, **{key: value}) != first, key
    assert identity(kind, loader={"cut": "anywhere"}) != first


def test_a_tokenizer_is_known_by_its_weights_and_not_by_its_place():
    config = PretrainConfig(stores=("a",), folder="here", steps=7, encoder={}, tokenizer_from="x")
    ours, theirs = (SimpleNamespace(digest=d) for d in "12")
    assert config.identity(ours) != config.identity(theirs)

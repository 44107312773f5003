"""What published models refuse."""

import json

import golden_harness as harness
import pytest
import torch
from safetensors.torch import load_file

from neurofm.errors import CheckpointError, ConfigError
from neurofm.nn.weights import check_fit
from neurofm.published.cbramod import CBraModConfig
from neurofm.published.labram import LaBraMConfig
from neurofm.published.table import PUBLISHED

MODELS = [
    folder
    for folder in harness.fixtures(harness.golden_folder())
    if harness.model_of(folder) in PUBLISHED
]
LABRAM = {"patch_size": 200, "embed_dim": 100, "out_chans": 4, "depth": 1, "num_heads": 5}


def test_filters_that_do_not_give_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"LaBraM: 4 filters give 100 features.*\n.*width to 100"):
        LaBraMConfig(n_filters=4, width=200).build()
    with pytest.raises(ConfigError, match=r"CBraMod: patches of 100 samples give 100 features.*"):
        CBraModConfig(patch_len=100).build()


def test_windows_beyond_the_table_of_times_are_refused():
    model = LaBraMConfig(n_filters=4, width=100, depth=1).build()
    with pytest.raises(ConfigError, match=r"17 patches in a window; its table of times ends at 16"):
        model(torch.zeros(1, 1, 17, 200), torch.tensor([0, 1]))


def test_the_fine_tuning_form_cannot_hide():
    model = LaBraMConfig(n_filters=4, width=100, depth=1).build()
    with pytest.raises(ConfigError, match="the fine-tuning form has no mask token"):
        model(torch.zeros(1, 1, 2, 200), torch.tensor([0, 1]), torch.ones(1, 2, dtype=torch.bool))


def test_arguments_without_a_counterpart_are_refused():
    entry = PUBLISHED["LaBraM encoder (fine-tuning form)"]
    with pytest.raises(ConfigError, match="use_rel_pos_bias = True has no counterpart here"):
        entry.from_constructor({**LABRAM, "use_rel_pos_bias": True})
    with pytest.raises(
        ConfigError, match=r"unknown constructor argument 'num_head'.*\n.*num_heads"
    ):
        entry.from_constructor({**LABRAM, "num_head": 3})


@pytest.mark.golden
@pytest.mark.parametrize("folder", MODELS, ids=lambda p: p.name)
def test_a_weight_too_many_or_too_few_is_refused(folder):
    fixture = json.loads((folder / "fixture.json").read_text(encoding="utf-8"))
    entry = PUBLISHED[fixture["model"]]
    weights = load_file(folder / "weights.safetensors")
    entry.load(fixture["constructor"], weights)
    with pytest.raises(CheckpointError, match="channel_embed"):
        entry.load(fixture["constructor"], {**weights, "channel_embed": torch.zeros(1)})
    needed = entry.from_constructor(fixture["constructor"]).build().state_dict()
    whole = entry.weights(weights)
    for name in list(weights)[:: 1 + len(weights) // 30]:
        fewer = {n: value for n, value in weights.items() if n != name}
        try:
            check_fit(needed, entry.weights(fewer), "original state dict")
        except CheckpointError:
            continue
        assert set(entry.weights(fewer)) == set(whole), name  # it has no counterpart

"""What constructors of other originals say, beyond what the reference fixtures happen to say."""

import json

import golden_harness as harness
import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.nn.place_time import PlaceTime
from neurofm.nn.residual_codes import ResidualCodes
from neurofm.published.duin_original import head_rules
from neurofm.published.entry import rename
from neurofm.published.reve import REVEConfig, REVEPretrainingConfig
from neurofm.published.table import PUBLISHED

FIRST = {}
for folder in reversed(harness.fixtures(harness.golden_folder())):
    FIRST[harness.model_of(folder)] = folder
# parts of Du-IN's arguments that a model of it does not have
UNREAD = {
    "Du-IN VQ-VAE": {"cls", "contra"},
    "Du-IN masked code prediction": {"decoder", "vq", "rgs", "desubj", "contra"},
    "Du-IN classifier": {"decoder", "vq", "rgs", "desubj"},
}
# what is told of losses, of whoever trains, and of kinds of signal
FREE = {"loss", "training", "contrastive", "in_channels", "hidden"}
BARISTA = {
    "backbone": {"num_layers": 1, "num_heads": 2, "d_hidden": 8, "activation": "silu"},
    "tokenizer": {
        "temporal_encoder": {"depth": 1, "hidden_dims": 2, "kernel_size": 3},
        "temporal_subsegment_len": 16,
        "temporal_subsegment_step": 16,
        "samp_frequency": 64,
        "num_seconds": 0.5,
        "d_hidden": 8,
        "spatial_grouping": "lobes",
    },
    "sessions": [{"name": "a", "batch": 1, "channels": 3}],
    "downstream_outputs": 2,
}


def config(model, constructor):
    return PUBLISHED[model].from_constructor(constructor)


@pytest.mark.golden
@pytest.mark.parametrize("model", [model for model in PUBLISHED if model in FIRST])
def test_arguments_that_nobody_knows_are_refused_wherever_they_are(model):
    constructor = json.loads((FIRST[model] / "fixture.json").read_text(encoding="utf-8"))[
        "constructor"
    ]
    unread = FREE | UNREAD.get(model, set())
    for path in [(), *nested(constructor)]:
        if unread & set(path):
            continue
        part = changed = json.loads(json.dumps(constructor))
        for key in path:
            part = part[key]
        part["tangerine"] = 1
        with pytest.raises(ConfigError, match="tangerine"):
            config(model, changed)


def nested(values, path=()):
    for key, value in values.items():
        if isinstance(value, dict):
            yield (*path, key)
            yield from nested(value, (*path, key))


def test_half_of_an_odd_number_of_heads_is_rounded_down():
    assert config("CBraMod", {"nhead": 5}).n_heads == 4
    assert config("BrainOmni", {"lm_head": 7}).n_heads == 6


def test_lunas_norms_are_those_of_torch():
    assert config("LUNA", {"norm_layer": "LayerNorm(eps=1e-5)"}).n_classes == 0
    with pytest.raises(ConfigError, match=r"norm_layer = 'LayerNorm\(eps=1e-6\)' has no counterp"):
        config("LUNA", {"norm_layer": "LayerNorm(eps=1e-6)"})


def test_eegpts_norms_add_what_they_are_told():
    small = {"depth": 1, "num_heads": 1}
    constructor = {
        "encoder": {"embed_dim": 8, **small},
        "predictor": {"predictor_embed_dim": 4, **small},
        "reconstructor": {"reconstructor_embed_dim": 12, **small},
    }
    model = "EEGPT (encoder, predictor, reconstructor)"
    assert config(model, constructor).norm_eps == 1e-5
    built = config(model, {**constructor, "norm_layer": "LayerNorm(eps=1e-6)"}).build()
    assert {m.eps for m in built.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}
    constructor["predictor"]["use_part_pred"] = False
    with pytest.raises(ConfigError, match="use_part_pred = False has no counterpart"):
        config(model, constructor)


def test_revs_decoder_may_have_a_width_of_its_own_where_nothing_is_pooled():
    sizes = {"patch_len": 20, "overlap": 0, "depth": 1, "n_heads": 1, "head_width": 4}
    encoder = REVEConfig(**sizes, width=8, n_frequencies=2, pools=False)
    decoder = REVEConfig(**sizes, width=6, n_frequencies=2)
    model = REVEPretrainingConfig(encoder=encoder, decoder=decoder).build()
    visible, masked = torch.tensor([[0, 2]]), torch.tensor([[1, 3]])
    entered = model.decoder_input(torch.randn(1, 2, 8), torch.randn(1, 4, 8), visible, masked)
    assert entered.shape == (1, 4, 6)
    with pytest.raises(ConfigError, match="built without a query"):
        model.encoder.pool(torch.randn(1, 2, 8))
    with pytest.raises(ConfigError, match="built without a pooled token"):
        model.from_pooled(torch.randn(1, 8), torch.randn(1, 4, 8), masked)
    pooling = encoder.model_copy(update={"pools": True})
    with pytest.raises(ConfigError, match="the encoder is 8 wide and the decoder 6"):
        REVEPretrainingConfig(encoder=pooling, decoder=decoder).build()


def test_too_few_waves_for_a_place_are_refused():
    PlaceTime(32, 2)
    with pytest.raises(
        ConfigError, match=r"2 waves an axis are 32 features(.|\n)*at least 3 waves"
    ):
        PlaceTime(34, 2)


def test_heads_of_du_in_are_found_past_what_flattens_and_drops():
    original = {
        f"cls_block.cls_head.{number}.0.{leaf}": torch.zeros(1)
        for number in (1, 2, 10)
        for leaf in ("weight", "bias")
    }
    found = rename(original, head_rules(original))
    assert list(found) == [
        f"head.layers.{i}.{leaf}" for i in range(3) for leaf in ("weight", "bias")
    ]


def test_baristas_settings_say_what_is_built():
    found = config("BaRISTA (lobes)", BARISTA)
    assert (found.n_tokens, found.n_out, found.backbone.activation) == (6, 2, "swiglu")
    ratio = {**BARISTA, "backbone": {**BARISTA["backbone"], "mlp_ratio": 2.7}}
    model = config("BaRISTA (lobes)", ratio).build()
    assert model.backbone.blocks[0].feedforward.narrow.in_features == int(8 * 2.7)
    for change, message in (
        ({"temporal_subsegment_step": 8}, "temporal_subsegment_step = 8"),
        ({"add_spatial_encoding": False}, "add_spatial_encoding = False"),
        ({"embedding_max_dim": 3}, "embedding_max_dim = 3"),
        ({"spatial_grouping": "head"}, "tables"),
    ):
        changed = {**BARISTA, "tokenizer": {**BARISTA["tokenizer"], **change}}
        with pytest.raises(ConfigError, match=message):
            config("BaRISTA (lobes)", changed)
    for change, message in (
        ({"d_out": 4}, "d_out = 4 has no counterpart"),
        ({"norm": "layernorm"}, "norm = 'layernorm' has no counterpart"),
        ({"activation": "relu6"}, "activation"),
    ):
        changed = {**BARISTA, "backbone": {**BARISTA["backbone"], **change}}
        with pytest.raises(ConfigError, match=message):
            config("BaRISTA (lobes)", changed)


def test_codes_of_their_own_width_are_mapped_to_and_from():
    codes = ResidualCodes(3, 8, 6, code_width=4).eval()
    assert [level.vectors.shape for level in codes.levels] == [(8, 4)] * 3
    x = torch.randn(2, 5, 6)
    found = codes(x)
    assert found.content.shape == x.shape
    torch.testing.assert_close(codes.lookup(found.codes), found.content)
    first = codes.levels[0](codes.map_in[0](x)).content
    left = x - codes.map_out[0](first)
    assert torch.equal(codes.levels[1](codes.map_in[1](left)).codes, found.codes[..., 1])


def test_other_ways_to_learn_codes_are_refused():
    with pytest.raises(ConfigError, match="quantize_optimize_method = 'sim' has no counterpart"):
        config("BrainTokenizer", {"quantize_optimize_method": "sim"})
    assert config("BrainTokenizer", {"n_dim": 16, "codebook_dim": 4}).code_width == 4

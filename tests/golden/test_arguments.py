"""What constructors of originals say, beyond what the reference fixtures happen to say."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.published.entry import constructor_values, norm_eps, section
from neurofm.published.labram import LaBraMConfig
from neurofm.published.mamba import mixer_config
from neurofm.published.table import PUBLISHED


def config(model, **constructor):
    return PUBLISHED[model].from_constructor(constructor)


# ---------------------------------------------------------------------------------------
# Arguments as such


def test_defaults_of_the_original_hold_where_nothing_is_said():
    values = constructor_values(
        {"b": 3}, {"a": "x", "b": "y"}, model="M", defaults={"a": 1, "b": 2}
    )
    assert values == {"x": 1, "y": 3}


def test_an_argument_with_one_value_is_refused_with_another():
    for value in (True, 0):
        found = constructor_values({"a": value}, {"a": "x"}, model="M", only={"b": None})
        assert found == {"x": value}
    with pytest.raises(ConfigError, match=r"M: b = 2 has no counterpart here\n.*b = None"):
        constructor_values({"b": 2}, {}, model="M", only={"b": None})
    with pytest.raises(ConfigError, match=r"unknown constructor argument 'c'; known: a, b"):
        constructor_values({"c": 2}, {"a": "x"}, model="M", only={"b": None})


def test_a_part_without_arguments_is_missed_by_name():
    with pytest.raises(ConfigError, match=r"M: the constructor lacks the arguments of its encoder"):
        section({"encoder": None}, "encoder", model="M")


@pytest.mark.parametrize(
    ("told", "eps"),
    [(None, 1e-5), ("LayerNorm", 1e-5), ("LayerNorm(eps=1e-6)", 1e-6), ("nn.LayerNorm()", 1e-5)],
)
def test_the_norm_of_an_original_says_what_it_adds(told, eps):
    assert norm_eps(told, model="M") == eps


def test_other_norms_are_refused():
    with pytest.raises(ConfigError, match=r"M: the norm 'RMSNorm' has no counterpart here"):
        norm_eps("RMSNorm", model="M")


def test_a_value_of_a_wrong_type_is_refused_by_the_name_of_the_model():
    with pytest.raises(ConfigError, match=r"constructor of BIOT: depth: .*, found 'deep'"):
        config("BIOT encoder + classifier", depth="deep")


# ---------------------------------------------------------------------------------------
# Model by model


def test_mamba_2_has_the_defaults_of_mamba_ssm():
    mixer = mixer_config("mamba2", {"d_model": 64}).mixer
    assert (mixer.d_state, mixer.headdim) == (128, 64)
    assert mixer_config("mamba2", {"d_model": 8, "d_state": 3, "headdim": 4}).mixer.d_state == 3


def test_mamba_may_widen_by_a_fraction():
    found = mixer_config("mamba1", {"d_model": 7, "expand": 1.5})
    assert found.build().D.shape == (10,)
    whole = mixer_config("mamba1", {"d_model": 7, "expand": 2}).mixer
    assert whole.to_dict()["expand"] == 2
    assert isinstance(whole.expand, int)  # so that digests of configs stay as they are
    with pytest.raises(
        ConfigError, match=r"expand = 0.1 leaves no inner channel at width 7\n.*1 or"
    ):
        mixer_config("mamba1", {"d_model": 7, "expand": 0.1}).build()


def test_labrams_hidden_features_and_heads_are_rounded_down():
    given = {"embed_dim": 100, "out_chans": 4, "depth": 1}
    model = config(
        "LaBraM encoder (fine-tuning form)", **given, num_heads=12, mlp_ratio=2.667
    ).build()
    assert model.blocks[0].feedforward.widen.out_features == 266
    assert model.blocks[0].attention.project_in.out_features == 3 * 12 * 8


def test_labrams_norms_add_what_they_are_told():
    model = config(
        "LaBraM encoder (fine-tuning form)",
        depth=1,
        norm_layer="LayerNorm(eps=1e-4)",
        qk_norm="LayerNorm(eps=1e-3)",
    ).build()
    block = model.blocks[0]
    assert model.norm.eps == block.norm_attention.eps == 1e-4
    assert block.attention.norm_q.eps == 1e-3


def test_labrams_forms_have_the_defaults_of_their_own():
    fine, masked = (
        config(f"LaBraM {form}", depth=1)
        for form in ("encoder (fine-tuning form)", "masked code modelling")
    )
    assert (fine.n_out, fine.qkv_bias) == (1000, False)
    assert (masked.n_out, masked.qkv_bias) == (8192, True)


def test_labram_may_pool_by_its_class_token():
    model = LaBraMConfig(n_filters=4, width=100, depth=1, pooling="class").build()
    tokens = torch.randn(2, 7, 100)
    assert torch.equal(model.pool(tokens), model.norm(tokens)[:, 0])


def test_vqnsp_reads_codes_of_its_own_width_and_samples_without_being_told_of_filters():
    found = config(
        "LaBraM VQNSP tokenizer",
        encoder_config={"in_chans": 1, "depth": 1, "init_values": 0.0},
        decoder_config={"in_chans": 99, "depth": 1, "init_values": 0.0},
        embed_dim=12,
        smooth_l1_loss=True,
    )
    assert found.encoder.n_filters == 8
    assert (found.decoder.patch_len, found.decoder.n_filters) == (12, None)
    model = found.build()
    model.error = lambda guess, target: torch.tensor(7.0)
    terms = model(torch.randn(1, 2, 3, 200), torch.tensor([0, 1, 2]))
    assert found.smooth_l1
    assert terms["amplitude"] == terms["phase"] == 7

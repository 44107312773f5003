"""What MEG-GPT's constructor says, beyond what the reference fixtures happen to say."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.nn.sinusoid import sinusoid
from neurofm.published.table import PUBLISHED

EMBEDDING = {"n_tokens": 9, "embedding_dim": 16}
FLAT = {"n_patches_in": [6], "patch_len_in": [1], "n_patches_out": [4], "patch_len_out": [1]}


def config(embedding=None, n_layers=1, **decoder):
    layers = {
        **dict.fromkeys(("unpatched_len_in",), [0] * n_layers),
        **dict.fromkeys(("l_unpatched_b", "l_patched_b"), [None] * n_layers),
        **dict.fromkeys(("do_chan_attention", "do_cross_attention"), [False] * n_layers),
    }
    constructor = {
        "n_channels": 3,
        "input_embedding": {**EMBEDDING, **(embedding or {})},
        "transformer_decoder": {"model_dim": 16, "feed_forward_dim": 8, **layers, **decoder},
        "loss": {"loss_sequence_length": 3},
    }
    return PUBLISHED["MEG-GPT"].from_constructor(constructor)


def test_what_is_not_said_is_as_in_the_original():
    found = config(**FLAT)
    assert (found.n_heads, found.activation, found.times.n_rows) == (1, "relu", 6)
    # no band of recent moments is a band as long as what comes in
    assert (found.layers[0].recent_band, found.layers[0].band) == (6, None)


def test_what_a_layer_gives_out_follows_from_the_next():
    found = config(n_layers=2, n_patches_in=[12, 3], patch_len_in=[1, 4], n_patches_out=None)
    assert [layer.n_out for layer in found.layers] == [12, 3]


def test_layers_that_are_not_said_for_all_are_refused():
    with pytest.raises(ConfigError, match=r"do not say the same number of layers\n.*l_patched_b"):
        config(**{**FLAT, "patch_len_in": [1, 1]})


def test_times_may_be_sines_and_cosines_which_are_not_stored():
    model = config({"pos_embedding_type": "sinusoidal", "pos_embedding_dim": 8}, **FLAT).build()
    assert torch.equal(model.times.table.table, sinusoid(6, 8))
    assert [name for name in model.state_dict() if name.startswith("times.")] == [
        "times.project.weight",
        "times.project.bias",
    ]


def test_times_may_turn_queries_and_keys():
    model = config({"pos_embedding_type": "rope", "rope_base": 50.0}, **FLAT).build()
    assert model.times is None
    for_query, for_key = model.layers[0]._turns(torch.randn(2, 6, 16))
    for query, key in zip(for_query[:2], for_key[:2], strict=True):
        assert torch.equal(query, key[-4:])  # queries are the last moments
    assert torch.allclose(for_key[0][1, 0, 4], torch.tensor(50.0**-0.5).cos())
    codes = torch.randint(9, (1, 3, 6)).expand(2, -1, -1).clone()
    codes[1] = codes[1].roll(1, -1)
    scores = model(codes)
    assert not torch.allclose(scores[0], scores[1])  # order counts, by turns alone
    model.layers[0].rotary = None
    unturned = model(codes[:, :, [1, 0, 2, 3, 4, 5]])[:, :, -1]
    torch.testing.assert_close(unturned, model(codes)[:, :, -1])


def test_turned_patches_are_refused():
    with pytest.raises(ConfigError, match="rotary time needs layers without patches"):
        config(
            {"pos_embedding_type": "rope"},
            **{**FLAT, "n_patches_in": [3], "patch_len_in": [2]},
        ).build()


def test_channels_may_attend_to_mixtures_of_channels():
    model = config(**FLAT | {"do_chan_attention": [True], "chan_attn_chandim": 2}).build()
    channels = model.layers[0].channels
    assert channels.attention.sees.shape == (3, 2)
    x = torch.randn(2, 3, 6, 16)
    assert channels.gather(x).shape == x.shape
    with torch.no_grad():
        channels.mix.weight.zero_()
        channels.mix.weight[:, 1] = 1.0
        channels.mix.bias.zero_()
    changed = x.clone()
    changed[:, 2] += 1.0  # the mixtures are of the second channel alone
    torch.testing.assert_close(channels.gather(changed)[:, :2], channels.gather(x)[:, :2])


def test_other_norms_are_refused():
    with pytest.raises(ConfigError, match="norm_type = 'batch' has no counterpart here"):
        config(**FLAT, norm_type="batch")

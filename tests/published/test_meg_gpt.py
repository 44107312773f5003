"""What MEG-GPT refuses, and what its parts promise."""

import math

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.published.meg_gpt import LayerConfig, LookupConfig, MEGGPTConfig, next_code_loss
from neurofm.published.table import PUBLISHED

SMALL = MEGGPTConfig(
    codes=LookupConfig(n_rows=7, width=3),
    times=LookupConfig(n_rows=16),
    channels=LookupConfig(n_rows=3),
    labels=(LookupConfig(n_rows=2),),
    lookup_width=6,
    width=8,
    n_heads=2,
    hidden=8,
    layers=(
        LayerConfig(n_patches=16, n_out=16),
        LayerConfig(n_patches=4, patch_len=4, n_recent=4, n_out=8),
    ),
)


def model(**changes):
    torch.manual_seed(0)
    return SMALL.model_copy(update=changes).build().eval()


def codes():
    torch.manual_seed(1)
    return torch.randint(7, (2, 3, 16)), [torch.tensor([[0], [1]]).expand(2, 16)]


def test_scores_depend_on_the_past_of_their_channel_alone():
    x, labels = codes()
    gpt = model()
    scores = gpt(x, labels)
    assert scores.shape == (2, 3, 8, 7)
    other = x.clone()
    other[:, 1, 12:] = (other[:, 1, 12:] + 1) % 7
    change = (gpt(other, labels) - scores).abs().amax(-1) > 1e-5
    assert not change[:, [0, 2]].any()
    assert not change[:, 1, :4].any()
    assert change[:, 1, 4:].all()


@pytest.mark.parametrize("channels", ["before", "beside"])
def test_channels_see_each_other_where_that_is_asked_for_and_never_what_follows(channels):
    x, labels = codes()
    layer = SMALL.layers[0].model_copy(update={"channels": channels})
    gpt = model(layers=(layer,))
    scores = gpt(x, labels)
    other = x.clone()
    other[:, 1, 12:] = (other[:, 1, 12:] + 1) % 7
    change = (gpt(other, labels) - scores).abs().amax(-1) > 1e-5
    assert not change[..., :12].any()
    assert change[..., 12:].all()


def test_labels_matter():
    x, labels = codes()
    gpt = model()
    assert (gpt(x, labels) - gpt(x, [1 - labels[0]])).abs().max() > 1e-4


def test_every_weight_learns():
    x, labels = codes()
    layers = tuple(
        layer.model_copy(update={"channels": kind})
        for layer, kind in zip(SMALL.layers, ("before", "beside"), strict=True)
    )
    gpt = model(layers=layers)
    loss = next_code_loss(gpt(x, labels)[:, :, :-1], x[:, :, -7:], n_last=7)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gpt.parameters())


def test_the_loss_counts_the_last_moments():
    scores = torch.zeros(1, 1, 4, 7)
    scores[0, 0, 0, 3] = 100  # wrong, and not counted
    following = torch.zeros(1, 1, 4, dtype=torch.long)
    assert next_code_loss(scores, following, n_last=3) == pytest.approx(math.log(7))
    assert next_code_loss(scores, following, n_last=4) > 20


def test_layers_that_do_not_fit_are_refused():
    layers = (LayerConfig(n_patches=16, n_out=12), LayerConfig(n_patches=4, patch_len=4, n_out=8))
    with pytest.raises(ConfigError, match=r"12 moments come to layer 1, which takes in 16 \(4 pat"):
        model(layers=layers)


def test_windows_that_do_not_fit_are_refused():
    x, labels = codes()
    with pytest.raises(ConfigError, match=r"2 channels, 16 moments and 1 labels; .* for 3, 16 and"):
        model()(x[:, :2], labels)
    with pytest.raises(ConfigError, match=r"3 channels, 16 moments and 0 labels"):
        model()(x)


def constructor(**changes):
    one = [1]
    layers = {
        **dict.fromkeys(("n_patches_out", "patch_len_out", "patch_len_in"), one),
        **{name: [False] for name in ("do_chan_attention", "do_cross_attention")},
        **{name: [None] for name in ("l_unpatched_b", "l_patched_b")},
        "n_patches_in": [4],
        "unpatched_len_in": [0],
    }
    sizes = {"n_heads": 1, "model_dim": 2, "feed_forward_dim": 2}
    decoder = {**sizes, "feed_forward_activation": "swish", **layers, **changes}
    embedding = {"n_tokens": 5, "embedding_dim": 2}
    return {
        "sequence_length": 4,
        "n_channels": 1,
        "input_embedding": embedding,
        "transformer_decoder": decoder,
    }


def test_arguments_without_a_counterpart_are_refused():
    entry = PUBLISHED["MEG-GPT"]
    assert entry.from_constructor(constructor()).activation == "silu"
    for changes, message in (
        ({"norm_type": "batch"}, r"norm_type = 'batch' has no counterpart"),
        ({"do_cross_attention": [True]}, "without do_chan_attention has nothing to gather from"),
        ({"n_head": 2}, r"unknown constructor argument 'n_head'(.|\n)*n_heads"),
    ):
        with pytest.raises(ConfigError, match=message):
            entry.from_constructor(constructor(**changes))

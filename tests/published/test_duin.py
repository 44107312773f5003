"""What Du-IN refuses, and what its parts promise."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.published.duin import DuINConfig, StackConfig
from neurofm.published.duin_tasks import DuINClassifierConfig, MaskedDuINConfig
from neurofm.published.duin_tokenizer import DuINTokenizerConfig
from neurofm.published.table import PUBLISHED

STACK = StackConfig(width=8, depth=1, n_heads=2, head_width=4, hidden=8)
SMALL = DuINConfig(
    n_subjects=2,
    n_channels=3,
    n_virtual=4,
    patch_len=10,
    filters=(4, 4),
    kernels=(9, 3),
    strides=(5, 1),
    encoder=STACK,
)
SIGNAL, SUBJECT = torch.randn(2, 3, 40), torch.tensor([0, 1])


def constructor(**changes):
    layers = {"n_filters": [4], "kernel_sizes": [9], "n_strides": [5], "dilation_rates": [1]}
    stack = {"d_model": 8, "n_blocks": 1, "n_heads": 2, "d_head": 4, "d_ff": 8}
    whole = {
        "subj": {"n_subjects": 1, "d_input": 3, "d_output": 4},
        "tokenizer": {"seg_len": 10, "use_res": [False], **layers},
        "encoder": stack,
        "cls": {"d_hidden": [], "n_tokens": 5},
    }
    for part, values in changes.items():
        whole[part] = {**whole[part], **values} if isinstance(values, dict) else values
    return whole


def from_constructor(**changes):
    return PUBLISHED["Du-IN masked code prediction"].from_constructor(constructor(**changes))


def test_the_defaults_are_as_large_as_published():
    model = DuINClassifierConfig().build()
    n = sum(p.numel() for p in model.parameters())
    # 4.38 million, of which the quantiser that no output depends on has 0.18
    assert n / 1e6 == pytest.approx(4.38 - 0.18, rel=0.01)


def test_features_that_do_not_give_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"gives 8 features, and tokens have 9(.|\n)*width to 8"):
        SMALL.model_copy(update={"encoder": STACK.model_copy(update={"width": 9})}).build()


def test_a_window_of_broken_patches_is_refused():
    with pytest.raises(ConfigError, match="a window of 41 samples is no whole number of patches"):
        SMALL.build()(torch.zeros(1, 3, 41), torch.tensor([0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"norm_first": True}}, "Du-IN encoder: norm_first = True has no counterpart"),
        ({"tokenizer": {"use_res": [True]}}, r"tokenizer: use_res = \[True\] has no counterpart"),
        ({"encoder": {"depth": 2}}, "Du-IN encoder: unknown constructor argument 'depth'"),
        ({"seg_length": 3}, r"Du-IN: unknown constructor argument 'seg_length'.*\n.*seg_len"),
    ],
)
def test_arguments_without_a_counterpart_are_refused(changes, message):
    assert from_constructor().n_codes == 5
    with pytest.raises(ConfigError, match=message):
        from_constructor(**changes)


def test_scores_of_a_patch_do_not_know_its_content():
    model = MaskedDuINConfig(encoder=SMALL, n_codes=5).build().eval()
    hide = torch.tensor([[True, False, True, False]]).expand(2, -1)
    other = SIGNAL.clone()
    other[..., 10:20] += 3  # the second patch, which the second pass hides
    same = (model(SIGNAL, SUBJECT, hide) == model(other, SUBJECT, hide)).all(-1)
    assert same[:, 1].all()
    assert not same[:, 0].any()


def test_contrast_is_least_where_classes_are_apart():
    model = DuINClassifierConfig(encoder=SMALL, n_patches=4, n_classes=2, contrast_width=8).build()
    with torch.no_grad():
        model.to_contrast.weight.copy_(torch.eye(8))
        model.to_contrast.bias.zero_()
    apart = torch.zeros(4, 4, 8)
    apart[:2, :, 0], apart[2:, :, 1] = 1, 1
    right, wrong = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    assert model.contrast(apart, right) < model.contrast(apart, wrong)


def test_the_tokenizer_learns_from_the_channels_that_count():
    config = DuINTokenizerConfig(
        encoder=SMALL,
        n_codes=6,
        code_width=4,
        decoder=STACK,
        filters=(4, 4),
        kernels=(3, 10),
        strides=(1, 10),
        n_virtual=4,
    )
    torch.manual_seed(0)
    model = config.build()
    counts = torch.tensor([[True, True, True], [True, True, False]])
    terms = model(SIGNAL, SUBJECT, counts)
    terms.total.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert not without
    model.eval()
    other = SIGNAL.clone()
    other[1, 2] += 100
    found = model.quantise(SIGNAL, SUBJECT)
    guess = model.reconstruct(found.content, SUBJECT)
    first, second = (
        model.terms(found, guess, signal, counts).reconstruction for signal in (SIGNAL, other)
    )
    assert first == second

"""Convolutions of patches under a norm that runs over the window."""

import pytest
import torch

from neurofm.nn.patch_convs import PatchConvs, as_maps

FORMS = {"convolved": 50, "mapped": 21}  # samples in a patch: many beside the kernel, or few


def convs(*, filters_fast=False):
    torch.manual_seed(0)
    part = PatchConvs(
        8, 4, kernels=(15, 3), strides=(8, 1), paddings=(7, 1), filters_fast=filters_fast
    )
    for norm in part.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return part


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "n"), [(15, 8, 7, 50), (3, 1, 1, 4), (4, 3, 0, 9)]
)
def test_a_convolution_as_a_matrix_is_that_convolution(kernel, stride, padding, n):
    weight, x = torch.randn(5, 2, kernel), torch.randn(3, 2, n)
    convolved = torch.nn.functional.conv1d(x, weight, stride=stride, padding=padding)
    mapped = x.flatten(1) @ as_maps(weight, n, stride, padding).T
    torch.testing.assert_close(mapped, convolved.flatten(1))


@pytest.mark.parametrize("some_padded", [False, True])
def test_patches_of_few_samples_are_mapped_to_the_same_numbers_and_gradients(some_padded):
    x = torch.randn(2, 6, 21)
    present = torch.rand(2, 6) < 0.7 if some_padded else None
    found = []
    for few in (True, False):
        part = convs()
        assert part._few_samples(21)
        part._few_samples = lambda patch_len, few=few: few
        out = part(x, present)
        out.square().sum().backward()
        found.append([out, *(p.grad for p in part.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_features_are_filters_times_steps():
    part = convs()
    assert part(torch.randn(2, 5, 50)).shape == (2, 5, 8 * 7)
    assert part.n_features(50) == 8 * 7


@pytest.mark.parametrize("form", FORMS)
def test_filters_follow_each_other_or_steps_do(form):
    x = torch.randn(2, 5, FORMS[form])
    steps_fast = convs()(x).unflatten(-1, (8, -1))
    fast = convs(filters_fast=True)(x)
    torch.testing.assert_close(fast, steps_fast.transpose(2, 3).flatten(2))


@pytest.mark.parametrize("form", FORMS)
def test_saying_that_all_are_present_changes_nothing(form):
    part, x = convs(), torch.randn(2, 5, FORMS[form])
    torch.testing.assert_close(
        part(x, torch.ones(2, 5, dtype=torch.bool)), part(x), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("form", FORMS)
def test_what_is_padded_reaches_no_other_patch(form):
    part, x = convs(), torch.randn(2, 5, FORMS[form])
    present = torch.tensor([[True] * 5, [True, False, True, False, True]])
    alone = part(x[1:, ::2])
    x[1, 1::2] = 1e3
    torch.testing.assert_close(part(x, present)[1:, ::2], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_patches_share_one_norm(form):
    part, x = convs(), torch.randn(1, 4, FORMS[form])
    louder = x.clone()
    louder[:, 0] *= 10
    assert (part(louder)[:, 1:] - part(x)[:, 1:]).abs().max() > 0.1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_present", [0, 1])
def test_a_window_of_few_patches_stays_finite(n_present, form):
    present = torch.arange(3)[None] < n_present
    assert convs()(torch.randn(1, 3, FORMS[form]), present).isfinite().all()

"""Convolutions of patches under a norm that runs over the window."""

import pytest
import torch

from neurofm.nn.patch_convs import PatchConvs


def convs():
    torch.manual_seed(0)
    part = PatchConvs(8, 4, kernels=(15, 3), strides=(8, 1), paddings=(7, 1))
    for norm in part.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return part


def test_features_are_filters_times_steps():
    part = convs()
    assert part(torch.randn(2, 5, 50)).shape == (2, 5, 8, 7)
    assert part.n_features(50) == 8 * 7


def test_saying_that_all_are_present_changes_nothing():
    part, x = convs(), torch.randn(2, 5, 50)
    torch.testing.assert_close(
        part(x, torch.ones(2, 5, dtype=torch.bool)), part(x), atol=1e-5, rtol=0
    )


def test_what_is_padded_reaches_no_other_patch():
    part, x = convs(), torch.randn(2, 5, 50)
    present = torch.tensor([[True] * 5, [True, False, True, False, True]])
    alone = part(x[1:, ::2])
    x[1, 1::2] = 1e3
    torch.testing.assert_close(part(x, present)[1:, ::2], alone, atol=1e-5, rtol=0)


def test_patches_share_one_norm():
    part, x = convs(), torch.randn(1, 4, 50)
    louder = x.clone()
    louder[:, 0] *= 10
    assert (part(louder)[:, 1:] - part(x)[:, 1:]).abs().max() > 0.1


@pytest.mark.parametrize("n_present", [0, 1])
def test_a_window_of_few_patches_stays_finite(n_present):
    present = torch.arange(3)[None] < n_present
    assert convs()(torch.randn(1, 3, 50), present).isfinite().all()

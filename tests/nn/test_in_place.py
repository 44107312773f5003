"""What nothing needs any more is written over; what something needs is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from neurofm.nn.block import Block
from neurofm.nn.cross_attention import CrossBlock
from neurofm.nn.feedforward import ActivationName, FeedForward
from neurofm.nn.in_place import add_to, gelu, overwritable
from neurofm.nn.magnitude_phase import MagnitudePhase
from neurofm.nn.patch_convs import PatchConvs
from neurofm.published.biot import BIOTLayer

PATCH_LEN = 40


def convs() -> PatchConvs:
    return PatchConvs(
        4, 2, kernels=(19, 3, 3), strides=(10, 1, 1), paddings=(9, 1, 1), filters_fast=True
    )


class Fed(nn.Module):
    def __init__(self, part: nn.Module, feed: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.part, self.feed = part, feed

    def forward(self, x: Tensor) -> Tensor:
        return self.feed(self.part, x)


def block() -> Fed:
    part = Block(PATCH_LEN, 4, attention="full", hidden=24)
    return Fed(part, lambda part, x: part(x[:, :, None], None, None))


def cross_block() -> Fed:
    return Fed(CrossBlock(PATCH_LEN, 4, 24), lambda part, x: part(x, x))


MODULES: dict[str, Callable[[], nn.Module]] = {
    **{
        name: partial(FeedForward, PATCH_LEN, 24, activation=name)
        for name in get_args(ActivationName)
    },
    "magnitude_phase": partial(MagnitudePhase, PATCH_LEN, 16),
    "patch_convs": convs,
    "block": block,
    "cross_block": cross_block,
    "biot": partial(BIOTLayer, PATCH_LEN, 4),
}


@pytest.fixture(params=sorted(MODULES))
def module(request: pytest.FixtureRequest) -> nn.Module:
    return MODULES[request.param]().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, PATCH_LEN, generator=torch.Generator().manual_seed(1))


def test_inference_gives_what_training_gives_and_leaves_what_came_in(
    module: nn.Module, x: Tensor
) -> None:
    before = x.clone()
    with_gradient = module(x)
    with torch.no_grad():
        without = module(x)
        again = module(x)
    torch.testing.assert_close(without, with_gradient.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(again, without, rtol=0, atol=0)
    assert torch.equal(x, before)


def test_what_a_hook_keeps_is_what_the_part_gave(module: nn.Module, x: Tensor) -> None:
    kept: dict[str, list[Tensor]] = {"kept": [], "copied": []}

    def keep(part: nn.Module, args: Any, out: Tensor) -> None:
        kept["kept"].append(out)
        kept["copied"].append(out.clone())

    parts = [part for part in module.modules() if not list(part.children())]
    handles = [part.register_forward_hook(keep) for part in parts]
    with torch.no_grad():
        watched = module(x)
    assert kept["kept"]
    for now, then in zip(kept["kept"], kept["copied"], strict=True):
        assert torch.equal(now, then)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        torch.testing.assert_close(module(x), watched, rtol=0, atol=0)


def test_a_frozen_part_before_a_trained_one_is_bent_without_harm_to_gradients(x: Tensor) -> None:
    def gradient(out: Tensor) -> Tensor:
        head.zero_grad()
        head(out).square().sum().backward()
        assert head.weight.grad is not None
        return head.weight.grad.clone()

    part, head = FeedForward(PATCH_LEN, 24), nn.Linear(PATCH_LEN, 2)
    trained = gradient(part(x))
    frozen = gradient(part.requires_grad_(False)(x))
    torch.testing.assert_close(frozen, trained, rtol=1e-6, atol=1e-6)


def test_only_what_has_no_gradient_and_no_hook_may_be_written_over(x: Tensor) -> None:
    part = nn.Linear(PATCH_LEN, 2)
    assert not overwritable(part(x), part)
    with torch.no_grad():
        assert overwritable(part(x), part)
        handle = part.register_forward_hook(lambda *_: None)
        assert not overwritable(part(x), part)
        handle.remove()
    assert overwritable(part.requires_grad_(False)(x), part)


def test_bending_in_place_writes_where_features_lie(x: Tensor) -> None:
    at = x.data_ptr()
    bent = gelu(x.clone())
    assert gelu(x, inplace=True).data_ptr() == at
    torch.testing.assert_close(x, bent, rtol=0, atol=0)


def test_a_sum_is_written_over_its_first_part_only_without_gradients_and_in_one_dtype(
    x: Tensor,
) -> None:
    y, wide, start = torch.ones_like(x), x.double(), x.clone()
    grown = y.clone().requires_grad_()
    assert add_to(x, grown).requires_grad and torch.equal(x, start)
    assert add_to(x, wide).dtype == torch.float64 and torch.equal(x, start)
    assert add_to(x, y) is x
    torch.testing.assert_close(x, start + y, rtol=0, atol=0)

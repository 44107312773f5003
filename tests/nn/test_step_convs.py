"""Convolutions along time, and maps of a subject's own channels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.nn.step_convs import StepConvs, TransposedStepConvs
from neurofm.nn.subject_map import SubjectMap

SHAPES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=3)


@settings(max_examples=25)
@given(shapes=SHAPES, n_samples=st.integers(20, 60))
def test_features_are_as_many_as_announced(shapes, n_samples):
    kernels, strides = zip(*shapes, strict=True)
    convs = StepConvs(3, [4] * len(shapes), kernels, strides).eval()
    expected = convs.n_features(n_samples)
    x = torch.zeros(2, 3, n_samples)
    if expected > 0:
        assert convs(x).shape == (2, expected)


@settings(max_examples=25)
@given(
    strides=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    longer=st.integers(0, 5),
    steps=st.integers(3, 8),
)
def test_transposed_convolutions_multiply_the_steps_by_their_strides(strides, longer, steps):
    kernels = [s + longer for s in strides]
    if any(2 * -(-longer // 2) - longer >= s for s in strides):
        return  # torch pads an output by less than a stride
    convs = TransposedStepConvs(2, [2] * len(strides), kernels, strides)
    assert convs(torch.zeros(1, 2, steps)).shape[-1] == steps * torch.tensor(strides).prod()


def test_steps_run_slow_and_filters_fast():
    convs = StepConvs(1, [2], [1], [1]).eval()
    with torch.no_grad():
        convs.convs[0].weight.copy_(torch.tensor([[[1.0]], [[10.0]]]))
        convs.convs[0].bias.zero_()
    out = convs(torch.tensor([[[1.0, 2.0]]]))
    torch.testing.assert_close(out, torch.tensor([[1.0, 10.0, 2.0, 20.0]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_each_subject_has_its_own_map(bias):
    torch.manual_seed(0)
    maps = SubjectMap(3, 4, 2, bias=bias)
    signal, subject = torch.randn(3, 4, 5), torch.tensor([2, 0, 2])
    out = maps(signal, subject)
    expected = maps.weight[2].T @ signal[0] + (maps.bias[2][:, None] if bias else 0)
    torch.testing.assert_close(out[0], expected)
    with torch.no_grad():
        maps.weight[0] += 1
    changed = (maps(signal, subject) != out).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]

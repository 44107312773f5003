"""A convolution of each feature by itself, and its gradients."""

import pytest
import torch

from neurofm.errors import ConfigError
from neurofm.nn.depthwise_conv import DepthwiseConv


@pytest.mark.parametrize("n_windows", [1, 3])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_torch(n_windows, memory):
    torch.manual_seed(0)
    conv = DepthwiseConv(6, (5, 3)).double()
    x = torch.randn(n_windows, 6, 4, 7).double().contiguous(memory_format=memory)
    x.requires_grad_()
    asked = [x, conv.weight, conv.bias]
    found = []
    for out in (conv(x), torch.nn.Conv2d.forward(conv, x)):
        weight = torch.arange(out.numel()).view_as(out).double().sin()
        found.append([out, *torch.autograd.grad((out * weight).sum(), asked)])
    torch.testing.assert_close(found[0], found[1])


def test_gradients_have_gradients():
    conv = DepthwiseConv(2, (3, 3)).double()
    x = torch.randn(2, 2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(conv, (x,))
    assert torch.autograd.gradgradcheck(conv, (x,))


def test_half_precision_is_left_to_torch():
    conv, x = DepthwiseConv(4, (3, 3)), torch.randn(2, 4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert conv.weight.grad.isfinite().all()


def test_even_kernels_are_refused():
    with pytest.raises(ConfigError, match=r"odd length, and has \(4, 3\)\n.*longer by one"):
        DepthwiseConv(2, (4, 3))

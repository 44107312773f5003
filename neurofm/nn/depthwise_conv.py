"""A convolution of each feature by itself, over a plane, whose gradient is as fast as it is."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm.errors import ConfigError


class DepthwiseConv(nn.Conv2d):
    """Convolve each feature with a kernel of its own, as long as what goes in.

    On a CPU, the gradient of the kernels is taken as a convolution too, a window's features by
    what is asked of them: torch's own takes fifteen times as long as the convolution.

    Parameters
    ----------
    width : int
        Features D.
    kernel : tuple of int
        Taps along both axes; odd, so that each has a middle.

    Raises
    ------
    ConfigError
        If a kernel is even.
    """

    def __init__(self, width: int, kernel: tuple[int, int]):
        if not all(taps % 2 for taps in kernel):
            raise ConfigError(
                f"a depthwise convolution needs kernels of odd length, and has {kernel}",
                hint="make each one longer by one",
            )
        padding = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(width, width, kernel, padding=padding, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, D, C, P) to the same shape."""
        plain = x.device.type != "cpu" or torch.compiler.is_compiling()
        if plain or torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
            return super().forward(x)
        return _ByConvolutions.apply(x, self.weight, self.bias, self.padding)


class _ByConvolutions(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
        return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        n_windows, width, *plane = x.shape
        for_x = F.conv2d(grad, weight.flip(2, 3), padding=ctx.padding, groups=width)
        # features of windows are groups of one long row of them
        taps = grad.reshape(n_windows * width, 1, *plane)
        row = x.reshape(1, n_windows * width, *plane)
        by_window = F.conv2d(row, taps, padding=ctx.padding, groups=n_windows * width)
        for_weight = by_window.unflatten(1, (n_windows, width)).sum((0, 1))[:, None]
        return for_x, for_weight, grad.sum((0, 2, 3)), None

"""Time as something that is added to tokens, beside rotary angles that attention sees.

B windows, S sites, P patches, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from neurofm.errors import ConfigError, SignalError
from neurofm.nn.sinusoid import sinusoid

TimeName = Literal["rotary", "sinusoid", "learned", "conv", "none"]


class SinusoidTime(nn.Module):
    """Waves of the patch's number, as in BIOT and Du-IN."""

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Add to tokens (B, S, P, D), of which the first is of patch number `first`."""
        n = first + x.shape[2]
        return x + sinusoid(n, x.shape[-1])[first:].to(x)


class LearnedTime(nn.Module):
    """A row for each patch, as in LaBraM.

    Parameters
    ----------
    n_rows, width : int
        Patches of the longest window, and D.
    """

    def __init__(self, n_rows: int, width: int):
        super().__init__()
        self.rows = nn.Parameter(torch.empty(n_rows, width))
        nn.init.trunc_normal_(self.rows, std=0.02)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Add to tokens (B, S, P, D); as `SinusoidTime.forward`.

        Raises
        ------
        SignalError
            If there is no row for the last.
        """
        stop = first + x.shape[2]
        if stop > len(self.rows):
            raise SignalError(
                f"a window of {stop} patches, and the backbone has learned the times of "
                f"{len(self.rows)}",
                hint="cut shorter windows, or train it with more backbone.time_rows",
            )
        return x + self.rows[first:stop]


class ConvTime(nn.Module):
    """A convolution over the patches of each site, feature by feature, as in CBraMod and BENDR.

    CBraMod's also runs over channels in the order they come; this one does not.

    Parameters
    ----------
    kernel, width : int
        Patches it looks at, an odd number, and D.

    Raises
    ------
    ConfigError
        If the kernel has no middle.
    """

    def __init__(self, kernel: int, width: int):
        super().__init__()
        if kernel % 2 == 0:
            raise ConfigError(
                f"a convolution over {kernel} patches has no middle",
                hint=f"set time_kernel to {kernel + 1}",
            )
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:  # noqa: ARG002 - it sees differences
        """Add to tokens (B, S, P, D), which are zero where nothing is present."""
        moved = self.conv(x.flatten(0, 1).transpose(1, 2)).transpose(1, 2)
        return x + moved.unflatten(0, x.shape[:2])


def build_time(name: TimeName, width: int, *, n_rows: int, kernel: int) -> nn.Module | None:
    """Build what is added to tokens; None where that is nothing.

    Raises
    ------
    ConfigError
        If the kernel has no middle.
    """
    if name == "sinusoid":
        return SinusoidTime()
    if name == "learned":
        return LearnedTime(n_rows, width)
    return ConvTime(kernel, width) if name == "conv" else None

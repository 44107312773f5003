"""Tokens of patches that span channels and time."""

from __future__ import annotations

from torch import Tensor, nn


class PatchPlane(nn.Conv2d):
    """One linear map from a rectangle of channels and samples to a token, as FEMBA has it.

    Parameters
    ----------
    patch : (int, int)
        Channels and samples of a patch.
    width : int
        Features of a token.
    stride : (int, int), optional
        Channels and samples from patch to patch; a patch by default.
    """

    def __init__(
        self, patch: tuple[int, int], width: int, *, stride: tuple[int, int] | None = None
    ):
        super().__init__(1, width, patch, stride=stride or patch)

    def forward(self, signal: Tensor) -> Tensor:
        """Map signals (B, C, T) to tokens (B, groups, P, width)."""
        return super().forward(signal[:, None]).permute(0, 2, 3, 1)

    def n_tokens(self, n_channels: int, n_times: int) -> tuple[int, int]:
        """Return the groups of channels and the patches in time that a signal has."""
        shape = zip((n_channels, n_times), self.kernel_size, self.stride, strict=True)
        groups, patches = ((size - patch) // stride + 1 for size, patch, stride in shape)
        return groups, patches

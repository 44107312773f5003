"""Tokens from convolutions along the samples of each patch, as published models have them.

B windows, C channels (the sites), P patches, L samples in one, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.nn.dilated_convs import DilatedConvs
from neurofm.nn.patch_convs import PatchConvs, labram_convs
from neurofm.nn.strided_convs import StridedConv
from neurofm.tokenizers.patch import PatchConfig, Tokenizer, log_amplitude
from neurofm.tokenizers.spectra import Magnitudes

NormOver = Literal["patch", "window"]


class _PatchConvsConfig(PatchConfig):
    """What the two forms of `PatchConvs` share."""

    norm_over: NormOver = "patch"
    spectrum: Literal[False] = False

    def around(self, content: PatchConvTokens, contract: SignalContract, width: int) -> Tokenizer:
        """Return a tokenizer around the convolutions."""
        kind = WindowNormed if self.norm_over == "window" else Tokenizer
        return kind(content, self.patch_len(contract), contract.sfreq, width, self.place)


class LabramConvConfig(_PatchConvsConfig):
    """LaBraM's temporal convolutions (Jiang et al. 2024, sec. 2.2).

    Parameters
    ----------
    norm_over : "patch" or "window"
        What the group norms run over. As published it is all channels and patches of a window,
        so that every token depends on what is hidden in others; by default it is one patch, and
        the amplitude that the norm takes away is handed on beside.
    n_filters : int
        Filters of each of three convolutions; a multiple of four.
    """

    name: Literal["labram_conv"] = "labram_conv"
    n_filters: int = Field(default=8, ge=4, multiple_of=4)

    def build(self, contract: SignalContract, width: int) -> Tokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        convs, length = labram_convs(self.n_filters), self.patch_len(contract)
        content = PatchConvTokens(convs, length, width, norm_over=self.norm_over)
        return self.around(content, contract, width)


class CbramodConvConfig(_PatchConvsConfig):
    """CBraMod's sum of temporal convolutions and a spectrum (Wang et al. 2025, sec. 2.2).

    Parameters
    ----------
    norm_over : "patch" or "window"
        As in `LabramConvConfig`.
    n_filters : int
        Filters of each of three convolutions; a multiple of five.
    """

    name: Literal["cbramod_conv"] = "cbramod_conv"
    n_filters: int = Field(default=25, ge=5, multiple_of=5)

    def build(self, contract: SignalContract, width: int) -> Tokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        convs = PatchConvs(
            self.n_filters,
            5,
            kernels=(49, 3, 3),
            strides=(25, 1, 1),
            paddings=(24, 1, 1),
            filters_fast=False,
        )
        length = self.patch_len(contract)
        content = PatchConvTokens(
            convs,
            length,
            width,
            norm_over=self.norm_over,
            spectrum=Magnitudes(length, norm="forward"),
        )
        return self.around(content, contract, width)


class PatchConvTokens(nn.Module):
    """Convolutions of each patch, and its spectrum where there is one.

    Normalised over the window, filters that are already as wide as a token are the token, as in
    the published models.

    Parameters
    ----------
    convs : PatchConvs
        Maps patches to filters times steps.
    patch_len, width : int
        L and D.
    norm_over : "patch" or "window"
        What the norms run over.
    spectrum : Magnitudes, optional
        Maps patches to what is added after a linear map.
    """

    def __init__(
        self,
        convs: PatchConvs,
        patch_len: int,
        width: int,
        *,
        norm_over: NormOver,
        spectrum: Magnitudes | None = None,
    ):
        super().__init__()
        n_features = convs.n_features(patch_len)
        self.convs = convs
        self.over_patch = norm_over == "patch"
        self.project: nn.Module = nn.Identity()
        if self.over_patch or n_features != width:
            self.project = nn.Linear(n_features + self.over_patch, width)
        self.magnitudes = spectrum
        self.spectrum = None if spectrum is None else nn.Linear(spectrum.n_features, width)

    def forward(self, patches: Tensor, present: Tensor | None = None) -> Tensor:
        """Map patches (B, C, P, L) to tokens (B, C, P, D).

        Norms over the window are of patches that are `present` (B, C, P).
        """
        if self.over_patch:
            x = self.convs(patches.reshape(-1, 1, patches.shape[-1]))
        else:
            x = self.convs(patches.flatten(1, 2), None if present is None else present.flatten(1))
        x = x.reshape(*patches.shape[:-1], -1)
        if self.over_patch:
            x = torch.cat((x, log_amplitude(patches).to(x.dtype)), dim=-1)
        x = self.project(x)
        if self.spectrum is None or self.magnitudes is None:
            return x
        return x + self.spectrum(self.magnitudes(patches).to(patches.dtype))


class WindowNormed(Tokenizer):
    """A tokenizer whose content depends on which patches of the window are present."""

    def tokens(self, patches: Tensor, present: Tensor) -> Tensor:
        """Map patches (B, C, P, L) to content (B, C, P, D); padding has no say in the norms."""
        return self.content(patches, present)


# ---------------------------------------------------------------------------------------
# Strided and dilated


class StridedConvConfig(PatchConfig):
    """Strided convolutions within each patch of each channel, after BENDR and S-JEPA.

    BENDR (Kostas et al. 2021) convolves all channels of one montage together; S-JEPA (Guetschel
    et al. 2024) each by itself, which is what any montage needs. Norms run over one patch.

    Parameters
    ----------
    n_filters : int
        Features of each convolution.
    kernels, strides : tuple of int
        Of each; even kernels are made odd by one more sample.
    """

    name: Literal["strided_conv"] = "strided_conv"
    n_filters: int = Field(default=32, ge=2)
    kernels: tuple[int, ...] = Field(default=(3, 2, 2, 2), min_length=1)
    strides: tuple[int, ...] = Field(default=(3, 2, 2, 2), min_length=1)

    def build(self, contract: SignalContract, width: int) -> Tokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, or kernels and strides are not as many.
        """
        if len(self.kernels) != len(self.strides):
            raise ConfigError(
                f"strided_conv: {len(self.kernels)} kernels and {len(self.strides)} strides",
                hint="give one of each for every convolution",
            )
        length = self.patch_len(contract)
        content = StridedTokens(self.n_filters, self.kernels, self.strides, length, width)
        return self.tokenizer(content, contract, width)


class StridedTokens(nn.Module):
    """Strided convolutions, and the amplitude that their norms take away.

    Parameters
    ----------
    n_filters : int
        Features of each convolution.
    kernels, strides : sequence of int
        Of each.
    patch_len, width : int
        L and D.
    """

    def __init__(
        self,
        n_filters: int,
        kernels: Sequence[int],
        strides: Sequence[int],
        patch_len: int,
        width: int,
    ):
        super().__init__()
        # over all features of a patch: in pairs, one step of one patch would be left with signs
        self.stages = nn.Sequential(
            *(
                StridedConv(n_filters if i else 1, n_filters, kernel, stride, n_groups=1)
                for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True))
            )
        )
        n_steps = patch_len
        for stride in strides:
            n_steps = -(-n_steps // stride)
        self.project = nn.Linear(n_steps * n_filters + 1, width)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches, shape (..., L) to (..., D)."""
        x = self.stages(patches.reshape(-1, 1, patches.shape[-1])).flatten(1)
        x = x.unflatten(0, patches.shape[:-1])
        return self.project(torch.cat((x, log_amplitude(patches).to(x.dtype)), dim=-1))


class DilatedConvConfig(PatchConfig):
    """Dilated convolutions within each patch, then a linear map, after BaRISTA.

    Parameters
    ----------
    depth : int
        Blocks, each looking twice as far as the one before (Oganesian et al. 2025).
    n_filters, kernel : int
        Features, and samples of each convolution.
    """

    name: Literal["dilated_conv"] = "dilated_conv"
    depth: int = Field(default=4, ge=1)
    n_filters: int = Field(default=5, ge=1)
    kernel: int = Field(default=3, ge=1)

    def build(self, contract: SignalContract, width: int) -> Tokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        length = self.patch_len(contract)
        content = DilatedTokens(
            DilatedConvs(self.depth, self.n_filters, self.kernel, bias=False), length, width
        )
        return self.tokenizer(content, contract, width)


class DilatedTokens(nn.Module):
    """Dilated convolutions, whose output is as long as the patch, and a linear map.

    Parameters
    ----------
    convs : DilatedConvs
        Keeps the number of samples.
    patch_len, width : int
        L and D.
    """

    def __init__(self, convs: DilatedConvs, patch_len: int, width: int):
        super().__init__()
        self.convs = convs
        self.project = nn.Linear(patch_len, width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches, shape (..., L) to (..., D)."""
        x = self.convs(patches.reshape(-1, 1, patches.shape[-1]))[:, 0]
        return self.project(x.unflatten(0, patches.shape[:-1]))

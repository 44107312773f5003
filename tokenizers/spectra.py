"""Tokens from spectra of each patch.

B windows, C channels (the sites), P patches, L samples in one, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.nn.polar import magnitude
from neurofm.nn.spectrum import FLOOR
from neurofm.signals import whole_samples
from neurofm.tokenizers.patch import PatchConfig, Tokenizer

FftNorm = Literal["ortho", "forward"]


class Magnitudes(nn.Module):
    """Magnitudes of the Fourier transform of frames of a patch, in float32.

    Parameters
    ----------
    patch_len : int
        L.
    n_fft, hop : int, optional
        Samples in a frame, and from frame to frame; by default one frame is the patch. Zeros fill
        the last frame.
    norm : "ortho" or "forward"
        White noise of unit variance has magnitudes near one; or they are divided by the samples.
    hann : bool
        Taper frames.
    log : bool
        Return log power.
    """

    window: Tensor | None

    def __init__(
        self,
        patch_len: int,
        n_fft: int | None = None,
        hop: int | None = None,
        *,
        norm: FftNorm = "ortho",
        hann: bool = False,
        log: bool = False,
    ):
        super().__init__()
        self.n_fft = n_fft or patch_len
        self.hop = hop or self.n_fft
        self.norm = norm
        self.log = log
        self.n_frames = 1 - (-(max(patch_len - self.n_fft, 0)) // self.hop)
        self.short = (self.n_frames - 1) * self.hop + self.n_fft - patch_len
        self.n_features = self.n_frames * (self.n_fft // 2 + 1)
        window = None
        if hann:
            window = torch.hann_window(self.n_fft, periodic=True)
            window = window / window.square().mean().sqrt()
        self.register_buffer("window", window, persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (..., L) to (..., n_features): frames slow, frequencies fast."""
        frames = F.pad(patches.float(), (0, self.short)).unfold(-1, self.n_fft, self.hop)
        if self.window is not None:
            frames = frames * self.window.float()
        spectrum = torch.fft.rfft(frames, dim=-1, norm=self.norm)
        values = magnitude(spectrum)
        return (torch.log(values.square() + FLOOR) if self.log else values).flatten(-2)


class StftConfig(PatchConfig):
    """A linear map of the short-time Fourier transform of each patch, after BIOT and BrainBERT.

    BIOT (Yang et al. 2023) takes magnitudes of frames of one second without taper; BrainBERT (Wang
    et al. 2023) those of short tapered frames that overlap. Frames stay inside a patch, so that no
    token shows what another one hides.

    Parameters
    ----------
    frame_s : float, optional
        Length of a frame in seconds; by default that of a patch.
    hop_s : float, optional
        From frame to frame; by default half a frame. Of no effect if a frame is a patch.
    taper : "none" or "hann"
        What frames are multiplied with.
    values : "magnitude" or "log_power"
        What is taken of each frequency.
    """

    name: Literal["stft"] = "stft"
    frame_s: float | None = Field(default=None, gt=0)
    hop_s: float | None = Field(default=None, gt=0)
    taper: Literal["none", "hann"] = "none"
    values: Literal["magnitude", "log_power"] = "magnitude"
    spectrum: Literal[False] = False

    def build(self, contract: SignalContract, width: int) -> Tokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, frames are no whole number of samples, or longer
            than a patch.
        """
        length = self.patch_len(contract)
        n_fft = length if self.frame_s is None else whole_samples(self.frame_s, contract.sfreq)
        if n_fft > length:
            raise ConfigError(
                f"stft: frames of {self.frame_s:g} s do not fit into patches of {self.patch_s:g} s",
                hint=f"set frame_s to at most {self.patch_s:g}",
            )
        half = max(1, n_fft // 2)
        hop = half if self.hop_s is None else whole_samples(self.hop_s, contract.sfreq)
        magnitudes = Magnitudes(
            length, n_fft, hop, hann=self.taper == "hann", log=self.values == "log_power"
        )
        return self.tokenizer(SpectralTokens([magnitudes], width), contract, width)


class MultiScaleSpectraConfig(PatchConfig):
    """The sum of linear maps of spectra at several resolutions, after NeuroBOLT.

    NeuroBOLT (Li et al. 2024) has frames of 0.5 to 4 s in windows of 16 s, one sum of all of them;
    here each patch is divided into one frame, two, four and so on.

    Parameters
    ----------
    n_scales : int
        Resolutions.
    """

    name: Literal["multi_scale_spectra"] = "multi_scale_spectra"
    n_scales: int = Field(default=3, ge=1)
    spectrum: Literal[False] = False

    def build(self, contract: SignalContract, width: int) -> Tokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        length = self.patch_len(contract)
        scales = [Magnitudes(length, -(-length // 2**i)) for i in range(self.n_scales)]
        return self.tokenizer(SpectralTokens(scales, width), contract, width)


class SpectralTokens(nn.Module):
    """The sum of a linear map of each spectrum.

    Parameters
    ----------
    scales : list of Magnitudes
        What maps patches to spectra.
    width : int
        D.
    """

    def __init__(self, scales: list[Magnitudes], width: int):
        super().__init__()
        self.scales = nn.ModuleList(scales)
        self.projects = nn.ModuleList(nn.Linear(scale.n_features, width) for scale in scales)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches, shape (..., L) to (..., D)."""
        maps = zip(self.scales, self.projects, strict=True)
        return torch.stack(
            [project(scale(patches).to(patches.dtype)) for scale, project in maps]
        ).sum(0)

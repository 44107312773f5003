"""Tokens from fixed patches of each channel: one token a channel and patch.

B windows, C channels (the sites), T samples, P patches, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, ContractError, SignalError
from neurofm.nn.spectrum import LogPower
from neurofm.readers import WindowReader
from neurofm.signals import Batch, Grid, whole_samples
from neurofm.tokenizers.place import FourierPlaceConfig, PlaceConfig

QUIET = 1e-3  # deviations; below it a patch counts as silent


class PatchConfig(Config):
    """What patch tokenizers share.

    Parameters
    ----------
    patch_s : float
        Length of a patch in seconds: a whole number of samples, and a whole number of
        patches in a window.
    spectrum : bool
        Add a linear map of the patch's log power spectrum to its token, as CBraMod does
        (Wang et al. 2025, sec. 2.2): power is no linear function of the samples, and a small
        model spends long on learning it.
    place : PlaceConfig
        How a token knows where it is.
    """

    # what an encoder decides, whatever was trained
    of_the_slot: ClassVar[frozenset[str]] = frozenset({"discrete", "frozen", "place", "embed"})

    patch_s: float = Field(default=1.0, gt=0)
    spectrum: bool = False
    place: PlaceConfig = FourierPlaceConfig()

    def patch_len(self, contract: SignalContract) -> int:
        """Return the samples in one patch.

        Raises
        ------
        ConfigError
            If a patch is no whole number of samples, or a window no whole number of patches.
        """
        patch_len = whole_samples(self.patch_s, contract.sfreq)
        if contract.n_times % patch_len:
            fits = max(1, contract.n_times // patch_len) * self.patch_s
            raise ConfigError(
                f"a window of {contract.window_s:g} s is "
                f"{contract.n_times / patch_len:g} patches of {self.patch_s:g} s, "
                "not a whole number",
                hint=f"choose another patch_s, or a contract with window_s: {fits:g}",
            )
        return patch_len

    def fitted(
        self,
        reader: WindowReader,  # noqa: ARG002
        recordings: Iterable[str],  # noqa: ARG002
        like: PatchConfig | None = None,  # noqa: ARG002
    ) -> Self:
        """Return the config with what it has to know of the recordings that are trained on.

        Most need to know nothing. See `neurofm.tokenizers.regions.RegionsConfig.fitted`.
        """
        return self

    def tokenizer(self, content: nn.Module, contract: SignalContract, width: int) -> Tokenizer:
        """Return a tokenizer around what maps samples to tokens."""
        patch_len = self.patch_len(contract)
        if self.spectrum:
            log_power = LogPower(patch_len, contract.sfreq, contract.band_hz)
            content = WithSpectrum(content, log_power, width)
        return Tokenizer(content, patch_len, contract.sfreq, width, self.place)


class LinearPatchConfig(PatchConfig):
    """One linear map from the samples of a patch to its token."""

    name: Literal["linear_patch"] = "linear_patch"

    def build(self, contract: SignalContract, width: int) -> Tokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        return self.tokenizer(nn.Linear(self.patch_len(contract), width), contract, width)


class ConvPatchConfig(PatchConfig):
    """Small temporal convolutions within a patch, then a linear map.

    Parameters
    ----------
    n_filters : int
        Channels of each convolution; a multiple of four.
    kernel, stride : int
        Of the first convolution, in samples.
    """

    name: Literal["conv_patch"] = "conv_patch"
    n_filters: int = Field(default=8, ge=4, multiple_of=4)
    kernel: int = Field(default=15, ge=1)
    stride: int = Field(default=8, ge=1)

    def build(self, contract: SignalContract, width: int) -> Tokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, or the kernel has no middle.
        """
        if self.kernel % 2 == 0:
            raise ConfigError(
                f"conv_patch: a kernel of {self.kernel} samples has no middle",
                hint=f"set kernel to {self.kernel + 1}",
            )
        return self.tokenizer(ConvPatch(self, self.patch_len(contract), width), contract, width)


class ConvPatch(nn.Module):
    """Three temporal convolutions within each patch, after LaBraM (Jiang et al., 2024).

    Group norm works on one patch at a time, so nothing passes from patch to patch, nor from
    padding. It also takes a patch's amplitude away, which carries band power: the logarithm
    of the amplitude is handed on beside the filters' output.

    Parameters
    ----------
    config : ConvPatchConfig
        Hyper-parameters.
    patch_len : int
        Samples in.
    width : int
        Features out.
    """

    def __init__(self, config: ConvPatchConfig, patch_len: int, width: int):
        super().__init__()
        n = config.n_filters
        self.filters = nn.Sequential(
            nn.Conv1d(1, n, config.kernel, stride=config.stride, padding=config.kernel // 2),
            nn.GroupNorm(4, n),
            nn.GELU(),
            nn.Conv1d(n, n, 3, padding=1),
            nn.GroupNorm(4, n),
            nn.GELU(),
            nn.Conv1d(n, n, 3, padding=1),
            nn.GroupNorm(4, n),
            nn.GELU(),
        )
        n_steps = (patch_len - 1) // config.stride + 1
        self.project = nn.Linear(n * n_steps + 1, width)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches, shape (..., patch_len) to (..., width)."""
        flat = patches.reshape(-1, 1, patches.shape[-1])
        features = self.filters(flat).flatten(1)
        amplitude = log_amplitude(flat[:, 0]).to(features.dtype)
        tokens = self.project(torch.cat((features, amplitude), dim=-1))
        return tokens.unflatten(0, patches.shape[:-1])


def log_amplitude(patches: Tensor) -> Tensor:
    """Map patches (..., patch_len) to the logarithm of their amplitude (..., 1)."""
    return 0.5 * patches.square().mean(-1, keepdim=True).clamp_min(QUIET**2).log()


class WithSpectrum(nn.Module):
    """The sum of a token of the samples and one of their log power spectrum.

    Parameters
    ----------
    samples : Module
        Maps patches (..., patch_len) to (..., width).
    log_power : LogPower
        Maps patches to (..., n_bins).
    width : int
        Features out.
    """

    def __init__(self, samples: nn.Module, log_power: LogPower, width: int):
        super().__init__()
        self.samples = samples
        self.log_power = log_power
        self.project = nn.Linear(len(log_power.bins), width)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches, shape (..., patch_len) to (..., width)."""
        rhythms = self.log_power(patches).to(patches.dtype)
        return self.samples(patches) + self.project(rhythms)


class Tokenizer(nn.Module):
    """Patches into content, sensors into place.

    Parameters
    ----------
    content : Module
        Maps patches (..., patch_len) to (..., width).
    patch_len : int
        Samples in a patch.
    sfreq : float
        Sampling rate in hertz of the signals it is for.
    width : int
        Features of a token.
    place : PlaceConfig, optional
        How a token knows where it is.

    Attributes
    ----------
    sites_are_channels : bool
        Whether a token is one of a channel, with that channel's number.
    """

    sites_are_channels: ClassVar[bool] = True

    def __init__(
        self,
        content: nn.Module,
        patch_len: int,
        sfreq: float,
        width: int,
        place: PlaceConfig | None = None,
    ):
        super().__init__()
        self.content = content
        self.place = (place or FourierPlaceConfig()).build(width)
        self.patch_len = patch_len
        self.sfreq = sfreq
        self.width = width

    def n_patches(self, n_times: int) -> int:
        """Return the number of patches in a window.

        Raises
        ------
        SignalError
            If `n_times` samples are not a whole number of patches.
        """
        if n_times < self.patch_len or n_times % self.patch_len:
            raise SignalError(
                f"a window of {n_times} samples is {n_times / self.patch_len:g} patches of "
                f"{self.patch_len} samples, not a whole number",
                hint=f"cut windows of a multiple of {self.patch_len / self.sfreq:g} s",
            )
        return n_times // self.patch_len

    def example(self) -> tuple[int, list[int]] | None:
        """Return codes of a subject and of names of its channels, if not any will do."""
        return None

    def patches(self, signal: Tensor) -> Tensor:
        """Cut signals (B, C, T) into patches (B, C, P, patch_len)."""
        return signal.unflatten(-1, (self.n_patches(signal.shape[-1]), self.patch_len))

    def tokens(self, patches: Tensor, present: Tensor) -> Tensor:
        """Map patches (B, C, P, patch_len), some of them `present`, to content (B, C, P, D)."""
        return self.content(patches)

    def forward(self, batch: Batch) -> Grid:
        """Make tokens.

        Parameters
        ----------
        batch : Batch
            Standardised windows.

        Returns
        -------
        Grid
            One site a channel; content is zero where a channel is padding.

        Raises
        ------
        ContractError
            If the batch has another sampling rate than the tokenizer.
        SignalError
            If a tensor has the wrong shape.
        """
        self._check(batch)
        patches = self.patches(batch.signal)
        dtype = self.place.kind.weight.dtype
        present = batch.present[..., None].expand(patches.shape[:3])
        # replaced before and after: a value that is not finite in padding spoils no gradient
        patches = patches.masked_fill(~present[..., None], 0.0)
        content = self.tokens(patches.to(dtype), present).masked_fill(~present[..., None], 0.0)
        return Grid(
            content=content,
            place=self.place.of(batch, self.patch_len / self.sfreq, patches.shape[2]),
            present=present,
            position=batch.position,
            located=batch.located,
            whole=batch.whole,
        )

    def _check(self, batch: Batch) -> None:
        if batch.sfreq != self.sfreq:
            raise ContractError(
                f"the batch is sampled at {batch.sfreq:g} Hz, the tokenizer is for "
                f"{self.sfreq:g} Hz",
                hint="preprocess the recordings under the checkpoint's contract",
            )
        if batch.signal.ndim != 3:
            raise SignalError(
                f"batch: signal has shape {tuple(batch.signal.shape)}, expected (B, C, T)"
            )
        n_windows, n_channels, _ = batch.signal.shape
        for name in ("kind", "located", "oriented", "present", "position", "orientation"):
            last = (3,) if name in {"position", "orientation"} else ()
            found = tuple(getattr(batch, name).shape)
            if found != (n_windows, n_channels, *last):
                raise SignalError(
                    f"batch: {name} has shape {found}, expected {(n_windows, n_channels, *last)}"
                )

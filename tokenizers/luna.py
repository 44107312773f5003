"""One token for all channels of a patch, gathered by a few queries: LUNA's tokenizer.

B windows, C channels, P patches of L samples, Q queries, E features inside, D width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.nn.initialise import initialise_linear
from neurofm.nn.magnitude_phase import MagnitudePhase
from neurofm.nn.patch_convs import PatchConvs
from neurofm.nn.unify import Unify
from neurofm.signals import Batch, Grid
from neurofm.tokenizers.convs import NormOver, PatchConvTokens
from neurofm.tokenizers.patch import PatchConfig, Tokenizer

_N_GROUPS = 4  # of filters that share a norm


class LunaConfig(PatchConfig):
    """Queries gather the channels of a patch, after LUNA (Döner et al. 2025).

    The token of a patch is what all queries gathered, side by side: what a backbone costs does
    not depend on the number of channels. Channels are convolved, and their spectra have magnitude
    and phase; each then knows its place, by any of `place`.

    Parameters
    ----------
    inner : int
        E. The published model is that in which ``inner * n_queries`` is the width, and no map
        brings one to the other.
    n_queries : int
        Q.
    n_heads : int
        Heads of the queries' attention, which share E.
    n_filters : int
        Filters of each of three convolutions; a multiple of four. Published are ``inner / 4``,
        whose four steps then need no map either.
    norm_over : "patch" or "window"
        As in `LabramConvConfig`; published is the window.
    """

    name: Literal["luna"] = "luna"
    spectrum: Literal[False] = False
    inner: int = Field(default=32, ge=2)
    n_queries: int = Field(default=4, ge=1)
    n_heads: int = Field(default=2, ge=1)
    n_filters: int = Field(default=8, ge=_N_GROUPS, multiple_of=_N_GROUPS)
    norm_over: NormOver = "patch"

    def build(self, contract: SignalContract, width: int) -> LunaTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, or heads do not share `inner`.
        """
        return LunaTokenizer(self, contract, width)


class LunaTokenizer(Tokenizer):
    """Channels of a patch into one token.

    Parameters
    ----------
    config : LunaConfig
        Architecture.
    contract : SignalContract
        The signals it is for.
    width : int
        D.
    """

    sites_are_channels: ClassVar[bool] = False

    def __init__(self, config: LunaConfig, contract: SignalContract, width: int):
        length = config.patch_len(contract)
        kernel = max(1, length // 2 - 1) | 1  # odd, as all that have a middle
        convs = PatchConvs(
            config.n_filters,
            _N_GROUPS,
            kernels=(kernel, 3, 3),
            strides=(max(1, length // 4), 1, 1),
            paddings=(kernel // 2, 1, 1),
            filters_fast=True,
        )
        content = PatchConvTokens(convs, length, config.inner, norm_over=config.norm_over)
        super().__init__(content, length, contract.sfreq, config.inner, config.place)
        self.width = width
        self.spectrum = MagnitudePhase(length, config.inner)
        self.unify = Unify(config.n_queries, config.inner, config.n_heads)
        for layer in self.unify.modules():
            if isinstance(layer, nn.Linear):
                initialise_linear(layer)
        # magnitudes of noise of unit variance are about the root of the samples
        initialise_linear(self.spectrum.widen, length**0.5)
        self.project: nn.Module = nn.Identity()
        if config.n_queries * config.inner != width:
            self.project = nn.Linear(config.n_queries * config.inner, width)
            initialise_linear(self.project)

    def forward(self, batch: Batch) -> Grid:
        """Make tokens; as `Tokenizer.forward`, with one site for all channels."""
        channels = super().forward(batch)
        tokens = channels.tokens.transpose(1, 2).flatten(0, 1)  # (B P, C, E)
        present = channels.present.transpose(1, 2).flatten(0, 1)
        gathered = self.unify(tokens, None if batch.whole else present).flatten(1)
        n_windows, _, n_patches = channels.present.shape
        content = self.project(gathered).unflatten(0, (n_windows, n_patches))[:, None]
        shown = batch.present.any(-1)[:, None, None].expand(content.shape[:3])
        return Grid(
            content=content.masked_fill(~shown[..., None], 0.0),
            place=content.new_zeros(()).expand(n_windows, 1, 1, self.width),  # there is one site
            present=shown,
            whole=batch.whole,
        )

    def tokens(self, patches: Tensor, present: Tensor) -> Tensor:
        """Map patches (B, C, P, L), some of them `present`, to channels' content (B, C, P, E)."""
        return self.content(patches, present) + self.spectrum(patches)

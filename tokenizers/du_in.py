"""One token a patch for all of a subject's channels: Du-IN in a slot.

B windows, C channels, P patches, D width. There is one site.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.nn.initialise import initialise_linear
from neurofm.signals import Batch, Grid
from neurofm.tokenizers.du_in_parts import DuInArchitecture, DuInCoder, DuInEncoder, RegionPatches
from neurofm.tokenizers.kept import KeptTokenizer, require_codes


class DuInConfig(DuInArchitecture):
    """Channels of a subject fused into regions, after Du-IN (Zheng et al. 2024, sec. 3).

    A code has seen the whole window. Tokens are not made of it, lest what is hidden be seen
    through others: they come from fusion and convolutions of their own patch, which start from
    those of the trained tokenizer and go on learning, as Du-IN's do from scratch.

    Parameters
    ----------
    frozen : bool
        Whether what ``neurofm tokenize`` has learnt is kept beside, as it is, for its codes.
    discrete : bool
        Whether tokens are made of the codes all the same.
    """

    name: Literal["du_in"] = "du_in"
    frozen: bool = False
    discrete: bool = False

    def build(self, contract: SignalContract, width: int) -> DuInTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, heads the width, no channel is known, or there
            are no codes to make tokens of.
        """
        return DuInTokenizer(self, contract, width)

    def build_parts(self, contract: SignalContract) -> DuInCoder:
        """Build what ``neurofm tokenize`` trains.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, heads the width, or no channel is known.
        """
        return DuInCoder(self, self.patch_len(contract))


class DuInTokenizer(KeptTokenizer):
    """All channels of a patch by Du-IN's fusion and convolutions, or by their code.

    Parameters
    ----------
    config : DuInConfig
        Architecture.
    contract : SignalContract
        The signals it is for.
    width : int
        D.
    """

    sites_are_channels: ClassVar[bool] = False
    name = "du_in"
    embed: RegionPatches | None
    coder: DuInEncoder | None

    def __init__(self, config: DuInConfig, contract: SignalContract, width: int):
        require_codes(self.name, discrete=config.discrete, frozen=config.frozen)
        patch_len = config.patch_len(contract)
        project = nn.Linear(config.code_width if config.discrete else config.inner, width)
        super().__init__(project, patch_len, contract.sfreq, width)
        del self.place  # regions lie nowhere: all that a token can know is that it is one
        self.site = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.site, std=0.02)
        initialise_linear(project)
        self.frozen, self.discrete, self.n_codes = config.frozen, config.discrete, config.n_codes
        self.embed = None if config.discrete else RegionPatches(config, patch_len)
        self.coder = DuInEncoder(config, patch_len).requires_grad_(False) if config.frozen else None
        self.train(self.training)

    @property
    def own(self) -> nn.Module | None:
        """Fusion and convolutions that go on learning."""
        return self.embed

    def forward(self, batch: Batch) -> Grid:
        """Make tokens; as `Tokenizer.forward`, with one site for all channels.

        Raises
        ------
        SignalError
            Also if the windows are of a subject that is not known.
        SensorError
            If a channel is not known.
        """
        self._check(batch)
        self.n_patches(batch.signal.shape[-1])
        if self.embed is None:
            stored = self.stored(batch)
            content = self.of_codes(self.codes(batch) if stored is None else stored)
        else:
            content = self.content(self.embed(batch))
        present = batch.present.any(-1)[:, None, None].expand(content.shape[:3])
        return Grid(
            content=content.masked_fill(~present[..., None], 0.0),
            place=self.site.expand(content.shape[0], 1, 1, -1),
            present=present,
            whole=batch.whole,
        )

    def sites(self, batch: Batch) -> Tensor:
        """Return which sites are there and no padding, bool (B, 1)."""
        return batch.present.any(-1, keepdim=True)

    def example(self) -> tuple[int, list[int]]:
        """Return codes of a subject that is known, and of the names of its channels."""
        found = self.embed if self.coder is None else self.coder.embed
        if found is None:
            raise ConfigError("du_in: neither tokens nor codes")
        return found.find.example()

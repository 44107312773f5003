"""One token a patch for all of a subject's channels: Du-IN in a slot.

B windows, C channels, P patches, D width. There is one site.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.nn.initialise import initialise_linear
from neurofm.signals import Batch, Grid
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.du_in_parts import DuInArchitecture, DuInCoder, DuInEncoder, RegionPatches
from neurofm.tokenizers.slot import CodedTokenizer


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


class DuInTokenizer(CodedTokenizer):
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

    def __init__(self, config: DuInConfig, contract: SignalContract, width: int):
        if config.discrete and not config.frozen:
            raise ConfigError(
                "du_in: tokens are to be made of codes, which only a frozen tokenizer has",
                hint="set frozen: true, and tokenizer_from to what `neurofm tokenize` wrote",
            )
        patch_len = config.patch_len(contract)
        project = nn.Linear(config.code_width if config.discrete else config.inner, width)
        super().__init__(project, patch_len, contract.sfreq, width)
        del self.place  # regions lie nowhere: all that a token can know is that it is one
        self.site = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.site, std=0.02)
        initialise_linear(project)
        self.frozen, self.discrete, self.n_codes = config.frozen, config.discrete, config.n_codes
        self.embed = None if config.discrete else RegionPatches(config, patch_len)
        self.coder: DuInEncoder | None = None
        if config.frozen:
            self.coder = DuInEncoder(config, patch_len).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> DuInTokenizer:
        """Switch between training and evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        if self.coder is not None:
            self.coder.eval()
        return self

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

    @property
    def leaks(self) -> bool:
        """Codes have seen the whole window, and so have tokens that are made of them."""
        return self.discrete

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """One code a token, of so many."""
        return 1, 1, self.n_codes

    @torch.no_grad()
    def codes(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, 1, P, 1, 1).

        Raises
        ------
        ConfigError
            If no trained tokenizer is kept beside.
        SignalError, SensorError
            If windows are of a subject that is not known, or have channels that are not.
        """
        self._check(batch)
        self.n_patches(batch.signal.shape[-1])
        return self._kept().codes_of(batch)

    def of_codes(self, codes: Tensor) -> Tensor:
        """Return the content of tokens, (B, 1, P, D), by their codes."""
        content: Tensor = self.content(self._kept().codebook.lookup(codes[..., 0, 0]))
        return content

    def take(self, trained: Coder) -> None:
        """Take over encoder and codes, and let the fusion of tokens start from it."""
        state = trained.state_dict()
        if self.embed is not None:
            own = self.embed.state_dict()
            self.embed.load_state_dict({name: state[f"embed.{name}"] for name in own})
        if self.coder is not None:
            self.coder.load_state_dict({name: state[name] for name in self.coder.state_dict()})

    def _kept(self) -> DuInEncoder:
        if self.coder is None:
            raise ConfigError("du_in: no codes without a frozen tokenizer", hint="set frozen: true")
        return self.coder

"""Tokens of patches beside codes of their spectra: LaBraM's neural tokenizer in a slot.

B windows, C channels (the sites), P patches, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.nn.initialise import initialise_linear
from neurofm.signals import Batch, Grid
from neurofm.tokenizers.kept import KeptTokenizer, require_codes
from neurofm.tokenizers.vqnsp_parts import VqnspArchitecture, VqnspCoder, VqnspEncoder, speak_up


class VqnspConfig(VqnspArchitecture):
    """Codes that tell a patch's spectrum, after LaBraM's VQ-NSP (Jiang et al. 2024, sec. 2.3).

    A code has seen the whole window. Tokens are not made of it, lest what is hidden be seen
    through others: they come from temporal convolutions of their own patch, which start from
    those of the trained tokenizer and go on learning, as LaBraM's do from scratch.

    Parameters
    ----------
    frozen : bool
        Whether what ``neurofm tokenize`` has learnt is kept beside, as it is, for its codes.
    discrete : bool
        Whether tokens are made of the codes all the same.
    """

    name: Literal["vqnsp"] = "vqnsp"
    spectrum: Literal[False] = False
    frozen: bool = False
    discrete: bool = False

    def build(self, contract: SignalContract, width: int) -> VqnspTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, heads the width, or there are no codes to make
            tokens of.
        """
        return VqnspTokenizer(self, contract, width)

    def build_parts(self, contract: SignalContract) -> VqnspCoder:
        """Build what ``neurofm tokenize`` trains.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, or heads the width.
        """
        patch_len = self.patch_len(contract)
        if patch_len < 2:
            raise ConfigError("a patch of one sample has no spectrum")
        return VqnspCoder(self, patch_len, contract.sfreq)


class VqnspTokenizer(KeptTokenizer):
    """Patches of channels by LaBraM's convolutions, or by the codes of their spectra.

    Parameters
    ----------
    config : VqnspConfig
        Architecture.
    contract : SignalContract
        The signals it is for.
    width : int
        D.
    """

    name = "vqnsp"

    def __init__(self, config: VqnspConfig, contract: SignalContract, width: int):
        require_codes(self.name, discrete=config.discrete, frozen=config.frozen)
        patch_len = config.patch_len(contract)
        content: nn.Module = nn.Linear(config.code_width, width)
        if not config.discrete:
            embed = config.embedding(patch_len, config.inner)
            project = nn.Linear(config.inner, width)
            speak_up(embed)
            initialise_linear(project)
            content = nn.Sequential(embed, project)
        super().__init__(content, patch_len, contract.sfreq, width, config.place)
        self.frozen, self.discrete, self.n_codes = config.frozen, config.discrete, config.n_codes
        self.coder = None
        if config.frozen:
            self.coder = VqnspEncoder(config, patch_len, contract.sfreq).requires_grad_(False)
        self.train(self.training)

    @property
    def own(self) -> nn.Module | None:
        """Convolutions that go on learning."""
        return self.content[0] if isinstance(self.content, nn.Sequential) else None

    def forward(self, batch: Batch) -> Grid:
        """Make tokens; as `Tokenizer.forward`."""
        if not self.discrete:
            return super().forward(batch)
        codes = stored if (stored := self.stored(batch)) is not None else self.codes(batch)
        present = batch.present[..., None].expand(codes.shape[:3])
        return Grid(
            content=self.of_codes(codes).masked_fill(~present[..., None], 0.0),
            place=self.place.of(batch, self.patch_len / self.sfreq, codes.shape[2]),
            present=present,
            position=batch.position,
            located=batch.located,
            whole=batch.whole,
        )

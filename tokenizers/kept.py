"""Tokens of their own beside a trained tokenizer that is kept for its codes, one a patch.

B windows, S sites, P patches, D width, E features of a code.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.codebook import Codebook, Gradient
from neurofm.nn.finite_scalar import FiniteScalar
from neurofm.signals import Batch
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.slot import CodedTokenizer


class CodebookConfig(Config):
    """Codes of normed vectors, one a patch; or of rounded ones.

    Parameters
    ----------
    n_codes, code_width : int
        Size of the codebook.
    levels : tuple of int, optional
        Round each feature of a code to so many values (finite scalar quantisation, Mentzer et al.
        2024), instead of learning codes: (8, 5, 5, 5) are 1000 codes of width 4, which is what
        `n_codes` and `code_width` must say. What is said below of learned codes has no effect.
    decay, commitment : float
        Of the codes' moving average, and weight of the loss that holds tokens to them. Published
        are 0.99 and 1, for batches of many thousand tokens; with small ones all tokens then soon
        have one code.
    gradient : "rotation" or "straight_through"
        How gradients pass the codes.
    revive_below : float
        Codes that stand for fewer tokens a batch on average are replaced; see `Codebook`.
    """

    n_codes: int = Field(default=256, ge=2)
    code_width: int = Field(default=32, ge=1)
    decay: float = Field(default=0.95, gt=0, lt=1)
    commitment: float = Field(default=0.25, ge=0)
    gradient: Gradient = "straight_through"
    revive_below: float = Field(default=0.05, ge=0)
    levels: tuple[int, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        if self.levels is not None:
            n, width = math.prod(self.levels), len(self.levels)
            if (n, width) != (self.n_codes, self.code_width):
                raise ValueError(
                    f"levels {list(self.levels)} make {n} codes of {width} features: set n_codes "
                    f"to {n} and code_width to {width}"
                )
        return self

    def codebook(self) -> Codebook | FiniteScalar:
        """Build the codes.

        Raises
        ------
        ConfigError
            If a feature would be rounded to one value.
        """
        if self.levels is not None:
            return FiniteScalar(self.levels)
        return Codebook(
            self.n_codes,
            self.code_width,
            decay=self.decay,
            normalise=True,
            commitment=self.commitment,
            revive_below=self.revive_below,
            gradient=self.gradient,
        )


class PatchEncoder(nn.Module, ABC):
    """Encoder and codes: what stays of a model where nothing is to be decoded.

    Attributes
    ----------
    embed : Module
        What sees a patch alone.
    codebook : Codebook or FiniteScalar
        The codes.
    """

    embed: nn.Module
    codebook: Codebook | FiniteScalar

    @abstractmethod
    def codes_of(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, S, P, 1, 1)."""


class KeptTokenizer(CodedTokenizer):
    """A tokenizer whose codes have seen the whole window.

    Its tokens are therefore not made of them, if not asked for: they start from the trained
    tokenizer's first layers and go on learning.

    Attributes
    ----------
    name : str
        Of its config, for messages.
    discrete : bool
        Whether tokens are made of the codes all the same.
    n_codes : int
        Size of the codebook.
    coder : PatchEncoder or None
        What is kept, if it is frozen.
    """

    name: str
    discrete: bool
    n_codes: int
    content: nn.Module
    coder: PatchEncoder | None

    @property
    @abstractmethod
    def own(self) -> nn.Module | None:
        """The first layers that go on learning; None where tokens are made of codes."""

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        if self.coder is not None:
            self.coder.eval()
        return self

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
        """Return the codes of a batch, shape (B, S, P, 1, 1).

        Raises
        ------
        ConfigError
            If no trained tokenizer is kept beside.
        SignalError, SensorError
            If the batch is not what the tokenizer is for.
        """
        self._check(batch)
        self.n_patches(batch.signal.shape[-1])
        return self._kept().codes_of(batch)

    def of_codes(self, codes: Tensor) -> Tensor:
        """Return the content of tokens, (B, S, P, D), by their codes."""
        content: Tensor = self.content(self._kept().codebook.lookup(codes[..., 0, 0]))
        return content

    def take(self, trained: Coder) -> None:
        """Take over encoder and codes, and let what goes on learning start from it."""
        state = trained.state_dict()
        if (own := self.own) is not None:
            own.load_state_dict({name: state[f"embed.{name}"] for name in own.state_dict()})
        if self.coder is not None:
            self.coder.load_state_dict({name: state[name] for name in self.coder.state_dict()})

    def _kept(self) -> PatchEncoder:
        if self.coder is None:
            raise ConfigError(
                f"{self.name}: no codes without a frozen tokenizer", hint="set frozen: true"
            )
        return self.coder


def require_codes(name: str, *, discrete: bool, frozen: bool) -> None:
    """Make sure that there are codes where tokens are to be made of them.

    Raises
    ------
    ConfigError
        If there are none.
    """
    if discrete and not frozen:
        raise ConfigError(
            f"{name}: tokens are to be made of codes, which only a frozen tokenizer has",
            hint="set frozen: true, and tokenizer_from to what `neurofm tokenize` wrote",
        )

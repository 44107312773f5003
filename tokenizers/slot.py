"""Tokenizers whose codes can be asked for, and come from where ``neurofm tokenize`` has put them.

B windows, S sites, P patches, M moments of a patch, Q levels, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from neurofm.signals import Batch
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.patch import Tokenizer


class CodedTokenizer(Tokenizer, ABC):
    """A tokenizer with codes.

    Attributes
    ----------
    frozen : bool
        Whether its codes stay as they are while an encoder is trained.
    """

    frozen: bool

    @property
    @abstractmethod
    def code_shape(self) -> tuple[int, int, int]:
        """Codes of a token, M and Q, and how many codes a level has."""

    @abstractmethod
    def codes(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, S, P, M, Q)."""

    def sites(self, batch: Batch) -> Tensor:
        """Return which sites are there and no padding, bool (B, S): here they are channels."""
        return batch.present

    @abstractmethod
    def take(self, trained: Coder) -> None:
        """Take over what was learnt; what brings it to the encoder's width is kept."""

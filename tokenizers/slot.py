"""Tokenizers whose codes can be asked for, and come from where ``neurofm tokenize`` has put them.

B windows, S sites, P patches, M moments of a patch, Q levels, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from neurofm.errors import SignalError
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
    def leaks(self) -> bool:
        """Whether tokens are made of what other patches hold, hidden ones among them."""
        return False

    @property
    @abstractmethod
    def code_shape(self) -> tuple[int, int, int]:
        """Codes of a token, M and Q, and how many codes a level has."""

    def stored(self, batch: Batch) -> Tensor | None:
        """Return the codes that a batch carries, (B, S, P, M, Q); None without, or if they move.

        Raises
        ------
        SignalError
            If they have another shape than this tokenizer's.
        """
        if batch.codes is None or not self.frozen:
            return None
        n_windows, n_sites = self.sites(batch).shape
        n_moments, n_levels, _ = self.code_shape
        shape = (n_windows, n_sites, self.n_patches(batch.signal.shape[-1]), n_moments, n_levels)
        if batch.codes.shape != shape:
            raise SignalError(
                f"batch: codes have shape {tuple(batch.codes.shape)}, this tokenizer's are {shape}",
                hint="they were computed by another tokenizer",
            )
        return batch.codes.long()

    @abstractmethod
    def codes(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, S, P, M, Q)."""

    def sites(self, batch: Batch) -> Tensor:
        """Return which sites are there and no padding, bool (B, S): here they are channels."""
        return batch.present

    @abstractmethod
    def take(self, trained: Coder) -> None:
        """Take over what was learnt; what brings it to the encoder's width is kept."""

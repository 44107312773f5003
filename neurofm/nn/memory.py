"""What attention remembers of the patches before, when patches come one after the other."""

from __future__ import annotations

import torch
from torch import Tensor


class Memory:
    """Keys and values of all patches so far.

    It grows with every patch: a stream costs as much a patch as it is long.

    Parameters
    ----------
    before : Memory, optional
        What to go on from; it stays as it is.
    """

    def __init__(self, before: Memory | None = None):
        self.key: Tensor | None = None if before is None else before.key
        self.value: Tensor | None = None if before is None else before.value
        self.present: Tensor | None = None if before is None else before.present

    def add(self, key: Tensor, value: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Remember patches, and return what is remembered.

        Parameters
        ----------
        key, value : Tensor, shape (B, S, P, H, E)
            Keys, turned to their time, and values.
        present : Tensor of bool, shape (B, S, P)
            Which tokens are present.

        Returns
        -------
        key, value, present : Tensor
            The same of all patches so far.
        """
        if self.key is not None and self.value is not None and self.present is not None:
            key = torch.cat((self.key, key), dim=2)
            value = torch.cat((self.value, value), dim=2)
            present = torch.cat((self.present, present), dim=2)
        self.key, self.value, self.present = key, value, present
        return key, value, present

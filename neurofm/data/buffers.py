"""Memory for batches, used again when nobody holds the batch any more."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_PAGE = 1 << 21  # the system hands out large memory in pages of this size


class Memory(Protocol):
    """Where the samples of a batch lie.

    Attributes
    ----------
    filled : bool
        Whether they are there already, because another process read them.
    """

    filled: bool

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        """Return a tensor of a shape, and of the type that numpy calls so."""


class Buffers:
    """Hands out tensors over memory that earlier tensors had.

    Fresh memory costs as much time as filling it once: the system clears every page. A batch
    that the consumer keeps keeps its memory; only what is let go is used again.

    Parameters
    ----------
    keep : int
        Free buffers that are remembered, at most.
    pinned : bool, optional
        Whether to use memory that a GPU copies from without the processor; by default where
        there is a GPU, unless this is a worker process of a DataLoader.
    """

    filled = False

    def __init__(self, keep: int, *, pinned: bool | None = None):
        in_worker = torch.utils.data.get_worker_info() is not None
        self.pinned = torch.cuda.is_available() and not in_worker if pinned is None else pinned
        self._free: deque[np.ndarray] = deque(maxlen=keep)

    def take(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
        """Return a tensor with undefined content.

        Parameters
        ----------
        shape : tuple of int
            Its shape.
        dtype : type
            Numpy's name of its type.
        """
        if self.pinned:  # torch itself uses these again, and knows when a copy is over
            empty = torch.from_numpy(np.empty(0, dtype))
            return torch.empty(shape, dtype=empty.dtype, pin_memory=True)
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self._fitting(n_bytes)
        array = memory[:n_bytes].view(dtype).reshape(shape)
        # torch holds this array for as long as any tensor or view shares its memory
        weakref.finalize(array, self._free.append, memory).atexit = False
        return torch.from_numpy(array)

    def _fitting(self, n_bytes: int) -> np.ndarray:
        for _ in range(len(self._free)):
            try:
                memory = self._free.popleft()
            except IndexError:  # another thread took the last one
                break
            if n_bytes <= memory.size <= 4 * n_bytes + _PAGE:
                return memory
            self._free.append(memory)
        return np.empty(-(-max(n_bytes, 1) // _PAGE) * _PAGE, np.uint8)

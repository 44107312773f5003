"""A mixer in each direction of time, each with weights of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.nn.initialise import initialise_linear
from neurofm.nn.mamba1 import Mamba1, MambaState
from neurofm.nn.mamba2 import Mamba2
from neurofm.nn.norm import NormName, build_norm
from neurofm.nn.scan_order import Sequences

Mixer = Mamba1 | Mamba2


class BidirectionalBlock(nn.Module):
    """Add to each token what a mixer says of those before it, and another of those after it.

    Parameters
    ----------
    forwards : Mamba1 or Mamba2
        Maps sequences (N, L, D) to the same shape, looking backwards only.
    backwards : Mamba1, Mamba2 or None
        Another one for the reversed sequence; None leaves the future out.
    width : int
        D.
    norm : "layer" or "rms"
        Normalisation, with `norm_place`: of what goes in ("pre"), or of the sum ("post").
    norm_place : "pre" or "post"
        See `norm`.
    dropout : float
        Share of features dropped of what is added, in training.
    """

    def __init__(
        self,
        forwards: Mixer,
        backwards: Mixer | None,
        width: int,
        *,
        norm: NormName = "layer",
        norm_place: str = "pre",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.forwards: Mixer = forwards
        self.backwards: Mixer | None = backwards
        self.norm = build_norm(norm, width)
        self.norm_first = norm_place == "pre"
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, order: Sequences | None = None) -> Tensor:
        """Mix tokens.

        Parameters
        ----------
        x : Tensor, shape (N, L, D)
            Sequences.
        order : Sequences, optional
            Where each sequence ends; by default all of its tokens are present.

        Returns
        -------
        Tensor, shape (N, L, D)
            What came in, and what was added.
        """
        within = self.norm(x) if self.norm_first else x
        added = self.forwards(within)
        if self.backwards is not None:
            if order is None:
                added = added + self.backwards(within.flip(1)).flip(1)
            else:
                added = added + order.reverse(self.backwards(order.reverse(within)))
        x = x + self.dropout(added)
        return x if self.norm_first else self.norm(x)

    def step(
        self, x: Tensor, length: Tensor, state: MambaState | None
    ) -> tuple[Tensor, MambaState | None]:
        """Mix the next tokens of sequences that are read forwards only.

        Parameters
        ----------
        x : Tensor, shape (N, L, D)
            Tokens, those that are present first.
        length : Tensor of int64, shape (N,)
            How many of each sequence are present; others leave the state as it is.
        state : MambaState, optional
            Where the sequences stopped.

        Returns
        -------
        y : Tensor, shape (N, L, D)
            What came in, and what was added.
        state : MambaState or None
            Where they stop; None if none has begun.
        """
        within = self.norm(x) if self.norm_first else x
        added = torch.zeros_like(x)
        for n in length.unique().tolist():
            rows = (length == n).nonzero()[:, 0]
            if n == 0:
                continue
            before = None if state is None else MambaState(*(part[rows] for part in state))
            found, now = self.forwards.run(within[rows, :n], before)
            added[rows, :n] = found.to(added.dtype)
            if state is None:
                state = MambaState(*(part.new_zeros(len(x), *part.shape[1:]) for part in now))
            pairs = zip(state, now, strict=True)
            state = MambaState(*(part.index_copy(0, rows, new) for part, new in pairs))
        x = x + self.dropout(added)
        return (x if self.norm_first else self.norm(x)), state

    def initialise(self, depth: int) -> None:
        """Draw the projections; what is added starts smaller the deeper the stack."""
        added = 2 * depth if self.backwards is not None else depth
        for name, module in self.named_modules():
            if name.endswith(("in_proj", "out_proj")) and isinstance(module, nn.Linear):
                initialise_linear(module, added**0.5 if name.endswith("out_proj") else 1.0)

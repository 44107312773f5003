"""A row of weights for every channel that is known: of a subject, or of a montage.

B windows, C channels, V shared channels, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_MIX = 0x9E3779B97F4A7C15 - 2**64  # odd, so that no two owners are mixed into one


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Which rows stand for the channels of a batch.

    Attributes
    ----------
    row : Tensor of int64, shape (B, C)
        Its number; any where `known` is False.
    known : Tensor of bool, shape (B, C)
        Where the channel is one of its owner's.
    name : Tensor of int64, shape (B, C)
        The number of the channel's name among those of all owners.
    named : Tensor of bool, shape (B, C)
        Where some owner has a channel of that name.
    owner : Tensor of int64, shape (B,)
        The number of its owner.
    owned : Tensor of bool, shape (B,)
        Where the owner is known.
    """

    row: Tensor
    known: Tensor
    name: Tensor
    named: Tensor
    owner: Tensor
    owned: Tensor


class ChannelIndex(nn.Module):
    """Finds channels by the codes of their owner and name, whatever their order.

    Parameters
    ----------
    channels : mapping of int to sequence of int
        Codes of the channels' names, by the code of their owner. All in all there is one.
    """

    keys: Tensor
    rows: Tensor
    names: Tensor
    owners: Tensor
    owners_at: Tensor
    name_of_row: Tensor
    owner_of_row: Tensor

    def __init__(self, channels: Mapping[int, Sequence[int]]):
        super().__init__()
        owner = torch.tensor([o for o, names in channels.items() for _ in names])
        name = torch.tensor([n for names in channels.values() for n in names])
        keys, rows = _key(owner, name).sort()
        owners, at = torch.tensor(list(channels)).sort()
        names = name.unique()
        tables = {
            "keys": keys,
            "rows": rows,
            "names": names,
            "owners": owners,
            "owners_at": at,
            "name_of_row": torch.searchsorted(names, name),
            "owner_of_row": at[torch.searchsorted(owners, owner)],
        }
        for key, value in tables.items():
            self.register_buffer(key, value, persistent=False)

    @property
    def n_rows(self) -> int:
        """Channels of all owners together."""
        return len(self.keys)

    @property
    def n_owners(self) -> int:
        """Owners."""
        return len(self.owners)

    def forward(self, owner: Tensor, name: Tensor) -> Rows:
        """Find channels of the codes `owner` (B,) and `name` (B, C)."""
        at, known = _find(self.keys, _key(owner[:, None], name))
        which, named = _find(self.names, name)
        who, owned = _find(self.owners, owner)
        return Rows(
            row=self.rows[at],
            known=known,
            name=which,
            named=named,
            owner=self.owners_at[who],
            owned=owned,
        )


def _key(owner: Tensor, name: Tensor) -> Tensor:
    """Return a number for the pair, which wraps around."""
    return (owner * _MIX) ^ name


def _find(known: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    at = torch.searchsorted(known, code.contiguous()).clamp_max(len(known) - 1)
    return at, known[at] == code


class ChannelRows(nn.Module):
    """Weights of V shared channels for each known channel, and the mean of those of one name.

    Parameters
    ----------
    index : ChannelIndex
        What is known; not a part of this module.
    n_shared : int
        V.
    scale : float
        Standard deviation of first weights.
    """

    name_of_row: Tensor
    count: Tensor

    def __init__(self, index: ChannelIndex, n_shared: int, scale: float):
        super().__init__()
        self.weight = nn.Parameter(scale * torch.randn(index.n_rows, n_shared))
        self.register_buffer("name_of_row", index.name_of_row, persistent=False)
        count = torch.bincount(index.name_of_row, minlength=len(index.names))
        self.register_buffer("count", count.to(self.weight.dtype), persistent=False)

    def forward(self, rows: Rows) -> Tensor:
        """Return weights (B, C, V): zero where not even the name is known."""
        own = self.weight[rows.row].masked_fill(~rows.known[..., None], 0.0)
        total = torch.zeros_like(self.weight[: len(self.count)])
        mean = total.index_add(0, self.name_of_row, self.weight) / self.count[:, None]
        foreign = rows.named & ~rows.owned[:, None]
        return torch.where(foreign[..., None], mean[rows.name], own)

"""Attention of moments to the past: its recent part as it is, what is further back in patches.

N sequences, L moments in, M moments out, P patches, R recent moments, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.errors import SignalError
from neurofm.nn.heads import require_heads
from neurofm.nn.mixing import attend
from neurofm.nn.rotary import Turn, rotate


def causal_view(
    n_out: int,
    n_patches: int,
    patch_len: int,
    n_recent: int = 0,
    *,
    band: int | None = None,
    recent_band: int | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Return which keys each of the last moments may see.

    A patch is seen once it has ended, and a recent moment from itself on.

    Parameters
    ----------
    n_out : int
        M.
    n_patches, patch_len : int
        P, and moments in each.
    n_recent : int
        R.
    band : int, optional
        Patches of which a query sees no more than so many to either side of that with its own
        number. As in MEG-GPT, queries are numbered from the first that goes out, so a band means
        what it says only where as many moments go out as come in.
    recent_band : int, optional
        The same for recent moments, whose numbers go on from those of the patches.
    device : torch.device, optional
        Where the answer is wanted.

    Returns
    -------
    Tensor of bool, shape (M, P + R)
        True where a query may look.
    """
    query = torch.arange(n_out, device=device)[:, None]
    patch = torch.arange(n_patches, device=device)
    recent = torch.arange(n_recent, device=device)
    end = (patch + 1 - n_patches) * patch_len  # counted back from the last moment
    sees = query - (n_out - 1) >= end
    if band is not None:
        sees &= (patch - query // patch_len).abs() <= band
    sees_recent = query - (n_out - 1) >= recent - (n_recent - 1)
    if recent_band is not None:
        sees_recent &= (n_patches + recent - query).abs() <= recent_band
    return torch.cat((sees, sees_recent), dim=1)


class PatchedAttention(nn.Module):
    """The last moments attend to patches of a sequence and to its recent moments.

    After MEG-GPT. A patch's moments become one key by a map across heads and moments, the same
    for every feature of a head; keys and values have maps of their own.

    Parameters
    ----------
    width, n_heads : int
        D and H.
    sees : Tensor of bool, shape (M, P + R), optional
        Which keys a query may see, for sequences of one length; one that sees none gathers zeros.
    patch_len : int
        Moments in a patch; 1 for no patches.
    n_recent : int, optional
        R; None for all moments.
    """

    sees: Tensor | None

    def __init__(
        self,
        width: int,
        n_heads: int,
        sees: Tensor | None = None,
        *,
        patch_len: int = 1,
        n_recent: int | None = 0,
    ):
        super().__init__()
        require_heads(width, n_heads)
        self.n_heads = n_heads
        self.patch_len = patch_len
        self.n_recent = n_recent
        self.register_buffer("sees", sees)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project_out = nn.Linear(width, width)
        self.merge_key = self.merge_value = None
        if patch_len > 1:
            self.merge_key = nn.Linear(n_heads * patch_len, n_heads)
            self.merge_value = nn.Linear(n_heads * patch_len, n_heads)
        self.recent_key = self.recent_value = None
        if n_recent != 0:
            self.recent_key = nn.Linear(width, width)
            self.recent_value = nn.Linear(width, width)

    def forward(
        self,
        query: Tensor,
        past: Tensor,
        sees: Tensor | None = None,
        *,
        present: Tensor | None = None,
        turns: tuple[Turn, Turn] | None = None,
    ) -> Tensor:
        """Gather.

        Parameters
        ----------
        query : Tensor, shape (N, at least M, D)
            The last M of these gather.
        past : Tensor, shape (N, L, D)
            Moments that are gathered from; L is P times the length of a patch.
        sees : Tensor of bool, shape (M, P + R), optional
            Which keys a query may see; by default as at first.
        present : Tensor of bool, shape (N, P + R), optional
            False where a key is padding.
        turns : tuple, optional
            What `Rotary` returns for the times of queries, and of keys.

        Returns
        -------
        Tensor, shape (N, M, D)
            What each gathered.
        """
        sees = self.sees if sees is None else sees
        if sees is None:
            raise SignalError("patched attention does not know who sees whom: sees is not given")
        q = self.query(query[:, -sees.shape[0] :])
        k = self._keys(past, self.merge_key, self.key, self.recent_key)
        v = self._keys(past, self.merge_value, self.value, self.recent_value)
        q, k, v = (t.unflatten(-1, (self.n_heads, -1)) for t in (q, k, v))
        if turns is not None:
            q, k = rotate(q, turns[0]), rotate(k, turns[1])
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        some = sees.any(-1, keepdim=True)
        out = attend(q, k, v, present, sees | ~some).masked_fill(~some, 0.0)
        return self.project_out(out.transpose(1, 2).flatten(-2))

    def _keys(
        self, past: Tensor, merge: nn.Linear | None, project: nn.Linear, recent: nn.Linear | None
    ) -> Tensor:
        x = past
        if merge is not None:
            x = past.unflatten(-1, (self.n_heads, -1)).unflatten(1, (-1, self.patch_len))
            x = x.permute(0, 1, 4, 3, 2).flatten(-2)  # (N, P, E, H patch_len)
            x = merge(x).transpose(-1, -2).flatten(-2)
        x = project(x)
        if recent is None:
            return x
        last = past if self.n_recent is None else past[:, -self.n_recent :]
        return torch.cat((x, recent(last)), dim=1)

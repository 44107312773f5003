"""What several ranks do together; with one rank, each of these does nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor


def several_ranks() -> bool:
    """Tell whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(x: Tensor) -> None:
    """Add the tensors of all ranks, in place."""
    if several_ranks():
        dist.all_reduce(x)


def gather_rows(x: Tensor, most: int) -> Tensor:
    """Return about `most` rows, the same on all ranks, drawn evenly from the rows of each.

    Parameters
    ----------
    x : Tensor, shape (n, D)
        Rows of this rank; ranks may differ in n.
    most : int
        Rows wanted over all ranks.
    """
    world = dist.get_world_size() if several_ranks() else 1
    share = max(1, most // world)
    if len(x) > share:
        x = x[torch.randperm(len(x), device=x.device)[:share]]
    if world == 1:
        return x
    sizes = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    padded = x.new_zeros((share, x.shape[1]))
    padded[: len(x)] = x
    found = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(found, padded)
    return torch.cat([rows[: int(n)] for rows, n in zip(found, sizes, strict=True)])


def broadcast_first(make: Callable[[], Tensor], like: Tensor) -> Tensor:
    """Return what the first rank makes, on all ranks.

    Parameters
    ----------
    make : callable
        Called on the first rank only.
    like : Tensor
        Shape, type and device of what it makes.
    """
    if not several_ranks():
        return make().to(like.dtype)
    out = make().to(like.dtype).contiguous() if dist.get_rank() == 0 else torch.empty_like(like)
    dist.broadcast(out, 0)
    return out

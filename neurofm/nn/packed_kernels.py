"""Attention of windows that lie one after the other, each to itself, in one call.

N tokens of all windows, H heads, E features of a head, and R rows that are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

PackName = Literal["auto", "varlen", "flex", "calls"]
NARROWEST = 16  # features of a head that FlexAttention takes
WIDEST = 256  # that flash attention of varying lengths takes, in steps of 8


def kernel_for(name: PackName, q: Tensor, *, causal: bool) -> Literal["varlen", "flex", "calls"]:
    """Choose what can keep windows apart, of what was asked for and what comes after it.

    Parameters
    ----------
    name : "auto", "varlen", "flex" or "calls"
        What was asked for. `auto` is flash attention of varying lengths, then FlexAttention, on a
        GPU, and elsewhere a call for each number of sites: compiling costs more than it saves.
        `varlen` is the same: it takes half precision on a GPU alone.
    q : Tensor, shape (..., E)
        Queries.
    causal : bool
        Whether tokens of a window are kept apart by time, too, which only a mask can do.
    """
    if name in {"auto", "varlen"} and not causal and _varlen_takes(q):
        return "varlen"
    on_gpu, known = q.is_cuda, q.shape[-1] >= NARROWEST
    if name == "flex" and known and (on_gpu or not (q.requires_grad and torch.is_grad_enabled())):
        return "flex"  # it has no gradient but on a GPU
    return "flex" if name in {"auto", "varlen"} and on_gpu and known else "calls"


def flex(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
    """Attend where a block mask says so, all (R, H, N, E); compiled, or it skips no block."""
    return compiled_flex()(q, k, v, block_mask=mask)


def varlen(q: Tensor, k: Tensor, v: Tensor, edges: Tensor, longest: int) -> Tensor:
    """Attend within stretches of tokens, all (N, H, E), which lie between `edges` (n + 1,)."""
    from torch.nn.attention.varlen import varlen_attn

    found = varlen_attn(q, k, v, edges, edges, longest, longest)
    return found if isinstance(found, Tensor) else found[0]


@cache
def compiled_flex() -> Callable[..., Tensor]:
    """Return FlexAttention, compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled


def _varlen_takes(q: Tensor) -> bool:
    width = q.shape[-1]
    if not q.is_cuda or q.dtype not in {torch.float16, torch.bfloat16}:
        return False
    if width % 8 or width > WIDEST or torch.cuda.get_device_capability(q.device) < (8, 0):
        return False
    return find_spec("torch.nn.attention.varlen") is not None  # torch has it from 2.10 on

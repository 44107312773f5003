"""Blocks over a grid: what encoders and decoders of codes are made of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from neurofm.nn.block import Block, BlockStyle
from neurofm.nn.norm import build_norm
from neurofm.nn.rotary import Rotary
from neurofm.nn.sinusoid import sinusoid


class Stack(nn.Module):
    """Blocks in which every token of a window attends to every other, and a norm at the end.

    Parameters
    ----------
    width, depth, n_heads, hidden : int
        Features of a token, blocks, heads, hidden features of a block.
    style : BlockStyle
        Of the blocks. Those that normalise sums need no norm at the end.
    time : "rotary" or "sinusoid"
        How tokens know their patch: by turned queries and keys, or by waves that are added.

    Raises
    ------
    ConfigError
        If the heads do not fit the width.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        n_heads: int,
        hidden: int,
        style: BlockStyle,
        *,
        time: Literal["rotary", "sinusoid"] = "rotary",
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, n_heads, attention="full", hidden=hidden, style=style)
            for _ in range(depth)
        )
        head_width = style.attention.head_width or width // n_heads
        self.rotary = Rotary(head_width) if time == "rotary" else None
        norm = build_norm(style.norm, width, style.norm_eps)
        self.norm = norm if style.norm_place == "pre" else nn.Identity()
        for block in self.blocks:
            if isinstance(block, Block):
                block.initialise(depth)

    def forward(self, x: Tensor, present: Tensor, *, whole: bool = False) -> Tensor:
        """Map tokens (B, S, P, D), some of them `present` (B, S, P); zeros elsewhere.

        `whole` says that all are known to be present.
        """
        absent = ~present[..., None]
        if self.rotary is None:
            x = x + sinusoid(*x.shape[-2:]).to(x)
        x = x.masked_fill(absent, 0.0)
        compiling = torch.compiler.is_compiling()
        mask = None if whole or (not compiling and bool(present.all())) else present
        turn = None if self.rotary is None else self.rotary(x.shape[2], x)
        for block in self.blocks:
            x = block(x, mask, turn)
        return self.norm(x).masked_fill(absent, 0.0)

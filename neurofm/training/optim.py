"""AdamW with warm-up and cosine decay."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from neurofm.config import Config


class OptimConfig(Config):
    """AdamW (Loshchilov & Hutter 2019) under linear warm-up, then cosine decay.

    Parameters
    ----------
    lr : float
        Peak learning rate.
    weight_decay : float
        Decoupled decay of matrices; biases, norms and single vectors are spared.
    betas : (float, float)
        Moment decay rates.
    warmup_steps : int
        Steps of linear rise to `lr`.
    min_lr_ratio : float
        Share of `lr` left at the last step.
    clip_norm : float
        Gradients are scaled down to this global norm.
    """

    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = Field(default=100, ge=0)
    min_lr_ratio: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0)

    def build(self, module: nn.Module, total_steps: int) -> tuple[torch.optim.AdamW, LambdaLR]:
        """Return the optimiser of every trainable parameter, and its schedule."""
        decayed: list[nn.Parameter] = []
        spared: list[nn.Parameter] = []
        for parameter in module.parameters():
            if parameter.requires_grad:
                (decayed if parameter.ndim > 1 else spared).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas)
        return optimiser, LambdaLR(optimiser, lambda step: self.lr_share(step, total_steps))

    def lr_share(self, step: int, total_steps: int) -> float:
        """Share of the peak learning rate at a step, in [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * cosine

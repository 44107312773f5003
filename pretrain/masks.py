"""Which tokens to hide: single tokens, spans of time, or balls in space and time.

B windows, S sites, P patches. A mask never hides padding, and in each window hides at
least one token and leaves at least one.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from neurofm.config import Config
from neurofm.errors import TrainingError
from neurofm.signals import Batch


class RandomMaskConfig(Config):
    """Hide tokens independently of each other.

    Parameters
    ----------
    ratio : float
        Share of the present tokens to hide.
    """

    name: Literal["random"] = "random"
    ratio: float = Field(default=0.5, gt=0, lt=1)

    def __call__(self, batch: Batch, n_patches: int, generator: Generator) -> Tensor:
        """Return what to hide, bool of shape (B, S, P)."""
        present = _tokens(batch, n_patches)
        return _hide_lowest(torch.rand(present.shape, generator=generator), present, self.ratio)


class TimeSpanMaskConfig(Config):
    """Hide the same spans of time in every site, so that no neighbour gives them away.

    Parameters
    ----------
    ratio : float
        Share of the patches to hide.
    span : int
        Length of each span in patches.
    """

    name: Literal["time_span"] = "time_span"
    ratio: float = Field(default=0.5, gt=0, lt=1)
    span: int = Field(default=2, ge=1)

    def __call__(self, batch: Batch, n_patches: int, generator: Generator) -> Tensor:
        """Return what to hide, bool of shape (B, S, P)."""
        present = _tokens(batch, n_patches)
        n_spans = (n_patches + 2 * self.span - 2) // self.span
        order = torch.rand(len(batch), n_spans, generator=generator)
        offset = torch.randint(0, self.span, (len(batch), 1), generator=generator)
        patch = (torch.arange(n_patches) + offset) // self.span
        score = order.gather(1, patch)  # (B, P)
        hide = _hide_lowest(score, torch.ones_like(score, dtype=torch.bool), self.ratio)
        return _leave_one(hide[:, None] & present, present, generator)


class SpatialRadiusMaskConfig(Config):
    """Hide all sites within a radius of a random site, for a few patches at a time.

    Neighbouring sensors see the same sources; hiding a ball keeps them from giving each other
    away. 9 cm by 2 patches is what a comparison of geometries over 58 encoders recommends
    (arXiv:2609.33487). A site without a known position is hidden alone.

    Parameters
    ----------
    ratio : float
        Balls are added until at least this share of the present tokens is hidden.
    radius_m : float
        Radius in metres.
    patches : int
        Length of each ball in time.
    """

    name: Literal["spatial_radius"] = "spatial_radius"
    ratio: float = Field(default=0.5, gt=0, lt=1)
    radius_m: float = Field(default=0.09, gt=0)
    patches: int = Field(default=2, ge=1)

    def __call__(self, batch: Batch, n_patches: int, generator: Generator) -> Tensor:
        """Return what to hide, bool of shape (B, S, P)."""
        present = _tokens(batch, n_patches)
        near = self._near(batch)  # (B, S, S)
        n_windows, n_sites, _ = present.shape
        goal = self.ratio * present.flatten(1).sum(1)
        rows = torch.arange(n_windows)
        starts = n_patches + self.patches - 1  # balls may stick out of the window at both ends
        hide = torch.zeros_like(present)
        weights = batch.present.cpu().float()
        while (short := hide.flatten(1).sum(1) < goal).any():
            centre = torch.multinomial(weights, 1, generator=generator)[:, 0]
            first = torch.randint(starts, (n_windows,), generator=generator) - (self.patches - 1)
            when = torch.arange(n_patches) - first[:, None]  # (B, P)
            ball = near[rows, centre][:, :, None] & ((when >= 0) & (when < self.patches))[:, None]
            hide |= ball & short[:, None, None] & present
        return _leave_one(hide, present, generator)

    def _near(self, batch: Batch) -> Tensor:
        position = batch.position.cpu().float()
        located = batch.located.cpu()
        near = torch.cdist(position, position) <= self.radius_m
        near &= located[:, :, None] & located[:, None, :]
        return near | torch.eye(position.shape[1], dtype=torch.bool)


MASKS = {
    "random": RandomMaskConfig,
    "time_span": TimeSpanMaskConfig,
    "spatial_radius": SpatialRadiusMaskConfig,
}
MaskConfig = Annotated[
    RandomMaskConfig | TimeSpanMaskConfig | SpatialRadiusMaskConfig, Field(discriminator="name")
]


def _tokens(batch: Batch, n_patches: int) -> Tensor:
    """Return the present tokens on the CPU, where all masks are drawn: (B, S, P)."""
    present = batch.present.cpu()[:, :, None].expand(-1, -1, n_patches)
    if n_patches * int(batch.present.sum(1).min()) < 2:
        raise TrainingError(
            "a window has fewer than two tokens, so none can be hidden and another left",
            hint="use longer windows or shorter patches",
        )
    return present


def _hide_lowest(score: Tensor, present: Tensor, ratio: float) -> Tensor:
    """Hide the share `ratio` of the present tokens with the lowest scores, ties together."""
    score, flat = score.flatten(1), present.flatten(1)
    count = flat.sum(1)
    n_hide = (ratio * count).round().clamp(min=1).minimum(count - 1).long()
    ordered = score.masked_fill(~flat, 2.0).sort(1).values
    limit = ordered.gather(1, (n_hide - 1)[:, None])
    return ((score <= limit) & flat).view_as(present)


def _leave_one(hide: Tensor, present: Tensor, generator: Generator) -> Tensor:
    """Uncover one random token in windows where everything would be hidden."""
    full = (hide == present).flatten(1).all(1)
    chance = torch.rand(present.shape, generator=generator).masked_fill(~present, -1.0)
    kept = torch.zeros_like(hide).flatten(1)
    kept[torch.arange(len(hide)), chance.flatten(1).argmax(1)] = True
    return hide & ~(kept.view_as(hide) & full[:, None, None])

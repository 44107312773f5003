"""Tokens of patches that span neighbouring channels and time: one token a group and patch.

B windows, C channels, G groups of channels (the sites), T samples, P patches, D width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from neurofm.contract import SignalContract
from neurofm.nn.patch_plane import PatchPlane
from neurofm.nn.scan_order import order_through_head
from neurofm.signals import Batch, Grid
from neurofm.tokenizers.patch import PatchConfig, Tokenizer
from neurofm.tokenizers.place import FourierPlaceConfig


class PlanePatchConfig(PatchConfig):
    """One linear map from a rectangle of channels and samples to its token, after FEMBA.

    FEMBA (Tegon et al. 2025) takes channels as a montage lists them. Here they are first sorted
    along a curve through the head, so that neighbours share a token and the order in a file does
    not matter; the last group may be one of fewer channels.

    Parameters
    ----------
    n_channels : int
        Channels in a patch. FEMBA's code has 2 (and 16 samples), the paper's example 4 (and 32).
    """

    name: Literal["plane_patch"] = "plane_patch"
    n_channels: int = Field(default=2, ge=1)
    spectrum: Literal[False] = False
    place: FourierPlaceConfig = FourierPlaceConfig()

    def build(self, contract: SignalContract, width: int) -> PlaneTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        plane = PatchPlane((self.n_channels, self.patch_len(contract)), width)
        return PlaneTokenizer(plane, contract.sfreq, width)


class PlaneTokenizer(Tokenizer):
    """Groups of neighbouring channels, in patches of time.

    The place of a token is the mean of its channels' places.

    Parameters
    ----------
    plane : PatchPlane
        Maps signals (B, C, T) to tokens (B, G, P, D).
    sfreq : float
        Sampling rate in hertz of the signals it is for.
    width : int
        D.
    """

    sites_are_channels: ClassVar[bool] = False
    content: PatchPlane

    def __init__(self, plane: PatchPlane, sfreq: float, width: int):
        super().__init__(plane, plane.kernel_size[1], sfreq, width)

    def forward(self, batch: Batch) -> Grid:
        """Make tokens; as `Tokenizer.forward`, with one site a group of channels."""
        self._check(batch)
        n_patches = self.n_patches(batch.signal.shape[-1])
        place = self.place(
            batch.position,
            batch.orientation,
            batch.kind,
            located=batch.located,
            oriented=batch.oriented,
        )
        order = self._order(batch, place)
        present = self._groups(batch.present, order)  # (B, G, n)
        signal = batch.signal.masked_fill(~batch.present[..., None], 0.0).to(place.dtype)
        signal = self._groups(signal, order).flatten(1, 2)  # (B, G n, T)
        some = present.any(-1)
        shown = some[..., None].expand(-1, -1, n_patches)
        located = present & self._groups(batch.located, order)
        return Grid(
            content=self.content(signal).masked_fill(~shown[..., None], 0.0),
            place=_mean(self._groups(place, order), present)[:, :, None],
            present=shown,
            position=_mean(self._groups(batch.position, order), located),
            located=located.any(-1),
            whole=batch.whole,
        )

    def _order(self, batch: Batch, place: Tensor) -> Tensor:
        """Return channels along the head, those that are padding last."""
        order = order_through_head(batch.position, batch.located, place)
        absent = (~batch.present).to(torch.uint8).gather(1, order)
        return order.gather(1, torch.sort(absent, dim=1, stable=True).indices)

    def _groups(self, value: Tensor, order: Tensor) -> Tensor:
        """Sort channels of (B, C, ...) and cut them into groups, (B, G, n, ...)."""
        n_each = self.content.kernel_size[0]
        index = order.reshape(*order.shape, *[1] * (value.ndim - 2)).expand_as(value)
        value = torch.gather(value, 1, index)
        short = -value.shape[1] % n_each
        value = F.pad(value, (0, 0) * (value.ndim - 2) + (0, short))
        return value.unflatten(1, (-1, n_each))


def _mean(value: Tensor, counts: Tensor) -> Tensor:
    """Average groups (B, G, n, D) over the members that count, (B, G, n)."""
    total = value.masked_fill(~counts[..., None], 0.0).sum(2)
    return total / counts.sum(-1, keepdim=True).clamp_min(1).to(total.dtype)

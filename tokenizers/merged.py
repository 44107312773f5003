"""Any montage onto virtual channels that look at places on a flat layout: tokens of those.

B windows, C channels, V virtual channels (the sites), T samples, P patches, F features, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, SensorError
from neurofm.nn.initialise import initialise_linear
from neurofm.nn.place import MAX_KINDS
from neurofm.nn.spatial_merger import SpatialMerger
from neurofm.readers import WindowReader
from neurofm.sensors import text_code
from neurofm.signals import Batch, Grid, subject_of
from neurofm.tokenizers.patch import PatchConfig, Tokenizer
from neurofm.tokenizers.place import FourierPlaceConfig
from neurofm.tokenizers.regions import Finder, Fusion, RegionsConfig, with_rows

MIDDLE_M = (0.0, 0.0, 0.04)  # of a head, in its frame: the same for all, so that none is fitted
_MAP = "its virtual channels"  # what a subject has, in messages


class MergedPatchConfig(PatchConfig):
    """Spatial attention and subject layer, after brainmagick (Défossez et al. 2023).

    A virtual channel is a weighted mean of channels. The weights are learned functions of where
    channels lie on a flat layout (see `on_layout`), and of nothing else: a montage that was never
    seen has them too. Kinds have no say, nor has depth: channels of several kinds at one place are
    averaged. A channel without a position has no weight, and a window that has no other is
    refused.

    Parameters
    ----------
    n_virtual : int
        V. Published are 270, which here would be as many tokens a patch.
    n_waves : int
        Waves an axis of the layout; F is twice their square. Published are 32.
    subject_layer : bool
        Whether virtual channels of each subject go through a linear map of its own, V to V.
    subjects : tuple of str
        Who has a map (``dataset_sub-subject``). Where nobody is given, those of the recordings
        that are trained on are filled in. Without a subject layer nobody has.
    unseen : "refuse" or "mean"
        What to do with another subject: an error, or the mean of all maps.
    """

    name: Literal["merged_patch"] = "merged_patch"
    spectrum: Literal[False] = False
    place: FourierPlaceConfig = FourierPlaceConfig()
    n_virtual: int = Field(default=32, ge=1)
    n_waves: int = Field(default=16, ge=1)
    subject_layer: bool = False
    subjects: tuple[str, ...] = ()
    unseen: Literal["refuse", "mean"] = "refuse"

    def fitted(
        self,
        reader: WindowReader,  # noqa: ARG002 - names say whose recordings are
        recordings: Iterable[str],
        like: PatchConfig | None = None,  # noqa: ARG002 - no trained tokenizer has maps
    ) -> Self:
        """Return the config with the subjects of recordings, or check that it has them.

        Raises
        ------
        ConfigError
            If there are subjects already, and a recording is of another.
        """
        if not self.subject_layer:
            return self
        found = {subject_of(name): (_MAP,) for name in recordings}
        known = dict.fromkeys(self.subjects, (_MAP,))
        return self.model_copy(update={"subjects": tuple(with_rows(known, found, self.unseen))})

    def build(self, contract: SignalContract, width: int) -> MergedTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, or there is a subject layer and no subject.
        """
        return MergedTokenizer(self, contract, width)


def on_layout(position: Tensor) -> Tensor:
    """Project positions in the head frame onto a flat layout.

    The projection is azimuthal and equidistant, as of a globe seen from above: the middle of the
    layout is straight above the middle of the head, the distance from there is the angle, and half
    a side are 180 degrees. It knows no montage, so a sensor is where it is whatever others there
    are. How far a sensor is from the middle of the head has no say.

    Parameters
    ----------
    position : Tensor, shape (..., 3)
        Metres in the head frame.

    Returns
    -------
    Tensor of float32, shape (..., 2)
        Between 0 and 1; to the right, and to the front.
    """
    x, y, z = (position.float() - torch.tensor(MIDDLE_M, device=position.device)).unbind(-1)
    radius = torch.atan2(torch.hypot(x, y), z) / (2 * math.pi)
    azimuth = torch.atan2(y, x)
    return 0.5 + radius[..., None] * torch.stack((azimuth.cos(), azimuth.sin()), dim=-1)


class SubjectLayer(nn.Module):
    """A map of virtual channels, V to V, and an offset of each, for every subject.

    Parameters
    ----------
    config : MergedPatchConfig
        Who has one.

    Raises
    ------
    ConfigError
        If nobody has.
    """

    codes: Tensor

    def __init__(self, config: MergedPatchConfig):
        super().__init__()
        if not config.subjects:
            raise ConfigError(
                "merged_patch: a subject layer, and no subject is known",
                hint="fill in `subjects`, as `fitted` does from recordings, or set "
                "subject_layer: false",
            )
        names = tuple(f"virtual:{i}" for i in range(config.n_virtual))
        self.find = Finder(
            RegionsConfig(channels=dict.fromkeys(config.subjects, names), unseen=config.unseen)
        )
        self.fuse = Fusion(self.find.index, config.n_virtual)
        codes = torch.tensor([text_code(name) for name in names])
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, virtual: Tensor, batch: Batch) -> Tensor:
        """Map virtual channels (B, V, T) of a batch.

        Raises
        ------
        SignalError
            If the batch does not know whose windows are, or they are of a subject without a map.
            What is compiled cannot say so: it gives numbers that are none.
        """
        present = batch.present.any(-1, keepdim=True).expand(virtual.shape[:2])
        names = self.codes.expand(virtual.shape[:2])
        rows, used = self.find(replace(batch, name_code=names, present=present))
        mapped: Tensor = self.fuse(virtual, rows, used)
        if torch.compiler.is_compiling():
            wrong = self.find.wrong(rows, used, present)
            mapped = mapped.masked_fill(wrong[:, None, None], torch.nan)
        return mapped


class MergedTokenizer(Tokenizer):
    """Patches of virtual channels, each by one linear map.

    The place of a token is a learned row, as no virtual channel lies anywhere by itself, plus what
    it looks at in this montage: the weighted means of the waves of positions on the layout, and of
    kinds. Where sensors are few the same virtual channel looks elsewhere, and the backbone is to
    know. What channels measure has no part in it.

    Parameters
    ----------
    config : MergedPatchConfig
        Architecture.
    contract : SignalContract
        The signals it is for.
    width : int
        D.
    """

    sites_are_channels: ClassVar[bool] = False

    def __init__(self, config: MergedPatchConfig, contract: SignalContract, width: int):
        patch_len = config.patch_len(contract)
        super().__init__(nn.Linear(patch_len, width), patch_len, contract.sfreq, width)
        del self.place  # that of channels
        n_features = 2 * config.n_waves**2
        self.merger = SpatialMerger(config.n_virtual, n_features)
        self.subject = SubjectLayer(config) if config.subject_layer else None
        self.site = nn.Parameter(torch.empty(config.n_virtual, width))
        nn.init.trunc_normal_(self.site, std=0.02)
        self.looked_at = nn.Linear(n_features, width)
        initialise_linear(self.looked_at)
        self.kind = nn.Embedding(MAX_KINDS, width)

    def forward(self, batch: Batch) -> Grid:
        """Make tokens; as `Tokenizer.forward`, with one site a virtual channel.

        Raises
        ------
        SensorError
            If no channel of a window has a position. What is compiled cannot say so: it gives
            numbers that are none.
        SignalError
            Also if there is a subject layer, and the windows are of a subject that is not known.
        """
        self._check(batch)
        n_patches = self.n_patches(batch.signal.shape[-1])
        dtype = self.site.dtype
        seen = batch.located & batch.present
        position = batch.position.masked_fill(~seen[..., None], 0.0)
        waves = self.merger.embed(on_layout(position)).to(dtype)  # half precision has no phases
        looks = self.merger.weights(waves, seen)  # (B, V, C)
        signal = batch.signal.masked_fill(~seen[..., None], 0.0).to(dtype)
        virtual = self._refused(looks @ signal, batch, seen)
        if self.subject is not None:
            virtual = self.subject(virtual, batch)
        shown = batch.present.any(-1)[:, None, None].expand(*virtual.shape[:2], n_patches)
        what = self.looked_at(looks @ waves) + looks @ self.kind(batch.kind)
        return Grid(
            content=self.content(self.patches(virtual)).masked_fill(~shown[..., None], 0.0),
            place=(self.site + what)[:, :, None],
            present=shown,
            position=looks.float() @ position.float(),
            located=seen.any(-1, keepdim=True).expand(virtual.shape[:2]),
            whole=batch.whole,
        )

    def example(self) -> tuple[int, list[int]] | None:
        """Return codes of a subject that is known and of names, if not any will do."""
        return None if self.subject is None else self.subject.find.example()

    def _refused(self, virtual: Tensor, batch: Batch, seen: Tensor) -> Tensor:
        """Return virtual channels, if each window with channels has one with a position."""
        nowhere = batch.present.any(-1) & ~seen.any(-1)
        if torch.compiler.is_compiling():
            return virtual.masked_fill(nowhere[:, None, None], torch.nan)
        if bool(nowhere.any()):
            at = int(nowhere.nonzero()[0, 0])
            who = batch.recording_ids[at] if batch.recording_ids else f"window {at}"
            raise SensorError(
                f"{who}: none of {int(batch.present[at].sum())} channels has a position, and "
                "merged_patch tells them apart by nothing else",
                hint="give the recording positions (a montage), or take another tokenizer with "
                "place: names",
            )
        return virtual

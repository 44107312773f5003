"""Channels of a subject, or of a montage, onto regions that all share: a row for each channel.

B windows, C channels, V regions, T samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn

from neurofm.errors import ConfigError, SensorError, SignalError
from neurofm.nn.channel_map import ChannelIndex, ChannelRows, Rows
from neurofm.readers import WindowReader
from neurofm.sensors import SensorKind, channel_name, text_code
from neurofm.signals import Batch, subject_of
from neurofm.tokenizers.patch import PatchConfig

ANYONE = "anyone"  # whose channels a montage's are


class RegionsConfig(PatchConfig):
    """What tokenizers share that fuse channels.

    Parameters
    ----------
    channels : mapping of str to tuple of str
        Names of the channels of each subject (``dataset_sub-subject``), or of ``anyone``. Where
        there are none, those of the recordings that are trained on are filled in.
    per : "subject" or "montage"
        Whether the same name means another place in another subject, as with electrodes within
        the head, or the same.
    unseen : "refuse" or "mean"
        What to do with a subject that is not among them: an error, or the mean of the rows that
        channels of this name have in the others. Channels that nobody has are left out then; a
        recording that has no other is refused.
    """

    channels: Mapping[str, tuple[str, ...]] = {}
    per: Literal["subject", "montage"] = "subject"
    unseen: Literal["refuse", "mean"] = "refuse"

    def fitted(
        self, reader: WindowReader, recordings: Iterable[str], like: PatchConfig | None = None
    ) -> Self:
        """Return the config with the channels of recordings, or check that it has them.

        Parameters
        ----------
        reader : WindowReader
            Knows their sensors.
        recordings : iterable of str
            Their names.
        like : PatchConfig, optional
            What was trained, whose channels it has to have.

        Raises
        ------
        ConfigError
            If there are channels already, or in `like`, and a recording is of a subject or has
            channels that are not among them.
        """
        found: dict[str, dict[str, None]] = {}
        for name in recordings:
            owner = ANYONE if self.per == "montage" else subject_of(name)
            found.setdefault(owner, {}).update(dict.fromkeys(names_of(reader, name)))
        known = self.channels
        if not known and isinstance(like, RegionsConfig):
            known = like.channels
        return self.model_copy(update={"channels": with_rows(known, found, self.unseen)})

    def index(self) -> ChannelIndex:
        """Return what finds the rows of channels.

        Raises
        ------
        ConfigError
            If no channel is known.
        """
        if not any(self.channels.values()):
            raise ConfigError(
                "no channel is known that could have a row",
                hint="fill in `channels`, or let `neurofm tokenize` do so",
            )
        codes = {
            text_code(owner): [text_code(name) for name in names]
            for owner, names in self.channels.items()
        }
        return ChannelIndex(codes)


def with_rows(
    known: Mapping[str, Iterable[str]],
    found: Mapping[str, Iterable[str]],
    unseen: Literal["refuse", "mean"],
) -> dict[str, tuple[str, ...]]:
    """Return what has a row of each owner: what is `known`, or else what was `found`.

    Raises
    ------
    ConfigError
        If something is known, and what was found is not a part of it.
    """
    if not known:
        return {owner: tuple(sorted(names)) for owner, names in sorted(found.items())}
    rows = {owner: tuple(names) for owner, names in known.items()}
    for owner, names in sorted(found.items()):
        if owner not in rows and unseen == "mean":
            continue
        missing = [name for name in names if name not in rows.get(owner, ())]
        if missing:
            raise ConfigError(
                f"{owner}: there is no row for {', '.join(missing[:5])}"
                f"{' and others' if len(missing) > 5 else ''}; there are rows for "
                f"{', '.join(sorted(rows)[:5])}",
                hint="train the tokenizer on a recording of each subject, or set "
                "unseen: mean, which only takes channels of known names",
            )
    return rows


def names_of(reader: WindowReader, recording_id: str) -> list[str]:
    """Return the names of a recording's channels as tables of names have them."""
    sensors = reader.sensors(recording_id)
    pairs = zip(sensors.ch_names, sensors.kind, strict=True)
    return [channel_name(name, SensorKind(kind)) for name, kind in pairs]


class Finder(nn.Module):
    """Finds the rows of a batch, and refuses what has none.

    Parameters
    ----------
    config : RegionsConfig
        Whose channels there are.

    Raises
    ------
    ConfigError
        If no channel is known.
    """

    def __init__(self, config: RegionsConfig):
        super().__init__()
        self.per, self.unseen = config.per, config.unseen
        self.channels = config.channels
        self.index = config.index()

    def example(self) -> tuple[int, list[int]]:
        """Return codes of a subject and of the names of its channels."""
        owner, names = next(iter(self.channels.items()))
        return text_code(owner), [text_code(name) for name in names]

    def forward(self, batch: Batch) -> tuple[Rows, Tensor]:
        """Find rows, and where there are some that may be used (B, C).

        Raises
        ------
        SignalError
            If the batch does not know whose windows are, or they are of a subject without rows.
        SensorError
            If a channel has no row.
        """
        if batch.name_code is None:
            raise SignalError(
                "channels are told apart by their names, and the batch does not carry them",
                hint="give it `name_code`, as `neurofm.data.collate` does",
            )
        rows = self.index(self._owners(batch), batch.name_code)
        lent = rows.named & ~rows.owned[:, None] if self.unseen == "mean" else False
        used = (rows.known | lent) & batch.present
        if not torch.compiler.is_compiling():
            self._refuse(batch, rows, used)
        return rows, used

    def wrong(self, rows: Rows, used: Tensor, present: Tensor) -> Tensor:
        """Return which windows have no rows where they should, (B,)."""
        short = (present & ~used).any(-1)
        if self.unseen == "refuse":
            return short
        return torch.where(rows.owned, short, present.any(-1) & ~used.any(-1))

    def _owners(self, batch: Batch) -> Tensor:
        if self.per == "montage":
            return batch.kind.new_full((batch.kind.shape[0],), text_code(ANYONE))
        if batch.subject_code is None:
            raise SignalError(
                "every subject has rows of its own, and the batch does not say whose it is",
                hint="give it `subject_code`, as `neurofm.data.collate` does",
            )
        return batch.subject_code

    def _refuse(self, batch: Batch, rows: Rows, used: Tensor) -> None:
        wrong = self.wrong(rows, used, batch.present)
        if not bool(wrong.any()):
            return
        at = int(wrong.nonzero()[0, 0])
        who = batch.recording_ids[at] if batch.recording_ids else f"window {at}"
        if self.unseen == "refuse" and not bool(rows.owned[at]):
            raise SignalError(
                f"{who}: no map of channels was learnt for this subject, but for "
                f"{len(self.channels)} others, such as {next(iter(self.channels))}",
                hint="train on a recording of the subject, or build with unseen: mean; new data "
                "of a known one are told by `subject`",
            )
        missing = (batch.present[at] & ~used[at]).nonzero()[:, 0].tolist()
        raise SensorError(
            f"{who}: {len(missing)} of {int(batch.present[at].sum())} channels have no row: number "
            f"{', '.join(map(str, missing[:8]))}",
            hint="name channels as they were when the tokenizer was trained, and drop others",
        )


class Fusion(nn.Module):
    """Regions as weighted sums of a subject's channels, and an offset of each.

    Parameters
    ----------
    index : ChannelIndex
        Whose channels there are.
    n_regions : int
        V.
    """

    def __init__(self, index: ChannelIndex, n_regions: int):
        super().__init__()
        each = index.n_rows / index.n_owners
        self.rows = ChannelRows(index, n_regions, each**-0.5)
        self.bias = nn.Parameter(torch.zeros(index.n_owners, n_regions))

    def forward(self, signal: Tensor, rows: Rows, used: Tensor) -> Tensor:
        """Map signals (B, C, T) to regions (B, V, T), the sum over channels that are `used`."""
        weight = self.rows(rows).masked_fill(~used[..., None], 0.0)
        offset = torch.where(rows.owned[:, None], self.bias[rows.owner], self.bias.mean(0))
        return (
            weight.transpose(1, 2) @ signal.masked_fill(~used[..., None], 0.0) + offset[..., None]
        )


class Diffusion(nn.Module):
    """Channels of a subject as weighted sums of regions, and an offset of each.

    Parameters
    ----------
    index : ChannelIndex
        Whose channels there are.
    n_regions : int
        V.
    """

    def __init__(self, index: ChannelIndex, n_regions: int):
        super().__init__()
        self.rows = ChannelRows(index, n_regions, n_regions**-0.5)
        self.offset = ChannelRows(index, 1, 0.0)

    def forward(self, regions: Tensor, rows: Rows, used: Tensor) -> Tensor:
        """Map regions (B, V, T) to signals (B, C, T), zero where there is no row."""
        signal = self.rows(rows) @ regions + self.offset(rows)
        return signal.masked_fill(~used[..., None], 0.0)

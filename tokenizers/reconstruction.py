"""Train latent sources to give back every channel, also those they were not shown.

B windows, C channels, N patches of L samples.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from neurofm.config import Config
from neurofm.signals import Batch
from neurofm.tokenizers.brain import geometry
from neurofm.tokenizers.brain_parts import (
    BrainParts,
    Reconstruction,
    correlation,
    cut,
    reconstruction_loss,
)
from neurofm.training.module import Loss


class ReconstructionConfig(Config):
    """Reconstruct all channels from some, after BrainTokenizer (Xiao et al. 2025, sec. 3.4).

    Parameters
    ----------
    withhold : float
        Share of the channels of a window that the encoder is not shown; one always is.
    noise : float
        Standard deviation of the noise that is added to what it is shown, in deviations of the
        recording.
    place_noise_m : float
        Standard deviation of the noise that is added to each coordinate of a position, in metres,
        so that no sensor can be known by its exact place.
    """

    withhold: float = Field(default=0.25, ge=0, lt=1)
    noise: float = Field(default=0.1, ge=0)
    place_noise_m: float = Field(default=0.005, ge=0)

    def build(self, parts: BrainParts) -> ReconstructionObjective:
        """Build the objective that trains `parts`."""
        return ReconstructionObjective(self, parts)


class ReconstructionObjective(nn.Module):
    """The published loss on every channel that is present."""

    def __init__(self, config: ReconstructionConfig, parts: BrainParts):
        super().__init__()
        self.config = config
        self.parts = parts

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """Return the loss of one batch; what is drawn comes from `generator`, on the CPU.

        Parameters
        ----------
        batch : Batch
            Standardised windows.
        generator : torch.Generator
            A CPU generator.

        Returns
        -------
        Loss
            Terms: those of `reconstruction_loss`, ``withheld`` (correlation of the channels that
            were not shown, 0 where there are none) and ``perplexity`` of the first codes.
        """
        config, present = self.config, batch.present
        seen = shown(present.cpu(), config.withhold, generator).to(present.device)
        noise = torch.randn(batch.signal.shape, generator=generator).to(batch.signal)
        moved = torch.randn(batch.position.shape, generator=generator).to(batch.position)
        found = reconstruct(
            self.parts,
            batch,
            seen,
            noise=config.noise * noise,
            moved=config.place_noise_m * moved,
        )
        terms = reconstruction_loss(found, present)
        withheld = present & ~seen
        likeness = correlation(found.signal, found.target).detach().mean(-1)[withheld]
        codes = found.quantised.codes[..., 0]
        return Loss(
            total=terms.pop("total"),
            terms={
                **{name: value.detach() for name, value in terms.items()},
                "withheld": likeness.mean() if len(likeness) else likeness.new_zeros(()),
                "perplexity": perplexity(codes, self.parts.config.n_codes),
            },
        )


def reconstruct(
    parts: BrainParts,
    batch: Batch,
    seen: Tensor,
    *,
    noise: Tensor | None = None,
    moved: Tensor | None = None,
) -> Reconstruction:
    """Encode the channels that are `seen`, and decode all.

    Parameters
    ----------
    parts : BrainParts
        The model.
    batch : Batch
        Standardised windows.
    seen : Tensor of bool, shape (B, C)
        Channels that the encoder sees: at least one of each window.
    noise : Tensor, shape (B, C, T), optional
        Added to what it sees.
    moved : Tensor, shape (B, C, 3), optional
        Metres, added to the positions.

    Returns
    -------
    Reconstruction
        Of patches (B, C, N, L).
    """
    length = parts.config.window_len
    place = geometry(batch, moved)
    sensors = parts.sensors(place.to(batch.signal.dtype), batch.kind, batch.located)
    signal = batch.signal.masked_fill(~batch.present[..., None], 0.0)
    return parts.reconstruct(
        cut(signal, length),
        sensors,
        present=seen,
        noise=None if noise is None else cut(noise, length),
    )


def shown(present: Tensor, withhold: float, generator: Generator) -> Tensor:
    """Choose the channels of each window that the encoder sees.

    Parameters
    ----------
    present : Tensor of bool, shape (B, C)
        On the CPU; each window has a channel.
    withhold : float
        Share of the channels that are withheld, rounded down: one channel is always seen.
    generator : torch.Generator
        A CPU generator.

    Returns
    -------
    Tensor of bool, shape (B, C)
        Never true where nothing is present.
    """
    order = torch.rand(present.shape, generator=generator).masked_fill(~present, 2.0)
    rank = order.argsort(-1).argsort(-1)  # channels that are present come first
    n_withheld = (withhold * present.sum(-1, keepdim=True)).long()
    return present & (rank >= n_withheld)


def perplexity(codes: Tensor, n_codes: int) -> Tensor:
    """Return how many codes are in use, were all of them as frequent, from codes (...)."""
    share = torch.bincount(codes.flatten(), minlength=n_codes).float()
    share = share / share.sum().clamp_min(1)
    return torch.exp(-(share * share.clamp_min(1e-12).log()).sum())

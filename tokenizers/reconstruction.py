"""Train a tokenizer to give back every channel, also those it was not shown.

B windows, C channels, N patches of L samples.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.signals import Batch
from neurofm.tokenizers.brain_parts import correlation
from neurofm.tokenizers.coder import Coder, Draws
from neurofm.training.module import Loss


class ReconstructionConfig(Config):
    """Reconstruct all channels from some, as BrainTokenizer does, or from all of them.

    Where nothing is given, it is what the tokenizer's publication does (`Coder.usual`).

    Parameters
    ----------
    withhold : float, optional
        Share of the channels of a window that the encoder is not shown; one always is. Only a
        tokenizer whose decoder knows of places can give back what it has not seen.
    noise : float, optional
        Standard deviation of the noise that is added to what it is shown, in deviations of the
        recording.
    place_noise_m : float, optional
        Standard deviation of the noise that is added to each coordinate of a position, in metres,
        so that no sensor can be known by its exact place.
    """

    withhold: float | None = Field(default=None, ge=0, lt=1)
    noise: float | None = Field(default=None, ge=0)
    place_noise_m: float | None = Field(default=None, ge=0)

    def draws(self, parts: Coder) -> Draws:
        """Return what training draws.

        Raises
        ------
        ConfigError
            If channels are to be withheld that cannot be given back.
        """
        if self.withhold and not parts.withholds:
            raise ConfigError(
                f"objective.withhold is {self.withhold:g}, but this tokenizer gives back only the "
                "channels that it is shown",
                hint="leave withhold out, or train a brain_tokenizer",
            )
        usual = parts.usual
        return Draws(
            withhold=usual.withhold if self.withhold is None else self.withhold,
            noise=usual.noise if self.noise is None else self.noise,
            place_noise_m=(
                usual.place_noise_m if self.place_noise_m is None else self.place_noise_m
            ),
        )

    def build(self, parts: Coder) -> ReconstructionObjective:
        """Build the objective that trains `parts`.

        Raises
        ------
        ConfigError
            As `draws`.
        """
        return ReconstructionObjective(self.draws(parts), parts)


class ReconstructionObjective(nn.Module):
    """The tokenizer's own loss, on every channel that is present.

    Parameters
    ----------
    draws : Draws
        What is withheld and added.
    parts : Coder
        What is trained.
    """

    def __init__(self, draws: Draws, parts: Coder):
        super().__init__()
        self.draws = draws
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
            Terms: those of `Coder.losses`; ``withheld``, the correlation of the channels that
            were not shown (0 where there are none), of a tokenizer that is not shown all; and
            ``perplexity`` of the first codes.
        """
        draws, present = self.draws, batch.present
        seen = shown(present.cpu(), draws.withhold, generator).to(present.device)
        noise = torch.randn(batch.signal.shape, generator=generator).to(batch.signal)
        moved = torch.randn(batch.position.shape, generator=generator).to(batch.position)
        found = self.parts.rebuild(
            batch, seen, noise=draws.noise * noise, moved=draws.place_noise_m * moved
        )
        terms = self.parts.losses(found, batch)
        total = terms.pop("total")
        terms = {name: value.detach() for name, value in terms.items()}
        if self.parts.withholds:
            withheld = present & ~seen
            likeness = correlation(found.signal, found.target).detach().mean(-1)[withheld]
            terms["withheld"] = likeness.mean() if len(likeness) else likeness.new_zeros(())
        terms["perplexity"] = perplexity(found.quantised.codes[..., 0], self.parts.n_codes)
        return Loss(total=total, terms=terms)


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

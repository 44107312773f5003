"""What ``neurofm tokenize`` trains: windows to codes, and back.

B windows, C channels, N patches of L samples, S sites, M moments of a patch, Q levels, K codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from neurofm.signals import Batch
from neurofm.tokenizers.brain_parts import Reconstruction


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What training does to what the encoder is shown.

    Attributes
    ----------
    withhold : float
        Share of the channels of a window that it is not shown.
    noise : float
        Standard deviation of what is added to samples, in deviations of the recording.
    place_noise_m : float
        Standard deviation of what is added to each coordinate of a position, in metres.
    """

    withhold: float = 0.0
    noise: float = 0.0
    place_noise_m: float = 0.0


class Coder(nn.Module, ABC):
    """Encoder, codes and decoder.

    Attributes
    ----------
    usual : Draws
        What training draws where the config does not say.
    withholds : bool
        Whether channels that the encoder is not shown can be given back.
    n_levels, n_codes : int
        Q and K.
    """

    usual: ClassVar[Draws] = Draws()
    withholds: ClassVar[bool] = False

    @property
    def n_levels(self) -> int:
        """Q: one where nothing else is said."""
        return 1

    @property
    @abstractmethod
    def n_codes(self) -> int:
        """K."""

    @abstractmethod
    def rebuild(
        self,
        batch: Batch,
        seen: Tensor,
        *,
        noise: Tensor | None = None,
        moved: Tensor | None = None,
    ) -> Reconstruction:
        """Encode the channels that are `seen`, and decode all.

        Parameters
        ----------
        batch : Batch
            Standardised windows.
        seen : Tensor of bool, shape (B, C)
            Channels that the encoder sees: at least one of each window. What cannot give back
            others is shown all that are present.
        noise : Tensor, shape (B, C, T), optional
            Added to what it sees.
        moved : Tensor, shape (B, C, 3), optional
            Metres, added to the positions.

        Returns
        -------
        Reconstruction
            Of patches (B, C, N, L), with codes (..., Q).
        """

    @abstractmethod
    def losses(self, found: Reconstruction, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss, each of shape (), and ``total``."""

    @abstractmethod
    def codes_of(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, S, N, M, Q)."""

    def begin(self, n_steps: int) -> None:  # noqa: B027 - most need nothing
        """Prepare for a run of so many steps."""

    def finish(self, batches: Iterable[Batch]) -> None:  # noqa: B027
        """Do what is left to do after the last step, with what was trained on, for an epoch."""

    def looks(self, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """Return how much each site looks at each channel, (S, C), where sites are not channels."""
        return None

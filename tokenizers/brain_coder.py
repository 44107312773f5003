"""BrainTokenizer as ``neurofm tokenize`` trains it: channels are withheld, and all given back.

B windows, C channels, N patches of L samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neurofm.nn.place import HEAD_M
from neurofm.signals import Batch
from neurofm.tokenizers.brain_parts import BrainParts, Reconstruction, cut, reconstruction_loss
from neurofm.tokenizers.coder import Coder, Draws


def geometry(batch: Batch, moved: Tensor | None = None) -> Tensor:
    """Return position and orientation of each channel, (B, C, 6), about one in size.

    `moved` (B, C, 3), in metres, is added to positions.
    """
    position = batch.position if moved is None else batch.position + moved
    position = (position / HEAD_M).masked_fill(~batch.located[..., None], 0.0)
    orientation = batch.orientation.masked_fill(~batch.oriented[..., None], 0.0)
    return torch.cat((position, orientation), -1)


class BrainCoder(BrainParts, Coder):
    """Latent sources of some channels, from which every channel is decoded at its place."""

    usual = Draws(withhold=0.25, noise=0.1, place_noise_m=0.005)
    withholds = True

    @property
    def n_levels(self) -> int:
        """Q."""
        return self.config.n_levels

    @property
    def n_codes(self) -> int:
        """K."""
        return self.config.n_codes

    def rebuild(
        self,
        batch: Batch,
        seen: Tensor,
        *,
        noise: Tensor | None = None,
        moved: Tensor | None = None,
    ) -> Reconstruction:
        """Encode the channels that are `seen`, and decode all; see `Coder.rebuild`."""
        length = self.config.window_len
        return self.reconstruct(
            cut(batch.signal.masked_fill(~batch.present[..., None], 0.0), length),
            self._sensors(batch, moved),
            present=seen,
            noise=None if noise is None else cut(noise, length),
        )

    def losses(self, found: Reconstruction, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of `reconstruction_loss`, of the channels that are present."""
        return reconstruction_loss(found, batch.present)

    def codes_of(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, S, N, M, Q)."""
        windows = cut(
            batch.signal.masked_fill(~batch.present[..., None], 0.0), self.config.window_len
        )
        # a window without channels looks at its padding, which is zero
        seen = batch.present | ~batch.present.any(-1, keepdim=True)
        return self.quantise(self.sources(windows, self._sensors(batch), seen)).codes

    def looks(self, batch: Batch) -> Tensor:
        """Return how much each source looks at each channel, the mean over windows, (S, C)."""
        features = self.features(cut(batch.signal, self.config.window_len))
        return self.to_sources.weights(features, self._sensors(batch), batch.present).mean(0)

    def _sensors(self, batch: Batch, moved: Tensor | None = None) -> Tensor:
        place = geometry(batch, moved).to(batch.signal.dtype)
        return self.sensors(place, batch.kind, batch.located)

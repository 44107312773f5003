"""Codes of single samples as ``neurofm tokenize`` fits, trains and measures them.

B windows, C channels, N patches of L samples, K codes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm.nn.codebook import Quantised
from neurofm.nn.levels import FINE_BINS, MuLaw, Quantiles, histogram
from neurofm.nn.ranks import sum_over_ranks
from neurofm.nn.sample_codes import SampleCodec
from neurofm.signals import Batch
from neurofm.tokenizers.brain_parts import Reconstruction, cut
from neurofm.tokenizers.coder import Coder

_ANNEALED = 0.8  # of a run; then every choice is hard, and what codes look like settles


class SampleCoder(Coder):
    """One code for each sample, decoded patch by patch.

    Parameters
    ----------
    coder : MuLaw, Quantiles or SampleCodec
        Maps samples to codes, and back.
    patch_len : int
        L.
    """

    def __init__(self, coder: MuLaw | Quantiles | SampleCodec, patch_len: int):
        super().__init__()
        self.coder = coder
        self.patch_len = patch_len

    @property
    def n_codes(self) -> int:
        """K."""
        return self.coder.n_codes

    def rebuild(
        self,
        batch: Batch,
        seen: Tensor,  # noqa: ARG002 - a channel is given back from itself alone
        *,
        noise: Tensor | None = None,
        moved: Tensor | None = None,  # noqa: ARG002 - and has no place
    ) -> Reconstruction:
        """Encode every channel, and decode it; see `Coder.rebuild`."""
        target = self._patches(batch)
        signal = target if noise is None else target + cut(noise, self.patch_len)
        codes, found = self._there_and_back(signal, batch.present)
        quantised = Quantised(
            content=found[..., None], codes=codes[..., None], loss=found.new_zeros(())
        )
        return Reconstruction(signal=found, target=target, quantised=quantised)

    def losses(self, found: Reconstruction, batch: Batch) -> dict[str, Tensor]:
        """Return the mean squared error, and the share of the variance that is explained."""
        signal, target = found.signal[batch.present], found.target[batch.present]
        error = F.mse_loss(signal, target)
        explained = 1 - error.detach() / target.var(correction=0).clamp_min(1e-6)
        return {"total": error, "explained": explained}

    def codes_of(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, C, N, L, 1)."""
        return self.coder.encode(self._patches(batch))[..., None]

    def _patches(self, batch: Batch) -> Tensor:
        return cut(batch.signal.masked_fill(~batch.present[..., None], 0.0), self.patch_len)

    def _there_and_back(self, patches: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return codes of patches (B, C, N, L), and the patches that they decode to."""
        codes = self.coder.encode(patches)
        return codes, self.coder.decode(codes)


class QuantileCoder(SampleCoder):
    """Levels that are equally frequent in all that was seen in training.

    Parameters
    ----------
    n_codes, patch_len : int
        K and L.
    reach : float
        Largest magnitude of a sample.
    """

    coder: Quantiles
    counts: Tensor

    def __init__(self, n_codes: int, patch_len: int, reach: float):
        super().__init__(Quantiles(n_codes), patch_len)
        self.reach = reach
        self.register_buffer("counts", torch.zeros(FINE_BINS, dtype=torch.int64))

    def _there_and_back(self, patches: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and len(patches):
            counts = histogram(patches[present].detach(), self.reach)
            sum_over_ranks(counts)
            self.counts += counts
            self.coder.fit(self.counts, self.reach)
        return super()._there_and_back(patches, present)


class AnnealedCoder(SampleCoder):
    """Codes that are learnt: choices are soft at first, and hard at the end (MEG-GPT).

    The codes that the recordings use are then named by how frequent they are.

    Parameters
    ----------
    codec : SampleCodec
        What is trained.
    patch_len : int
        L.
    """

    coder: SampleCodec
    taken: Tensor

    def __init__(self, codec: SampleCodec, patch_len: int):
        super().__init__(codec, patch_len)
        self.n_soft = 1
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))  # steps

    def begin(self, n_steps: int) -> None:
        """Prepare for a run of so many steps: over most of it the temperature falls to zero."""
        self.n_soft = max(1, int(_ANNEALED * n_steps))

    def _there_and_back(self, patches: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        if self.training:
            self.coder.choice.temperature.copy_((1 - self.taken / self.n_soft).clamp_min(0))
            self.taken += 1
        found = self.coder.choose(patches)
        return self.coder.names[found.codes], self.coder.draw(found.weights)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> None:
        """Name codes by how often they occur in training data; what does not occur is 0."""
        counts = torch.zeros_like(self.coder.names)
        for batch in batches:
            codes = self.coder.choose(self._patches(batch)).codes[batch.present]
            counts += torch.bincount(codes.flatten(), minlength=len(counts))
        sum_over_ranks(counts)
        self.coder.rename(counts)

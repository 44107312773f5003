"""Predict the codes of hidden tokens, as a frozen tokenizer has them.

B windows, S sites, P patches, M moments of a patch, Q levels, K codes, D width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from neurofm.config import Config
from neurofm.contract import SignalContract
from neurofm.encoder import Encoder
from neurofm.errors import ConfigError
from neurofm.pretrain.jitter import jittered
from neurofm.signals import Batch
from neurofm.tokenizers.slot import CodedTokenizer
from neurofm.training.module import Loss


class CodePredictionConfig(Config):
    """Hide tokens at random and predict every level of their codes (BrainOmni).

    Parameters
    ----------
    ratio : float
        Share of the tokens of a window that is hidden.
    place_noise_m : float
        Standard deviation of what is added to each coordinate of a position, in metres.
    """

    name: Literal["code_prediction"] = "code_prediction"
    ratio: float = Field(default=0.5, gt=0, lt=1)
    place_noise_m: float = Field(default=0.0, ge=0)

    def build(self, encoder: Encoder, contract: SignalContract) -> CodePrediction:  # noqa: ARG002
        """Build the objective that trains `encoder`.

        Raises
        ------
        ConfigError
            If its tokenizer has no codes, would learn them on the way, or shows in a token what is
            hidden in others; or if the encoder gives no token of each site.
        """
        tokenizer = encoder.tokenizer
        if not isinstance(tokenizer, CodedTokenizer) or not tokenizer.frozen:
            raise ConfigError(
                "code_prediction needs codes that stay as they are, and the encoder's tokenizer is "
                f"{encoder.config.tokenizer.name}, not frozen",
                hint="set encoder.tokenizer to {name: brain_tokenizer, frozen: true, ...}, or "
                "another that has codes, and tokenizer_from to what `neurofm tokenize` wrote",
            )
        if tokenizer.leaks:
            raise ConfigError(
                f"code_prediction: tokens of {encoder.config.tokenizer.name} that are made of "
                "codes have seen the patches whose codes are to be predicted",
                hint="set encoder.tokenizer.discrete: false",
            )
        if encoder.summarises:
            raise ConfigError(
                "code_prediction: codes are of sites, and the backbone gives summary tokens alone",
                hint="leave n_summary out of encoder.backbone, or set objective.name to "
                "masked_reconstruction",
            )
        return CodePrediction(self, encoder, tokenizer)


class CodePrediction(nn.Module):
    """Cross-entropy of the codes of hidden tokens."""

    def __init__(self, config: CodePredictionConfig, encoder: Encoder, tokenizer: CodedTokenizer):
        super().__init__()
        self.config = config
        self.encoder = encoder
        # not a module of its own: it is the encoder's
        self.codes, self.sites, self.stored = tokenizer.codes, tokenizer.sites, tokenizer.stored
        self.shape = tokenizer.code_shape
        self.predict = nn.Linear(encoder.width, math.prod(self.shape))

    def forward(self, batch: Batch, generator: Generator) -> Loss:
        """Return the loss of one batch; what is hidden comes from `generator`, on the CPU.

        Parameters
        ----------
        batch : Batch
            Standardised windows.
        generator : torch.Generator
            A CPU generator.

        Returns
        -------
        Loss
            The total is a share of what guessing costs. Terms: ``accuracy`` of the first level,
            and ``hidden_share``.
        """
        codes = self._targets(batch)  # (B, S, P, M, Q)
        hide = self._hide(self.sites(batch), codes.shape[2], generator)
        shown = jittered(batch, self.config.place_noise_m, generator)
        encoded = self.encoder(shown, hide).content[hide]  # (N, D)
        scores = self.predict(encoded).float().unflatten(-1, self.shape)  # (N, M, Q, K)
        wanted = codes[hide]
        loss = F.cross_entropy(scores.flatten(0, 2), wanted.flatten()) / math.log(self.shape[-1])
        right = scores[:, :, 0].argmax(-1) == wanted[:, :, 0]
        return Loss(
            total=loss,
            terms={"accuracy": right.float().mean(), "hidden_share": hide.float().mean()},
        )

    @torch.no_grad()
    def _targets(self, batch: Batch) -> Tensor:
        """Return the codes, in single precision also where the encoder is trained in half."""
        if (codes := self.stored(batch)) is not None:
            return codes
        with torch.autocast(batch.signal.device.type, enabled=False):
            return self.codes(batch)

    def _hide(self, sites: Tensor, n_patches: int, generator: Generator) -> Tensor:
        """Return what to hide of `sites` (B, S) that are present, bool (B, S, P).

        At least one token of a window, never all, if it has two.
        """
        present = sites.cpu()[..., None].expand(-1, -1, n_patches)
        draw = torch.rand(present.shape, generator=generator).masked_fill(~present, 2.0).flatten(1)
        n = present.sum((1, 2))
        n_hidden = torch.minimum((self.config.ratio * n).long().clamp_min(1), n - 1)
        hide = draw.argsort(-1).argsort(-1) < n_hidden[:, None]
        return hide.unflatten(1, present.shape[1:]).to(sites.device)

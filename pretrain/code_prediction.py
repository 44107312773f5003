"""Predict the codes of hidden tokens, as a frozen tokenizer has them.

B windows, S sources, P patches, M moments of a patch, Q levels, K codes, D width.
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
from neurofm.signals import Batch
from neurofm.tokenizers.brain import BrainTokenizer
from neurofm.training.module import Loss


class CodePredictionConfig(Config):
    """Hide latent sources at random and predict every level of their codes (BrainOmni).

    Parameters
    ----------
    ratio : float
        Share of the tokens of a window that is hidden.
    """

    name: Literal["code_prediction"] = "code_prediction"
    ratio: float = Field(default=0.5, gt=0, lt=1)

    def build(self, encoder: Encoder, contract: SignalContract) -> CodePrediction:  # noqa: ARG002
        """Build the objective that trains `encoder`.

        Raises
        ------
        ConfigError
            If its tokenizer has no codes, or would learn them on the way.
        """
        tokenizer = encoder.tokenizer
        if not isinstance(tokenizer, BrainTokenizer) or not tokenizer.frozen:
            raise ConfigError(
                "code_prediction needs codes that stay as they are, and the encoder's tokenizer is "
                f"{encoder.config.tokenizer.name}, not frozen",
                hint="set encoder.tokenizer to {name: brain_tokenizer, frozen: true, ...} and "
                "tokenizer_from to what `neurofm tokenize` wrote",
            )
        return CodePrediction(self, encoder, tokenizer)


class CodePrediction(nn.Module):
    """Cross-entropy of the codes of hidden tokens."""

    def __init__(self, config: CodePredictionConfig, encoder: Encoder, tokenizer: BrainTokenizer):
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.codes = tokenizer.codes
        parts = tokenizer.content.config
        self.shape = (parts.window_len // parts.hop, parts.n_levels, parts.n_codes)
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
        with torch.no_grad():
            codes = self.codes(batch)  # (B, S, P, M, Q)
        hide = self._hide(batch, codes, generator)
        encoded = self.encoder(batch, hide).content[hide]  # (N, D)
        scores = self.predict(encoded).float().unflatten(-1, self.shape)  # (N, M, Q, K)
        wanted = codes[hide]
        loss = F.cross_entropy(scores.flatten(0, 2), wanted.flatten()) / math.log(self.shape[-1])
        right = scores[:, :, 0].argmax(-1) == wanted[:, :, 0]
        return Loss(
            total=loss,
            terms={"accuracy": right.float().mean(), "hidden_share": hide.float().mean()},
        )

    def _hide(self, batch: Batch, codes: Tensor, generator: Generator) -> Tensor:
        """Return what to hide, bool (B, S, P): at least one token of a window, never all."""
        draw = torch.rand(codes.shape[:3], generator=generator).flatten(1)
        n_hidden = min(max(1, int(self.config.ratio * draw.shape[1])), draw.shape[1] - 1)
        hide = (draw.argsort(-1).argsort(-1) < n_hidden).unflatten(1, codes.shape[1:3])
        return hide.to(codes.device) & batch.present.any(-1)[:, None, None]

"""Where encoders come from, and proof of what was and was not changed in them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch

from neurofm.checkpoint import weights_digest
from neurofm.contract import SignalContract
from neurofm.encoder import Encoder, EncoderConfig
from neurofm.errors import TrainingError
from neurofm.training.seeding import derived_seed


@dataclass(frozen=True, eq=False)
class EncoderSource:
    """Gives the same initial weights as often as they are asked for.

    Attributes
    ----------
    name : "pretrained" or "random_init"
        The model's name in tables.
    config : EncoderConfig
        Architecture.
    contract : SignalContract
        The signals it is for.
    pretrained : Encoder, optional
        The weights to copy; without, weights are drawn by seed.
    """

    name: Literal["pretrained", "random_init"]
    config: EncoderConfig
    contract: SignalContract
    pretrained: Encoder | None = None

    def fresh(self, seed: int) -> Encoder:
        """Return an encoder of its own, in evaluation mode."""
        if self.pretrained is not None:
            return copy.deepcopy(self.pretrained).eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "random_init"))
            return self.config.build(self.contract).eval()


class Frozen:
    """While the block runs nothing may change the encoder; afterwards that is checked.

    Parameters
    ----------
    encoder : Encoder
        Set to evaluation mode, and its parameters to need no gradient.

    Raises
    ------
    TrainingError
        On leaving, if a weight moved or was made trainable.
    """

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.digest = weights_digest(encoder)

    def __enter__(self) -> Frozen:
        self.encoder.eval().requires_grad_(False)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise unless the encoder is as it was."""
        trainable = [n for n, p in self.encoder.named_parameters() if p.requires_grad]
        if trainable:
            raise TrainingError(
                f"the frozen encoder has {len(trainable)} trainable parameters, {trainable[0]} "
                "among them"
            )
        found = weights_digest(self.encoder)
        if found != self.digest:
            raise TrainingError(
                f"the frozen encoder's weights changed from {self.digest} to {found}",
                hint="something trains or updates them; its scores would be no probe's",
            )

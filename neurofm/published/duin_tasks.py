"""Du-IN (Zheng et al., NeurIPS 2024): masked codes, and classes of windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.published.duin import DuINConfig, Perceptron
from neurofm.published.duin_original import (
    MODEL,
    UNUSED,
    check_arguments,
    head_rules,
    join,
    part_values,
    trunk_from,
    trunk_rules,
)
from neurofm.published.entry import Published, Rule, config_of, rename

LOG_SHARPNESS = 2.0  # of the contrast; a constant in the original


class MaskedDuINConfig(Config):
    """Hyper-parameters of `MaskedDuIN`.

    Parameters
    ----------
    encoder : DuINConfig
        The encoder, trained from scratch.
    head_hidden : tuple of int
        Hidden features of the head.
    n_codes : int
        Codes of the tokenizer to predict.
    """

    encoder: DuINConfig = DuINConfig()
    head_hidden: tuple[int, ...] = ()
    n_codes: int = Field(default=2048, ge=2)

    def build(self) -> MaskedDuIN:
        """Build the model with fresh weights."""
        return MaskedDuIN(self)


class MaskedDuIN(nn.Module):
    """Guess the codes of patches that are hidden, and then of the others.

    Parameters
    ----------
    config : MaskedDuINConfig
        Hyper-parameters.
    """

    def __init__(self, config: MaskedDuINConfig):
        super().__init__()
        width = config.encoder.encoder.width
        self.encoder = config.encoder.build()
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.head = Perceptron(width, *config.head_hidden, config.n_codes)

    def encode(self, tokens: Tensor, hide: Tensor) -> Tensor:
        """Encode tokens (B, P, D) where those to hide (B, P) are replaced."""
        return self.encoder.stack(torch.where(hide[..., None], self.mask_token, tokens))

    def forward(self, signal: Tensor, subject: Tensor, hide: Tensor) -> Tensor:
        """Score codes of every patch, each from the pass in which it is hidden.

        Parameters
        ----------
        signal, subject : Tensor
            As `DuIN.forward` takes them.
        hide : Tensor of bool, shape (B, P)
            Hidden in the first pass; the second hides the others.

        Returns
        -------
        Tensor, shape (B, P, n_codes)
            Scores.
        """
        tokens = self.encoder.tokens(signal, subject)
        first, second = (self.head(self.encode(tokens, part)) for part in (hide, ~hide))
        return torch.where(hide[..., None], first, second)


class DuINClassifierConfig(Config):
    """Hyper-parameters of `DuINClassifier`.

    Parameters
    ----------
    encoder : DuINConfig
        The encoder.
    n_patches : int
        Patches in a window.
    head_hidden : tuple of int
        Hidden features of the head.
    n_classes : int
        Classes.
    contrast_width : int
        Features of a token that windows are compared by.
    """

    encoder: DuINConfig = DuINConfig()
    n_patches: int = Field(default=30, ge=1)
    head_hidden: tuple[int, ...] = (128,)
    n_classes: int = Field(default=61, ge=2)
    contrast_width: int = Field(default=32, ge=1)

    def build(self) -> DuINClassifier:
        """Build the model with fresh weights."""
        return DuINClassifier(self)


class DuINClassifier(nn.Module):
    """A head over all tokens of a window.

    The original also quantises the tokens and does nothing with the result, which is left out.

    Parameters
    ----------
    config : DuINClassifierConfig
        Hyper-parameters.
    """

    log_sharpness: Tensor

    def __init__(self, config: DuINClassifierConfig):
        super().__init__()
        width = config.encoder.encoder.width
        self.encoder = config.encoder.build()
        self.head = Perceptron(config.n_patches * width, *config.head_hidden, config.n_classes)
        self.to_contrast = nn.Linear(width, config.contrast_width)
        self.register_buffer("log_sharpness", torch.tensor(LOG_SHARPNESS))

    def forward(self, signal: Tensor, subject: Tensor) -> Tensor:
        """Return scores (B, n_classes) of windows; arguments as of `DuIN.forward`.

        They went through a sigmoid, and the published loss is the cross-entropy of that.
        """
        return self.head(self.encoder(signal, subject).flatten(1)).sigmoid()

    def contrast(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return how unlike windows of one class are, as against all others.

        Parameters
        ----------
        tokens : Tensor, shape (B, P, D)
            What the encoder returns.
        labels : Tensor of int, shape (B,)
            Classes.

        Returns
        -------
        Tensor, shape ()
            Summed over the windows of the same class, averaged over windows. The published
            weight of this term is zero.
        """
        x = F.normalize(self.to_contrast(tokens).flatten(1), dim=-1)
        score = (x @ x.T) * self.log_sharpness.exp()
        same = (labels[:, None] == labels).to(score.dtype)
        # the scores are symmetric, and so are rows and columns of the published loss
        return -(same * score.log_softmax(-1)).sum(-1).mean()


# ---------------------------------------------------------------------------------------
# From the original

_HEAD = dict.fromkeys(("d_feature", "d_model", "d_hidden", "dropout", "n_labels", "n_tokens"))


def masked_from_constructor(constructor: Mapping[str, Any]) -> MaskedDuINConfig:
    """Return our config from the original's arguments."""
    check_arguments(constructor)
    names = {**_HEAD, "d_hidden": "head_hidden", "n_tokens": "n_codes"}
    values = part_values(constructor, "cls", names)
    return config_of(MaskedDuINConfig, {**values, "encoder": trunk_from(constructor)}, model=MODEL)


def classifier_from_constructor(constructor: Mapping[str, Any]) -> DuINClassifierConfig:
    """Return our config from the original's arguments.

    Raises
    ------
    ConfigError
        If an argument is unknown, or the contrast is another than of labels.
    """
    check_arguments(constructor)
    names = {
        **_HEAD,
        "d_hidden": "head_hidden",
        "n_labels": "n_classes",
        "d_feature": "n_features",
    }
    values = part_values(constructor, "cls", names)
    contrast = {"d_model": None, "d_contra": "contrast_width"}
    values |= part_values(constructor, "contra", contrast)
    encoder = trunk_from(constructor)
    n_patches = values.pop("n_features", 0) // encoder.encoder.width
    values |= {"encoder": encoder, "n_patches": n_patches}
    return config_of(DuINClassifierConfig, values, model=MODEL)


def masked_weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names."""
    rules: list[Rule] = [
        *trunk_rules(),
        ("mask_emb", "mask_token"),
        *head_rules(original),
    ]
    return join(rename(original, rules, unused=UNUSED))


def classifier_weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the original's weights our names; what no output depends on is left out."""
    unused = {
        **UNUSED,
        r"vq_block\..+": "the quantised tokens are used by nothing",
        r"contra_block\.proj_y\..+": "the other projection is applied to both sides",
    }
    rules: list[Rule] = [
        *trunk_rules(),
        (r"contra_block\.proj_z\.0\.(\w+)", r"to_contrast.\1"),
        (r"contra_block\.t", "log_sharpness"),
        *head_rules(original),
    ]
    return join(rename(original, rules, unused=unused))


PARTS = ("nn.subject_map", "nn.step_convs", "nn.sinusoid", "nn.block", "nn.attention (full)")
PUBLISHED_DUIN_TASKS = {
    "Du-IN masked code prediction": Published(
        from_constructor=masked_from_constructor, weights=masked_weights, parts=PARTS
    ),
    "Du-IN classifier": Published(
        from_constructor=classifier_from_constructor, weights=classifier_weights, parts=PARTS
    ),
}

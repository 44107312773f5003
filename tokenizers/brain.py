"""Tokens of latent sources, the same number for every montage: BrainTokenizer in a slot.

B windows, C channels, T samples, P patches, L samples of a patch, S sources (the sites),
M moments of a patch, E features inside, D width.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.nn.codebook import Gradient
from neurofm.nn.initialise import initialise_linear
from neurofm.nn.place import MAX_KINDS
from neurofm.signals import Batch, Grid
from neurofm.tokenizers.brain_coder import BrainCoder, geometry
from neurofm.tokenizers.brain_parts import BrainEncoder, BrainPartsConfig
from neurofm.tokenizers.brain_start import first_weights
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.patch import PatchConfig
from neurofm.tokenizers.place import FourierPlaceConfig
from neurofm.tokenizers.slot import CodedTokenizer

_STEEPEST = 8  # the largest ratio that is chosen where none is given
_MOMENTS = 4  # of a patch, at most, where no ratios are given


class BrainTokenizerConfig(PatchConfig):
    """Latent sources of a patch, after BrainTokenizer (Xiao et al. 2025, sec. 3).

    Here a window of BrainTokenizer is a patch, and its moments together are one token, so that
    nothing of a hidden patch can be seen through another.

    Parameters
    ----------
    ratios : tuple of int, optional
        Strides of the convolutions. Their product is a moment in samples, of which a patch is a
        whole number. By default a patch is four moments, or as many as divide it, in strides of
        eight at most.
    n_filters, kernel, last_kernel : int
        Of the convolutions; see `neurofm.nn.seanet.SEANetEncoder`.
    inner, n_heads, n_sources : int
        E, heads of the cross-attentions, S.
    n_levels, n_codes : int
        Codebooks in a row, and codes of each.
    gradient : "rotation" or "straight_through"
        How gradients pass the codes.
    revive_below : float
        Codes that stand for fewer tokens a batch on average are replaced. It must be well below
        tokens by codes, or codes that serve are thrown away: a small batch has few tokens.
    straight : bool
        Whether a linear map of the patch leads beside the convolutions, in and out, which are left
        to add what is not linear. With it a run of minutes gets several times as far.
    discrete : bool
        Whether tokens are made of codes, as in BrainOmni; otherwise of the sources themselves.
    frozen : bool
        Whether what was learnt by ``neurofm tokenize`` stays as it is. What brings it to the
        encoder's width, and the places, are always learnt.
    """

    name: Literal["brain_tokenizer"] = "brain_tokenizer"
    spectrum: Literal[False] = False
    place: FourierPlaceConfig = FourierPlaceConfig()
    ratios: tuple[int, ...] | None = None
    n_filters: int = Field(default=8, ge=2, multiple_of=2)
    kernel: int = Field(default=5, ge=1)
    last_kernel: int = Field(default=5, ge=1)
    inner: int = Field(default=64, ge=2)
    n_heads: int = Field(default=4, ge=1)
    n_sources: int = Field(default=16, ge=1)
    n_levels: int = Field(default=4, ge=1)
    n_codes: int = Field(default=256, ge=2)
    gradient: Gradient = "rotation"
    revive_below: float = Field(default=0.05, ge=0)
    straight: bool = True
    discrete: bool = False
    frozen: bool = False

    def parts(self, contract: SignalContract) -> BrainPartsConfig:
        """Return the hyper-parameters of what ``neurofm tokenize`` trains.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, moments a patch, or heads the width.
        """
        patch_len = self.patch_len(contract)
        ratios = self.ratios or strides_of(patch_len // _most_moments(patch_len))
        if any(ratio < 1 for ratio in ratios):
            raise ConfigError(f"ratios must be 1 or more, got {list(ratios)}")
        return BrainPartsConfig(
            window_len=patch_len,
            n_filters=self.n_filters,
            ratios=ratios,
            kernel=self.kernel,
            last_kernel=self.last_kernel,
            width=self.inner,
            n_heads=self.n_heads,
            n_sources=self.n_sources,
            n_levels=self.n_levels,
            n_codes=self.n_codes,
            n_kinds=MAX_KINDS,
            gradient=self.gradient,
            revive_below=self.revive_below,
            named_sources=True,
            strength=True,
            straight=self.straight,
        ).checked()

    def build(self, contract: SignalContract, width: int) -> BrainTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            As `parts`.
        """
        return BrainTokenizer(self, self.parts(contract), contract.sfreq, width)

    def build_parts(self, contract: SignalContract) -> BrainCoder:
        """Build what ``neurofm tokenize`` trains: the same encoder, and a decoder.

        Raises
        ------
        ConfigError
            As `parts`, or if a patch is too short to be standardised.
        """
        parts = BrainCoder(self.parts(contract))
        if parts.config.window_len < 2:
            raise ConfigError("a patch of one sample has no standard deviation, to be divided by")
        first_weights(parts)
        return parts


def strides_of(n: int) -> tuple[int, ...]:
    """Split `n` into factors of eight at most where its primes allow it, the largest first."""
    factors: list[int] = []
    for prime in sorted(_primes(n), reverse=True):
        if factors and factors[-1] * prime <= _STEEPEST:
            factors[-1] *= prime
        else:
            factors.append(prime)
    return tuple(sorted(factors, reverse=True)) or (1,)


def _most_moments(patch_len: int) -> int:
    return max(n for n in range(1, _MOMENTS + 1) if patch_len % n == 0)


def _primes(n: int) -> list[int]:
    for factor in range(2, math.isqrt(n) + 1):
        if n % factor == 0:
            return [factor, *_primes(n // factor)]
    return [n] if n > 1 else []


class BrainTokenizer(CodedTokenizer):
    """Patches of channels into latent sources.

    The place of a source follows from the query that finds it and from where the channels lie
    that it looks at; what they measure has no part in it.

    Parameters
    ----------
    config : BrainTokenizerConfig
        Architecture.
    parts : BrainPartsConfig
        That of the encoder inside.
    sfreq : float
        Sampling rate in hertz of the signals it is for.
    width : int
        D.
    """

    sites_are_channels: ClassVar[bool] = False
    content: BrainEncoder

    def __init__(
        self, config: BrainTokenizerConfig, parts: BrainPartsConfig, sfreq: float, width: int
    ):
        super().__init__(BrainEncoder(parts), parts.window_len, sfreq, width)
        self.discrete, self.frozen = config.discrete, config.frozen
        self.project = nn.Linear(parts.n_moments * parts.width, width)
        self.project_query = nn.Linear(parts.width, width)
        initialise_linear(self.project_query)
        if self.frozen:
            self.content.requires_grad_(False)
        first_weights(self.content)
        self.train(self.training)

    def train(self, mode: bool = True) -> BrainTokenizer:
        """Switch between training and evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.content.eval()
        return self

    def forward(self, batch: Batch) -> Grid:
        """Make tokens; as `Tokenizer.forward`, with one site a latent source."""
        self._check(batch)
        dtype = self.project.weight.dtype
        present = batch.present
        shown = present.any(-1)
        # a window without channels looks at its padding, which is zero, and is not shown
        seen = present | ~shown[:, None]
        sensors = self._sensors(batch, dtype)
        codes = self.stored(batch) if self.discrete else None
        if codes is not None:  # what they stand for: nothing has to be encoded
            sources = self.content.codes.lookup(codes)  # (B, S, P, M, E)
        else:
            signal = batch.signal.masked_fill(~present[..., None], 0.0).to(dtype)
            sources = self.content.sources(self.patches(signal), sensors, seen)
            if self.discrete:
                sources = self.content.quantise(sources).content
        n_patches = sources.shape[2]
        present = shown[:, None, None].expand(-1, sources.shape[1], n_patches)
        content = self.project(sources.flatten(3)).masked_fill(~present[..., None], 0.0)
        place, position, located = self._places(batch, sensors, seen)
        return Grid(
            content=content,
            place=place[:, :, None],
            present=present,
            position=position,
            located=located,
            whole=batch.whole,
        )

    def codes(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, S, P, M, Q)."""
        self._check(batch)
        dtype = self.project.weight.dtype
        seen = batch.present | ~batch.present.any(-1, keepdim=True)
        signal = batch.signal.masked_fill(~batch.present[..., None], 0.0).to(dtype)
        sources = self.content.sources(self.patches(signal), self._sensors(batch, dtype), seen)
        return self.content.quantise(sources).codes

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Codes of a token, M and Q, and how many codes a level has."""
        parts = self.content.config
        return parts.n_moments, parts.n_levels, parts.n_codes

    def sites(self, batch: Batch) -> Tensor:
        """Return which sources are there: all, of a window with channels, bool (B, S)."""
        shown = batch.present.any(-1, keepdim=True)
        return shown.expand(-1, self.content.config.n_sources)

    def take(self, trained: Coder) -> None:
        """Take over encoder and codes; see `CodedTokenizer.take`."""
        state = trained.state_dict()
        self.content.load_state_dict({name: state[name] for name in self.content.state_dict()})

    def _sensors(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        return self.content.sensors(geometry(batch).to(dtype), batch.kind, batch.located)

    def _places(self, batch: Batch, sensors: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return place (B, S, D), position (B, S, 3) and located (B, S) of the sources."""
        where = self.place(
            batch.position,
            batch.orientation,
            batch.kind,
            located=batch.located,
            oriented=batch.oriented,
        )
        # as if every channel measured the same, so that nothing of a hidden patch is seen
        silent = torch.zeros_like(sensors)[:, :, None]
        looks = self.content.to_sources.weights(silent, sensors, seen)  # (B, S, C)
        queries = self.content.to_sources.queries.to(where.dtype)
        place = self.project_query(queries) + looks.to(where.dtype) @ where
        counted = (batch.located & seen)[:, None]
        share = looks.float().masked_fill(~counted, 0.0)
        total = share.sum(-1, keepdim=True)
        position = share @ batch.position.float() / total.clamp_min(1e-6)
        located = (batch.located & batch.present).any(-1, keepdim=True).expand(total.shape[:2])
        return place, position.masked_fill(~located[..., None], 0.0), located

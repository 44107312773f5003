"""Tokens from codes of single samples: mu-law, quantiles, or codes that are learnt (MEG-GPT).

B windows, C channels (the sites), T samples, P patches, L samples of a patch, K codes, E features
of a code, D width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.errors import ConfigError
from neurofm.nn.levels import MuLaw, Quantiles
from neurofm.nn.sample_codes import RecurrentName, SampleCodec, SampleEncoder
from neurofm.signals import Batch, Grid
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.patch import PatchConfig
from neurofm.tokenizers.sample_coders import AnnealedCoder, QuantileCoder, SampleCoder
from neurofm.tokenizers.slot import CodedTokenizer

Codes = MuLaw | Quantiles | SampleEncoder


class SampleCodesConfig(PatchConfig):
    """What tokenizers of samples share: codes of a patch are looked up, and are a token together.

    Parameters
    ----------
    embed : int
        E: what a code is looked up as, before a linear map of the patch.
    """

    spectrum: Literal[False] = False
    embed: int = Field(default=4, ge=1)

    def slot(self, coder: Codes, contract: SignalContract, width: int) -> SampleTokenizer:
        """Return a tokenizer around what codes samples."""
        return SampleTokenizer(self, coder, self.patch_len(contract), contract.sfreq, width)


class MuLawConfig(SampleCodesConfig):
    """Levels by mu-law between plus and minus the contract's clip: nothing is learnt.

    Parameters
    ----------
    n_codes : int
        K.
    """

    name: Literal["mu_law_samples"] = "mu_law_samples"
    n_codes: int = Field(default=256, ge=2)

    def build_parts(self, contract: SignalContract) -> SampleCoder:
        """Build what ``neurofm tokenize`` measures.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        return SampleCoder(MuLaw(self.n_codes, contract.clip), self.patch_len(contract))

    def build(self, contract: SignalContract, width: int) -> SampleTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        return self.slot(MuLaw(self.n_codes, contract.clip), contract, width)


class QuantileConfig(SampleCodesConfig):
    """Levels that are equally frequent, which ``neurofm tokenize`` fits.

    Parameters
    ----------
    n_codes : int
        K.
    """

    name: Literal["quantile_samples"] = "quantile_samples"
    n_codes: int = Field(default=108, ge=2)

    def build_parts(self, contract: SignalContract) -> QuantileCoder:
        """Build what ``neurofm tokenize`` fits.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        return QuantileCoder(self.n_codes, self.patch_len(contract), contract.clip)

    def build(self, contract: SignalContract, width: int) -> SampleTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        return self.slot(Quantiles(self.n_codes), contract, width)


class AnnealedSamplesConfig(SampleCodesConfig):
    """Codes that are learnt, after the tokenizer of MEG-GPT (arXiv 2510.18080).

    A sequence of it is a patch here: it starts anew with each, so that nothing of a hidden patch
    is seen through another. Codes are named by how frequent they were in training, from 1 on; 0
    is of what was not seen.

    Parameters
    ----------
    n_codes : int
        K; training leaves some unused.
    inner, n_layers : int
        Features and number of the recurrent layers.
    recurrent : "gru" or "lstm"
        Their kind.
    kernel : int
        Samples that a code reaches in the reconstruction, no more than a patch has.
    frozen : bool
        Whether what ``neurofm tokenize`` has learnt stays as it is.
    """

    name: Literal["annealed_samples"] = "annealed_samples"
    n_codes: int = Field(default=128, ge=2)
    inner: int = Field(default=128, ge=1)
    n_layers: int = Field(default=1, ge=1)
    recurrent: RecurrentName = "gru"
    kernel: int = Field(default=10, ge=1)
    frozen: bool = False

    def build_parts(self, contract: SignalContract) -> AnnealedCoder:
        """Build what ``neurofm tokenize`` trains.

        Raises
        ------
        ConfigError
            If patches do not fit the contract, or a kernel a patch.
        """
        if (patch_len := self.patch_len(contract)) < self.kernel:
            raise ConfigError(
                f"annealed_samples: a kernel of {self.kernel} samples reaches beyond a patch of "
                f"{patch_len}",
                hint="shorten the kernel, or make patch_s longer",
            )
        codec = SampleCodec(self.n_codes, self.inner, self.n_layers, self.recurrent, self.kernel)
        return AnnealedCoder(codec, patch_len)

    def build(self, contract: SignalContract, width: int) -> SampleTokenizer:
        """Build the module.

        Raises
        ------
        ConfigError
            If patches do not fit the contract.
        """
        coder = SampleEncoder(self.n_codes, self.inner, self.n_layers, self.recurrent)
        return self.slot(coder, contract, width)


class SampleContent(nn.Module):
    """Patches to tokens, by what the codes of their samples are looked up as."""

    def __init__(self, coder: Codes, embed: int, patch_len: int, width: int):
        super().__init__()
        self.coder = coder
        self.table = nn.Embedding(coder.n_codes, embed)
        if not isinstance(coder, SampleEncoder):
            self.table.weight = nn.Parameter(_waves(coder.n_codes, embed))
        self.project = nn.Linear(patch_len * embed, width)

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (..., L) to tokens (..., D)."""
        coder = self.coder
        if not (self.training and isinstance(coder, SampleEncoder) and coder.learns):
            return self.of_codes(coder.encode(patches))
        weights = coder.choose(patches, straight_through=True).weights
        tokens: Tensor = self.project((weights @ self.table.weight[coder.names]).flatten(-2))
        return tokens

    def of_codes(self, codes: Tensor) -> Tensor:
        """Map codes of patches (..., L) to tokens (..., D)."""
        tokens: Tensor = self.project(self.table(codes).flatten(-2))
        return tokens


def _waves(n_codes: int, embed: int) -> Tensor:
    """Return first features of levels in order, (K, E): neighbours are alike, all are told apart.

    Cosines and sines of half a period, one, two and so on, of unit size on the mean.
    """
    level = (torch.arange(n_codes) + 0.5) / n_codes
    rate = torch.tensor([2.0 ** (i // 2 - 1) for i in range(embed)])
    phase = torch.tensor([0.0 if i % 2 else -math.pi / 2 for i in range(embed)])
    return math.sqrt(2) * (2 * math.pi * rate * (level[:, None] - 0.5) + phase).cos()


class SampleTokenizer(CodedTokenizer):
    """Patches of channels, each by the codes of its samples.

    Parameters
    ----------
    config : SampleCodesConfig
        Architecture.
    coder : MuLaw, Quantiles or SampleEncoder
        What codes samples.
    patch_len : int
        L.
    sfreq : float
        Sampling rate in hertz of the signals it is for.
    width : int
        D.
    """

    content: SampleContent

    def __init__(
        self, config: SampleCodesConfig, coder: Codes, patch_len: int, sfreq: float, width: int
    ):
        content = SampleContent(coder, config.embed, patch_len, width)
        super().__init__(content, patch_len, sfreq, width, config.place)
        self.frozen: bool = getattr(config, "frozen", True)  # levels are nothing an encoder learns
        if self.frozen:
            coder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> SampleTokenizer:
        """Switch between training and evaluation; what is frozen stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.content.coder.eval()
        return self

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Codes of a token: moments, levels of each, and how many codes a level has."""
        return self.patch_len, 1, self.content.coder.n_codes

    def forward(self, batch: Batch) -> Grid:
        """Make tokens; as `Tokenizer.forward`, from stored codes where the batch has them."""
        if (codes := self.stored(batch)) is None:
            return super().forward(batch)
        self._check(batch)
        present = batch.present[..., None].expand(codes.shape[:3])
        return Grid(
            content=self.of_codes(codes).masked_fill(~present[..., None], 0.0),
            place=self.place.of(batch, self.patch_len / self.sfreq, codes.shape[2]),
            present=present,
            position=batch.position,
            located=batch.located,
            whole=batch.whole,
        )

    def codes(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, C, P, L, 1)."""
        self._check(batch)
        dtype = self.place.kind.weight.dtype
        signal = batch.signal.masked_fill(~batch.present[..., None], 0.0).to(dtype)
        return self.content.coder.encode(self.patches(signal))[..., None]

    def of_codes(self, codes: Tensor) -> Tensor:
        """Return the content of tokens, (B, C, P, D), by their codes."""
        return self.content.of_codes(codes[..., 0])

    def take(self, trained: Coder) -> None:
        """Take over what was learnt."""
        state = trained.state_dict()
        own = self.content.coder
        own.load_state_dict({name: state[f"coder.{name}"] for name in own.state_dict()})

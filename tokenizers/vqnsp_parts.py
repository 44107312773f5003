"""LaBraM's neural tokenizer without its surroundings: patches to codes, and codes to spectra.

After Jiang et al. 2024, sec. 2.3. B windows, C channels, P patches of L samples, F bins of a
spectrum, D features inside, E features of a code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.nn.attention import AttentionStyle
from neurofm.nn.block import BlockStyle
from neurofm.nn.codebook import Quantised
from neurofm.nn.initialise import initialise_linear
from neurofm.nn.patch_convs import labram_convs
from neurofm.nn.stack import Stack
from neurofm.signals import Batch
from neurofm.tokenizers.brain_parts import Reconstruction, correlation
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.convs import PatchConvTokens
from neurofm.tokenizers.kept import CodebookConfig, PatchEncoder
from neurofm.tokenizers.patch import QUIET, PatchConfig

_LOUD = 3.0  # of first weights; see `speak_up`


class VqnspArchitecture(PatchConfig, CodebookConfig):
    """What ``neurofm tokenize`` trains of a `VqnspConfig`; codes as in `CodebookConfig`.

    Parameters
    ----------
    n_filters : int
        Filters of each of three convolutions; a multiple of four.
    inner, n_heads : int
        D, and heads that share it.
    depth, decoder_depth : int
        Blocks of the encoder, and of the decoder.
    mlp_ratio : float
        Hidden features of a block, as a multiple of D.
    layer_scale : float, optional
        Start value of the factors of what a block adds.
    """

    of_the_slot: ClassVar[frozenset[str]] = frozenset({"discrete", "frozen"})  # places are learnt

    n_filters: int = Field(default=8, ge=4, multiple_of=4)
    inner: int = Field(default=64, ge=2)
    n_heads: int = Field(default=4, ge=1)
    depth: int = Field(default=2, ge=1)
    decoder_depth: int = Field(default=1, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    layer_scale: float | None = Field(default=None, gt=0)

    def stack(self, depth: int) -> Stack:
        """Return so many of LaBraM's blocks, which normalise queries and keys.

        Raises
        ------
        ConfigError
            If the heads do not fit the width.
        """
        style = BlockStyle(attention=AttentionStyle(qk_norm="layer"), layer_scale=self.layer_scale)
        hidden = max(1, round(self.inner * self.mlp_ratio))
        return Stack(self.inner, depth, self.n_heads, hidden, style)

    def embedding(self, patch_len: int, width: int) -> PatchConvTokens:
        """Return LaBraM's temporal convolutions of a patch, each normed within it."""
        return PatchConvTokens(labram_convs(self.n_filters), patch_len, width, norm_over="patch")


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectra:
    """Amplitude and phase of patches, (B, C, P, F), standardised by window."""

    amplitude: Tensor
    phase: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class SpectralReconstruction(Reconstruction):
    """What came back, as a signal and as the spectra that were asked for.

    Attributes
    ----------
    guess, spectra : Spectra
        Predicted and true.
    """

    guess: Spectra
    spectra: Spectra


class VqnspEncoder(PatchEncoder):
    """Encoder and codes: what stays of the model where nothing is to be decoded.

    Parameters
    ----------
    config : VqnspArchitecture
        Hyper-parameters.
    patch_len : int
        L.
    sfreq : float
        Sampling rate in hertz.

    Raises
    ------
    ConfigError
        If heads do not fit the width.
    """

    def __init__(self, config: VqnspArchitecture, patch_len: int, sfreq: float):
        super().__init__()
        self.config = config
        self.patch_len, self.patch_s = patch_len, patch_len / sfreq
        self.embed = config.embedding(patch_len, config.inner)
        self.place = config.place.build(config.inner)
        self.blocks = config.stack(config.depth)
        self.to_code = bottleneck(config.inner, config.code_width)
        self.codebook = config.codebook()
        speak_up(self.embed)
        for layer in self.to_code:
            if isinstance(layer, nn.Linear):
                initialise_linear(layer)

    def patches(self, signal: Tensor, present: Tensor) -> Tensor:
        """Cut signals (B, C, T) into patches (B, C, P, L), zero where nothing is present."""
        return signal.masked_fill(~present[..., None], 0.0).unflatten(-1, (-1, self.patch_len))

    def quantise(self, patches: Tensor, batch: Batch) -> Quantised:
        """Return the codes (B, C, P) of patches (B, C, P, L), and their vectors (..., E)."""
        present = batch.present[..., None].expand(patches.shape[:3])
        x = self.embed(patches) + self.place.of(batch, self.patch_s, patches.shape[2])
        x = self.to_code(self.blocks(x, present, whole=batch.whole))
        # all are padding only in a window without channels, beside which there are others
        return self.codebook(x, present)

    def codes_of(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, C, P, 1, 1)."""
        dtype = next(self.parameters()).dtype
        patches = self.patches(batch.signal, batch.present).to(dtype)
        return self.quantise(patches, batch).codes[..., None, None]


class VqnspCoder(VqnspEncoder, Coder):
    """Encoder, codes, and a decoder of each patch's spectrum.

    A token has seen the whole window, as in the original. There is no token of a class, and time
    is rotary, so that windows may be of any length.

    Parameters
    ----------
    config : VqnspArchitecture
        Hyper-parameters.
    patch_len : int
        L.
    sfreq : float
        Sampling rate in hertz.

    Raises
    ------
    ConfigError
        If heads do not fit the width.
    """

    def __init__(self, config: VqnspArchitecture, patch_len: int, sfreq: float):
        super().__init__(config, patch_len, sfreq)
        n_bins = patch_len // 2 + 1
        self.from_code = nn.Linear(config.code_width, config.inner)
        self.decoder_place = config.place.build(config.inner)
        self.decoder = config.stack(config.decoder_depth)
        self.to_amplitude = bottleneck(config.inner, n_bins)
        self.to_phase = bottleneck(config.inner, n_bins)

    @property
    def n_codes(self) -> int:
        """K."""
        return self.config.n_codes

    def decode(self, content: Tensor, batch: Batch) -> Spectra:
        """Predict spectra from code vectors (B, C, P, E)."""
        present = batch.present[..., None].expand(content.shape[:3])
        place = self.decoder_place.of(batch, self.patch_s, content.shape[2])
        x = self.decoder(self.from_code(content) + place, present, whole=batch.whole)
        return Spectra(amplitude=self.to_amplitude(x), phase=self.to_phase(x))

    def rebuild(
        self,
        batch: Batch,
        seen: Tensor,  # noqa: ARG002 - a code is of one channel: what is not shown has none
        *,
        noise: Tensor | None = None,
        moved: Tensor | None = None,
    ) -> SpectralReconstruction:
        """Encode and decode all channels that are present; see `Coder.rebuild`.

        The signal is made of the predicted spectra, whose mean and deviation over the window,
        four numbers that codes do not tell, are those of the original.
        """
        target = self.patches(batch.signal, batch.present)
        shown = target if noise is None else target + noise.unflatten(-1, (-1, self.patch_len))
        if moved is not None:
            batch = replace(batch, position=batch.position + moved)
        present = batch.present[..., None].expand(target.shape[:3])
        shown = shown.masked_fill(~present[..., None], 0.0)
        quantised = self.quantise(shown, batch)
        guess = self.decode(quantised.content, batch)
        spectra, of_amplitude, of_phase = target_spectra(target, present)
        amplitude = of_amplitude.undo(guess.amplitude).clamp_min(0.0)
        phase = of_phase.undo(guess.phase)
        return SpectralReconstruction(
            signal=torch.fft.irfft(torch.polar(amplitude, phase), n=self.patch_len),
            target=target,
            # codes of padding stand for nothing
            quantised=replace(quantised, codes=quantised.codes[present][:, None]),
            guess=guess,
            spectra=spectra,
        )

    def losses(self, found: Reconstruction, batch: Batch) -> dict[str, Tensor]:
        """Return the published terms, of what is present.

        Returns
        -------
        dict of Tensor
            ``amplitude`` and ``phase`` (mean squared errors; 1 is what the mean over a window
            gives), ``commitment``, ``total``, their sum, and ``correlation`` of the signal, which
            is no part of it.
        """
        if not isinstance(found, SpectralReconstruction):
            raise TypeError("spectra are needed: pass what `rebuild` returns")
        here = batch.present
        terms = {
            "amplitude": F.mse_loss(found.guess.amplitude[here], found.spectra.amplitude[here]),
            "phase": F.mse_loss(found.guess.phase[here], found.spectra.phase[here]),
            "commitment": found.quantised.loss,
        }
        total = terms["amplitude"] + terms["phase"] + terms["commitment"]
        likeness = correlation(found.signal.detach()[here], found.target[here]).mean()
        return {**terms, "correlation": likeness, "total": total}


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """Mean and standard deviation of windows, (B, 1, 1, 1)."""

    mean: Tensor
    deviation: Tensor

    def undo(self, x: Tensor) -> Tensor:
        """Return what was standardised as it was."""
        return x * self.deviation + self.mean


def target_spectra(patches: Tensor, present: Tensor) -> tuple[Spectra, Scale, Scale]:
    """Return amplitude and phase of patches, standardised by window over what is present.

    The original predicts both halves of the spectrum; the second is the mirror of the first.

    Parameters
    ----------
    patches : Tensor, shape (B, C, P, L)
        Samples.
    present : Tensor of bool, shape (B, C, P)
        False where a patch is padding.
    """
    spectrum = torch.fft.rfft(patches.float())
    amplitude, of_amplitude = _standardised(spectrum.abs(), present)
    phase, of_phase = _standardised(spectrum.angle(), present)
    return Spectra(amplitude=amplitude, phase=phase), of_amplitude, of_phase


def _standardised(x: Tensor, present: Tensor) -> tuple[Tensor, Scale]:
    here = present[..., None].to(x.dtype)
    over = (1, 2, 3)
    count = (here.sum(over, keepdim=True) * x.shape[-1]).clamp_min(1)
    mean = (x * here).sum(over, keepdim=True) / count
    variance = ((x - mean) * here).square().sum(over, keepdim=True) / count
    scale = Scale(mean=mean, deviation=variance.sqrt().clamp_min(QUIET))
    return (x - scale.mean) / scale.deviation, scale


@torch.no_grad()
def speak_up(embed: PatchConvTokens) -> None:
    """Draw first weights with which patches are told apart by what is in them.

    With those torch draws two thirds of what comes out of a fresh encoder are the same for all
    patches, or follow from the place alone, and all soon have one code.

    Parameters
    ----------
    embed : PatchConvTokens
        Its linear map is changed in place.
    """
    project = embed.project
    if isinstance(project, nn.Linear):
        initialise_linear(project, 1 / _LOUD)
        project.weight.sub_(project.weight.mean(1, keepdim=True))  # what GELU adds to all features


def bottleneck(n_in: int, n_out: int) -> nn.Sequential:
    """Return two linear maps with a hyperbolic tangent between them."""
    return nn.Sequential(nn.Linear(n_in, n_in), nn.Tanh(), nn.Linear(n_in, n_out))

"""Du-IN's tokenizer without its surroundings: all channels of a patch to one code, and back.

After Zheng et al. 2024, sec. 3. B windows, C channels, V regions, P patches of L samples, D
features inside, E features of a code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.nn.attention import AttentionStyle
from neurofm.nn.block import BlockStyle
from neurofm.nn.codebook import Quantised
from neurofm.nn.initialise import initialise_conv, initialise_linear
from neurofm.nn.stack import Stack
from neurofm.nn.step_convs import StepConvs, TransposedStepConvs
from neurofm.signals import Batch
from neurofm.tokenizers.brain_parts import Reconstruction, correlation
from neurofm.tokenizers.coder import Coder
from neurofm.tokenizers.kept import CodebookConfig, PatchEncoder
from neurofm.tokenizers.regions import Diffusion, Finder, Fusion, RegionsConfig


class DuInArchitecture(RegionsConfig, CodebookConfig):
    """What ``neurofm tokenize`` trains of a `DuInConfig`; codes as in `CodebookConfig`.

    Parameters
    ----------
    n_regions : int
        V.
    n_filters : int
        Filters of the convolutions.
    inner, n_heads : int
        D, and heads that share it.
    depth, decoder_depth : int
        Blocks of the encoder, and of the decoder.
    mlp_ratio : float
        Hidden features of a block, as a multiple of D.
    batch_norm : bool
        Whether convolutions are normed over the batch, as published. By default they are not, so
        that no window depends on another.
    """

    spectrum: Literal[False] = False
    n_regions: int = Field(default=16, ge=1)
    n_filters: int = Field(default=32, ge=1)
    inner: int = Field(default=64, ge=2)
    n_heads: int = Field(default=4, ge=1)
    depth: int = Field(default=2, ge=1)
    decoder_depth: int = Field(default=1, ge=1)
    mlp_ratio: float = Field(default=2.0, gt=0)
    batch_norm: bool = False

    def stack(self, depth: int) -> Stack:
        """Return so many of Du-IN's blocks, which normalise sums.

        Raises
        ------
        ConfigError
            If the heads do not fit the width.
        """
        style = BlockStyle(
            norm_place="post", activation="relu", attention=AttentionStyle(qk_norm="layer")
        )
        hidden = max(1, round(self.inner * self.mlp_ratio))
        return Stack(self.inner, depth, self.n_heads, hidden, style, time="sinusoid")


def steps_of(patch_len: int) -> tuple[int, int]:
    """Split a patch into steps, and samples of each: about as many, ten each for a hundred."""
    n_steps = max(n for n in range(1, math.isqrt(patch_len) + 1) if patch_len % n == 0)
    return n_steps, patch_len // n_steps


class RegionPatches(nn.Module):
    """Regions of a patch to its token: a map of channels, then convolutions within the patch.

    Parameters
    ----------
    config : DuInArchitecture
        Hyper-parameters.
    patch_len : int
        L.

    Raises
    ------
    ConfigError
        If no channel is known.
    """

    def __init__(self, config: DuInArchitecture, patch_len: int):
        super().__init__()
        self.patch_len = patch_len
        n_steps, stride = steps_of(patch_len)
        self.find = Finder(config)
        self.fuse = Fusion(self.find.index, config.n_regions)
        n_last = -(-config.inner // n_steps)
        self.convs = StepConvs(
            config.n_regions,
            (config.n_filters, config.n_filters, n_last),
            (2 * stride - 1, 3, 3),
            (stride, 1, 1),
            batch_norm=config.batch_norm,
        )
        n_features = self.convs.n_features(patch_len)
        self.project: nn.Module = nn.Identity()
        if n_features != config.inner:
            self.project = nn.Linear(n_features, config.inner)
            initialise_linear(self.project)
        for conv in self.convs.convs:
            if isinstance(conv, nn.Conv1d):
                initialise_conv(conv)

    def forward(self, batch: Batch, noise: Tensor | None = None) -> Tensor:
        """Map signals, and what is added to them, to tokens (B, 1, P, D).

        Raises
        ------
        SignalError, SensorError
            As `Finder.forward`. What is compiled cannot: it gives numbers that are none.
        """
        rows, used = self.find(batch)
        dtype = self.fuse.bias.dtype
        signal = batch.signal if noise is None else batch.signal + noise
        regions = self.fuse(signal.to(dtype), rows, used)
        if torch.compiler.is_compiling():
            wrong = self.find.wrong(rows, used, batch.present)
            regions = regions.masked_fill(wrong[:, None, None], torch.nan)
        patches = regions.unflatten(-1, (-1, self.patch_len)).transpose(1, 2)  # (B, P, V, L)
        x = self.convs(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        tokens: Tensor = self.project(x)[:, None]
        return tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowReconstruction(Reconstruction):
    """What came back of windows (B, C, 1, T).

    Attributes
    ----------
    used : Tensor of bool, shape (B, C)
        Channels that have a part in it.
    """

    used: Tensor


class DuInEncoder(PatchEncoder):
    """Encoder and codes: what stays of the model where nothing is to be decoded.

    Parameters
    ----------
    config : DuInArchitecture
        Hyper-parameters.
    patch_len : int
        L.

    Raises
    ------
    ConfigError
        If heads do not fit the width, or no channel is known.
    """

    embed: RegionPatches

    def __init__(self, config: DuInArchitecture, patch_len: int):
        super().__init__()
        self.config = config
        self.patch_len = patch_len
        self.embed = RegionPatches(config, patch_len)
        self.blocks = config.stack(config.depth)
        self.to_code = nn.Sequential(
            nn.Linear(config.inner, config.inner),
            nn.Tanh(),
            nn.Linear(config.inner, config.code_width),
        )
        self.codebook = config.codebook()
        for layer in self.to_code:
            if isinstance(layer, nn.Linear):
                initialise_linear(layer)

    def quantise(self, batch: Batch, noise: Tensor | None = None) -> Quantised:
        """Return the codes (B, 1, P) of patches, and their vectors (B, 1, P, E)."""
        x = self.embed(batch, noise)
        present = batch.present.any(-1)[:, None, None].expand(x.shape[:3])
        found: Quantised = self.codebook(self.to_code(self.blocks(x, present)), present)
        return found

    def codes_of(self, batch: Batch) -> Tensor:
        """Return the codes of a batch, shape (B, 1, P, 1, 1)."""
        return self.quantise(batch).codes[..., None, None]


class DuInCoder(DuInEncoder, Coder):
    """Encoder, codes, and a decoder of every channel's samples.

    Parameters
    ----------
    config : DuInArchitecture
        Hyper-parameters.
    patch_len : int
        L.

    Raises
    ------
    ConfigError
        If heads do not fit the width, or no channel is known.
    """

    def __init__(self, config: DuInArchitecture, patch_len: int):
        super().__init__(config, patch_len)
        n_steps, stride = steps_of(patch_len)
        n = config.n_filters
        self.from_code = nn.Sequential(
            nn.LayerNorm(config.code_width), nn.Linear(config.code_width, config.inner)
        )
        self.decoder = config.stack(config.decoder_depth)
        self.convs = TransposedStepConvs(
            config.inner,
            (n, n, n, n, config.n_regions),
            (3, 3, n_steps, 9, 2 * stride - 1),
            (1, 1, n_steps, 1, stride),
        )
        self.to_regions = nn.Linear(config.n_regions, config.n_regions)
        self.to_channels = Diffusion(self.embed.find.index, config.n_regions)
        for conv in self.convs.convs:
            if isinstance(conv, nn.ConvTranspose1d):
                initialise_conv(conv)

    @property
    def n_codes(self) -> int:
        """K."""
        return self.config.n_codes

    def decode(self, content: Tensor, present: Tensor) -> Tensor:
        """Map code vectors (B, 1, P, E), some of them `present`, to regions (B, V, T)."""
        tokens = self.decoder(self.from_code(content), present)[:, 0]
        samples = self.convs(tokens.transpose(1, 2))
        regions: Tensor = self.to_regions(samples.transpose(1, 2)).transpose(1, 2)
        return regions

    def rebuild(
        self,
        batch: Batch,
        seen: Tensor,  # noqa: ARG002 - all channels of a subject make one code
        *,
        noise: Tensor | None = None,
        moved: Tensor | None = None,  # noqa: ARG002 - places have no say
    ) -> WindowReconstruction:
        """Encode and decode all channels that are present; see `Coder.rebuild`."""
        quantised = self.quantise(batch, noise)
        rows, used = self.embed.find(batch)
        regions = self.decode(
            quantised.content, batch.present.any(-1)[:, None, None].expand(quantised.codes.shape)
        )
        signal = self.to_channels(regions, rows, used)
        target = batch.signal.masked_fill(~used[..., None], 0.0)
        return WindowReconstruction(
            signal=signal[:, :, None],
            target=target[:, :, None],
            quantised=replace(quantised, codes=quantised.codes[..., None]),
            used=used,
        )

    def losses(self, found: Reconstruction, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the published terms, of what is present.

        Returns
        -------
        dict of Tensor
            ``signal`` (mean squared error), ``commitment``, ``total``, their sum, and
            ``correlation``, which is no part of it.
        """
        if not isinstance(found, WindowReconstruction):
            raise TypeError("channels in use are needed: pass what `rebuild` returns")
        signal, target = found.signal[found.used], found.target[found.used]
        far = F.mse_loss(signal, target)
        return {
            "signal": far,
            "commitment": found.quantised.loss,
            "correlation": correlation(signal.detach(), target).mean(),
            "total": far + found.quantised.loss,
        }

    def looks(self, batch: Batch) -> Tensor:
        """Return how much each region weighs each channel of the first window, (V, C)."""
        rows, used = self.embed.find(batch)
        weight = self.embed.fuse.rows(rows)[0].abs().masked_fill(~used[0, :, None], 0.0)
        return (weight / weight.sum(0).clamp_min(1e-12)).T

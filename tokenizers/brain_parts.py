"""BrainTokenizer without its surroundings: windows of channels to latent sources, codes and back.

After BrainOmni (Xiao et al. 2025, sec. 3). B windows of the model, C channels, N windows of the
tokenizer in each, L samples in one, S sources, M moments in one, D features, Q levels of codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.codebook import Gradient, Quantised
from neurofm.nn.heads import require_heads
from neurofm.nn.latent_sources import SensorsToSources, SourcesToSensors
from neurofm.nn.residual_codes import ResidualCodes
from neurofm.nn.seanet import SEANetDecoder, SEANetEncoder
from neurofm.nn.sensor_embedding import SensorEmbedding

EPS = 1e-6  # of a window's standard deviation, and of correlation


class BrainPartsConfig(Config):
    """Hyper-parameters of `BrainParts`.

    Parameters
    ----------
    window_len : int
        L, samples; a multiple of the product of `ratios`.
    n_filters, ratios, kernel, last_kernel
        Of the convolutions; see `neurofm.nn.seanet.SEANetEncoder`.
    width, n_heads, n_sources : int
        D, heads of the cross-attentions, S.
    n_levels, n_codes : int
        Q, and codes of each level.
    code_width : int, optional
        Features of a code, to and from which tokens are mapped; by default as many as theirs.
    n_kinds : int
        Kinds of sensors.
    gradient : "rotation" or "straight_through"
        How gradients pass the codes.
    revive_below : float
        Codes that stand for fewer tokens a batch on average are replaced; see `Codebook`.
    unknown : bool
        Whether sensors without a position are told apart; the published model has no such.
    named_sources : bool
        Whether sensors know sources apart by more than what they say; see `SourcesToSensors`.
    strength : bool
        Whether codes tell how strong a source is, not its direction alone; the published do not.
    straight : bool
        Whether a linear map leads beside the convolutions, in and out; the published have none.
    """

    window_len: int = Field(default=512, ge=1)
    n_filters: int = Field(default=32, ge=2)
    ratios: tuple[int, ...] = Field(default=(8, 4, 2), min_length=1)
    kernel: int = Field(default=5, ge=1)
    last_kernel: int = Field(default=5, ge=1)
    width: int = Field(default=256, ge=2)
    n_heads: int = Field(default=4, ge=1)
    n_sources: int = Field(default=16, ge=1)
    n_levels: int = Field(default=4, ge=1)
    n_codes: int = Field(default=512, ge=2)
    code_width: int | None = Field(default=None, ge=1)
    n_kinds: int = Field(default=3, ge=1)
    gradient: Gradient = "rotation"
    revive_below: float = Field(default=2.0, ge=0)
    unknown: bool = True
    named_sources: bool = False
    strength: bool = False
    straight: bool = False

    @property
    def hop(self) -> int:
        """Samples of one moment."""
        return int(torch.tensor(self.ratios).prod())

    @property
    def n_moments(self) -> int:
        """M."""
        return self.window_len // self.hop

    def checked(self) -> BrainPartsConfig:
        """Return these values if they fit each other.

        Raises
        ------
        ConfigError
            If a window is no whole number of moments, or heads do not divide the width.
        """
        if self.window_len % self.hop:
            raise ConfigError(
                f"a window of {self.window_len} samples is {self.window_len / self.hop:g} moments "
                f"of {self.hop}, not a whole number",
                hint="choose ratios whose product divides the window",
            )
        require_heads(self.width, self.n_heads)
        return self

    def build(self) -> BrainParts:
        """Build the module with fresh weights.

        Raises
        ------
        ConfigError
            As `checked`.
        """
        return BrainParts(self.checked())


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """What came back, what should have, and through which codes.

    Attributes
    ----------
    signal, target : Tensor, shape (B, C, N, L)
        Reconstructed, and standardised by channel and window.
    quantised : Quantised
        Codes (B, S, N, M, Q).
    """

    signal: Tensor
    target: Tensor
    quantised: Quantised


def _net(config: BrainPartsConfig) -> tuple[int, tuple[int, ...], int, int, int]:
    return config.n_filters, config.ratios, config.width, config.kernel, config.last_kernel


class BrainEncoder(nn.Module):
    """Encoder and codes: what stays of the model where nothing is to be decoded.

    Parameters
    ----------
    config : BrainPartsConfig
        Hyper-parameters.
    """

    def __init__(self, config: BrainPartsConfig):
        super().__init__()
        self.config = config
        self.sensors = SensorEmbedding(config.width, config.n_kinds, unknown=config.unknown)
        self.encoder = SEANetEncoder(*_net(config))
        self.straight_in: nn.Linear | None = None
        if config.straight:
            self.straight_in = nn.Linear(config.window_len, config.n_moments * config.width)
        self.to_sources = SensorsToSources(config.width, config.n_heads, config.n_sources)
        self.codes = ResidualCodes(
            config.n_levels,
            config.n_codes,
            config.width,
            code_width=config.code_width,
            revive_below=config.revive_below,
            gradient=config.gradient,
        )

    def features(self, windows: Tensor) -> Tensor:
        """Map windows (B, C, N, L) to features of channels (B, C, N M, D)."""
        flat = windows.flatten(0, 2)
        out = self.encoder(flat[:, None]).transpose(1, 2)
        if self.straight_in is not None:
            out = out + self.straight_in(flat).view_as(out)
        return out.unflatten(0, windows.shape[:3]).flatten(2, 3)

    def sources(self, windows: Tensor, sensors: Tensor, present: Tensor | None = None) -> Tensor:
        """Map windows (B, C, N, L) of embedded `sensors` (B, C, D) to sources (B, S, N, M, D).

        `present` (B, C) is False where a channel is padding, or withheld.
        """
        found = self.to_sources(self.features(windows), sensors, present)
        return found.unflatten(2, (windows.shape[2], -1))

    def quantise(self, sources: Tensor) -> Quantised:
        """Return the codes of sources, by their direction or as they are."""
        return self.codes(sources if self.config.strength else F.normalize(sources, dim=-1))


class BrainParts(BrainEncoder):
    """Encoder, codes and decoder.

    Parameters
    ----------
    config : BrainPartsConfig
        Hyper-parameters.
    """

    def __init__(self, config: BrainPartsConfig):
        super().__init__(config)
        names = config.n_sources if config.named_sources else None
        self.to_sensors = SourcesToSensors(config.width, config.n_heads, names)
        self.decoder = SEANetDecoder(*_net(config))
        self.straight_out: nn.Linear | None = None
        if config.straight:
            self.straight_out = nn.Linear(config.n_moments * config.width, config.window_len)

    def decode(self, content: Tensor, sensors: Tensor) -> Tensor:
        """Map quantised sources (B, S, N, M, D) to windows (B, C, N, L) of any sensors."""
        x = self.to_sensors(content.flatten(2, 3), sensors)
        x = x.unflatten(2, content.shape[2:4]).flatten(0, 2)  # (B C N, M, D)
        out = self.decoder(x.transpose(1, 2))[:, 0]
        if self.straight_out is not None:
            out = out + self.straight_out(x.flatten(1))
        return out.unflatten(0, (len(sensors), sensors.shape[1], content.shape[2]))

    def reconstruct(
        self,
        windows: Tensor,
        sensors: Tensor,
        *,
        present: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Reconstruction:
        """Encode some channels, and decode all.

        Parameters
        ----------
        windows : Tensor, shape (B, C, N, L)
            Samples.
        sensors : Tensor, shape (B, C, D)
            What `self.sensors` returns.
        present : Tensor of bool, shape (B, C), optional
            Channels that the encoder sees.
        noise : Tensor, shape (B, C, N, L), optional
            Added to what it sees.
        """
        target = standardise(windows)
        seen = windows if noise is None else windows + noise
        quantised = self.quantise(self.sources(seen, sensors, present))
        signal = self.decode(quantised.content, sensors)
        return Reconstruction(signal=signal, target=target, quantised=quantised)


def standardise(windows: Tensor) -> Tensor:
    """Bring each channel of each window (..., L) to zero mean and unit standard deviation."""
    centred = windows - windows.mean(-1, keepdim=True)
    return centred / (windows.std(-1, keepdim=True) + EPS)


def cut(signal: Tensor, length: int, overlap: float = 0.0) -> Tensor:
    """Cut signals into windows.

    Without overlap a tail that fills no window is left out, unless there is no window at all;
    with overlap the tail is filled with zeros. So the published tokenizer has it.

    Parameters
    ----------
    signal : Tensor, shape (B, C, T)
        Samples.
    length : int
        Samples in a window.
    overlap : float
        Share of a window that the next one repeats.

    Returns
    -------
    Tensor, shape (B, C, N, length)
        Windows.
    """
    step = int(length * (1 - overlap))
    n_times = signal.shape[-1]
    missing = max(0, length - n_times)
    if overlap > 0 and n_times > length:
        missing = -(n_times - length) % step
    return F.pad(signal, (0, missing)).unfold(-1, length, step)


# ---------------------------------------------------------------------------------------
# What a reconstruction costs


def reconstruction_loss(found: Reconstruction, counted: Tensor | None = None) -> dict[str, Tensor]:
    """Return the terms of the published loss, each to be summed as `total` says.

    Parameters
    ----------
    found : Reconstruction
        Of windows (B, C, N, L).
    counted : Tensor of bool, shape (B, C), optional
        False where a channel is padding.

    Returns
    -------
    dict of Tensor
        ``time`` (L1), ``correlation`` (Pearson, the mean over windows), ``amplitude`` and
        ``phase`` (L1 of the Hamming-windowed spectrum), ``commitment`` and ``total`` =
        time + exp(-correlation) + commitment + amplitude + phase / 2.
    """
    signal, target = found.signal, found.target
    if counted is not None:
        signal, target = signal[counted], target[counted]
    window = torch.hamming_window(signal.shape[-1], device=signal.device, dtype=signal.dtype)
    spectra = [torch.fft.rfft(x * window, norm="ortho") for x in (signal, target)]
    terms = {
        "time": F.l1_loss(signal, target),
        "correlation": correlation(signal, target).mean(),
        "amplitude": F.l1_loss(spectra[0].abs(), spectra[1].abs()),
        "phase": F.l1_loss(spectra[0].angle(), spectra[1].angle()),
        "commitment": found.quantised.loss,
    }
    total = terms["time"] + torch.exp(-terms["correlation"]) + terms["commitment"]
    return {**terms, "total": total + terms["amplitude"] + 0.5 * terms["phase"]}


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation over the last axis."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + EPS)

"""The Mamba-2 mixer (Dao and Gu, 2024), with the weight names of `mamba_ssm`.

A checkpoint serves both. Where `d_ssm` is smaller than the inner width, the rest of it is a gated
feed-forward part beside the state space. With `rmsnorm` the gate acts before a norm over each
group of channels; without it, inside the scan. The plain-torch helper of the original's fused path
normalises over all groups at once; its kernels and its module do not, and neither do we.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.causal_conv import CausalConv
from neurofm.nn.mamba1 import MambaState
from neurofm.nn.ssd import ssd_scan
from neurofm.nn.step_size import decay_rates, initial_step_bias


class Mamba2Config(Config):
    """Hyper-parameters of `Mamba2`.

    Parameters
    ----------
    d_state : int
        Numbers in the state of one channel.
    d_conv : int
        Steps that the convolution sees.
    expand : int
        Inner channels, as a multiple of the width.
    headdim : int
        Channels that share a step size.
    d_ssm : int, optional
        Inner channels of the state space; all by default.
    ngroups : int
        Groups of heads, each with its own input and output maps of the state.
    rmsnorm : bool
        Normalise after the gate.
    bias, conv_bias : bool
        Biases of the projections in and out, and of the convolution.
    D_has_hdim : bool
        One skip weight a channel instead of one a head.
    norm_before_gate : bool
        Normalise before the gate instead.
    chunk_size : int
        Steps computed at once; no influence on the result but rounding.
    dt_min, dt_max : float
        Range that step sizes are first drawn from.
    dt_limit : (float, float or None)
        Least and greatest step size; None sets no limit.
    A_init_range : (float, float)
        Range that the decay of heads is first drawn from.
    """

    name: Literal["mamba2"] = "mamba2"
    d_state: int = Field(default=64, ge=1)
    d_conv: int = Field(default=4, ge=1)
    expand: int = Field(default=2, ge=1)
    headdim: int = Field(default=32, ge=1)
    d_ssm: int | None = Field(default=None, ge=1)
    ngroups: int = Field(default=1, ge=1)
    rmsnorm: bool = True
    bias: bool = False
    conv_bias: bool = True
    D_has_hdim: bool = False
    norm_before_gate: bool = False
    chunk_size: int = Field(default=256, ge=1)
    dt_min: float = Field(default=0.001, gt=0)
    dt_max: float = Field(default=0.1, gt=0)
    dt_limit: tuple[float, float | None] = (0.0, None)
    A_init_range: tuple[float, float] = (1.0, 16.0)

    def build(self, width: int) -> Mamba2:
        """Build the mixer for tokens of `width` features.

        Raises
        ------
        ConfigError
            If heads or groups do not fit the inner width.
        """
        return Mamba2(self, width)


class ScanInputs(NamedTuple):
    """What the scan gets, and what goes beside it; L steps, H heads, P features of a head.

    x (B, L, H, P), dt (B, L, H), B and C (B, L, G, N), z (B, L, d_ssm), and the feed-forward part
    (B, L, inner - d_ssm).
    """

    x: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    z: Tensor
    beside: Tensor


class Mamba2(nn.Module):
    """A state space with one decay a head, over a sequence; looks backwards only.

    Parameters
    ----------
    config : Mamba2Config
        Hyper-parameters.
    width : int
        Features of a token.
    """

    def __init__(self, config: Mamba2Config, width: int):
        super().__init__()
        self.config = config
        self.inner = config.expand * width
        self.d_ssm = config.d_ssm or self.inner
        _check(config, self.inner, self.d_ssm)
        self.n_heads = self.d_ssm // config.headdim
        self.n_shared = config.ngroups * config.d_state
        in_conv = self.d_ssm + 2 * self.n_shared
        into = 2 * (self.inner - self.d_ssm) + self.d_ssm + in_conv + self.n_heads
        self.in_proj = nn.Linear(width, into, bias=config.bias)
        self.conv1d = CausalConv(in_conv, config.d_conv, bias=config.conv_bias)
        self.dt_bias = nn.Parameter(initial_step_bias(self.n_heads, config.dt_min, config.dt_max))
        self.A_log = nn.Parameter(torch.empty(self.n_heads).uniform_(*config.A_init_range).log())
        self.D = nn.Parameter(torch.ones(self.d_ssm if config.D_has_hdim else self.n_heads))
        self.norm = (
            GatedNorm(self.d_ssm, config.ngroups, gate_first=not config.norm_before_gate)
            if config.rmsnorm
            else None
        )
        self.out_proj = nn.Linear(self.inner, width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence, shape (B, L, width), into one of the same shape."""
        return self.run(x)[0]

    def step(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """Take one token, shape (B, width), and go on from a state; None starts a sequence."""
        y, state = self.run(x[:, None], state)
        return y[:, 0], state

    def run(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """Mix a stretch of a sequence that goes on from a state; as `Mamba1.run`."""
        inputs, conv = self.project(x, None if state is None else state.conv)
        y, scan = self.scan(inputs, None if state is None else state.scan)
        y = y.flatten(-2)
        if self.norm is not None:
            y = self.norm(y, inputs.z)
        return self.out_proj(torch.cat((inputs.beside, y), dim=-1)), MambaState(conv, scan)

    def project(self, x: Tensor, conv: Tensor | None) -> tuple[ScanInputs, Tensor]:
        """Return what the scan gets of tokens (B, L, width), and the convolution's last inputs."""
        beside = self.inner - self.d_ssm
        sizes = (beside, beside, self.d_ssm, self.conv1d.in_channels, self.n_heads)
        gate, part, z, mixed, dt = self.in_proj(x).split(sizes, dim=-1)
        mixed, conv = self.conv1d.run(mixed.transpose(1, 2), conv)
        mixed = F.silu(mixed).transpose(1, 2)
        signal, B, C = mixed.split((self.d_ssm, self.n_shared, self.n_shared), dim=-1)
        B, C = (t.unflatten(-1, (self.config.ngroups, -1)) for t in (B, C))
        signal = signal.unflatten(-1, (self.n_heads, -1))
        return ScanInputs(signal, dt, B, C, z, F.silu(gate) * part), conv

    def scan(self, inputs: ScanInputs, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the scan, shape (B, L, H, P), gated unless a norm does that, and its state."""
        least, greatest = self.config.dt_limit
        per_head = (self.n_heads, -1) if self.config.D_has_hdim else (self.n_heads,)
        return ssd_scan(
            inputs.x,
            inputs.dt,
            decay_rates(self.A_log),
            inputs.B,
            inputs.C,
            chunk_size=self.config.chunk_size,
            D=self.D.reshape(per_head),
            z=None if self.norm is not None else inputs.z.unflatten(-1, (self.n_heads, -1)),
            dt_bias=self.dt_bias,
            dt_softplus=True,
            dt_limit=(least, float("inf") if greatest is None else greatest),
            state=state,
        )


def _check(config: Mamba2Config, inner: int, d_ssm: int) -> None:
    if d_ssm > inner or d_ssm % config.headdim or (d_ssm // config.headdim) % config.ngroups:
        raise ConfigError(
            f"mamba2: {d_ssm} of {inner} inner channels do not split into heads of "
            f"{config.headdim} channels in {config.ngroups} groups",
            hint="headdim times ngroups divides d_ssm, and d_ssm is at most expand times the width",
        )


class GatedNorm(nn.Module):
    """Root-mean-square norm over each group of channels, and a gate.

    Parameters
    ----------
    width : int
        Channels.
    n_groups : int
        Groups, each normalised by itself.
    gate_first : bool
        Gate before the norm instead of after it.
    """

    def __init__(self, width: int, n_groups: int = 1, *, gate_first: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.n_groups = n_groups
        self.gate_first = gate_first

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Normalise x and gate it by the SiLU of z, both of shape (..., width)."""
        exact = torch.promote_types(x.dtype, torch.float32)
        wide, gate = x.to(exact), F.silu(z.to(exact))
        if self.gate_first:
            wide = wide * gate
        groups = wide.unflatten(-1, (self.n_groups, -1))
        scale = torch.rsqrt(groups.square().mean(-1, keepdim=True) + 1e-5)
        normed = (groups * scale).flatten(-2) * self.weight.to(exact)
        return (normed if self.gate_first else normed * gate).to(x.dtype)

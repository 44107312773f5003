"""The Mamba mixer, version 1 (Gu and Dao, 2023), with the weight names of `mamba_ssm`.

A checkpoint serves both. The bias of `dt_proj` is added inside the scan, not by the projection;
the skip `D` is added before the gate; there is no norm inside.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neurofm.config import Config
from neurofm.errors import ConfigError
from neurofm.nn.causal_conv import CausalConv
from neurofm.nn.selective_scan import selective_scan
from neurofm.nn.step_size import decay_rates, initial_step_bias


class Mamba1Config(Config):
    """Hyper-parameters of `Mamba1`.

    Parameters
    ----------
    d_state : int
        Numbers in the state of one channel.
    d_conv : int
        Steps that the convolution sees.
    expand : int or float
        Inner channels, as a multiple of the width, rounded down.
    dt_rank : int, optional
        Features that step sizes are projected from; a sixteenth of the width by default.
    bias, conv_bias : bool
        Biases of the projections in and out, and of the convolution.
    dt_min, dt_max : float
        Range that step sizes are first drawn from.
    """

    name: Literal["mamba1"] = "mamba1"
    d_state: int = Field(default=16, ge=1)
    d_conv: int = Field(default=4, ge=1)
    expand: int | float = Field(default=2, gt=0, allow_inf_nan=False)
    dt_rank: int | None = Field(default=None, ge=1)
    bias: bool = False
    conv_bias: bool = True
    dt_min: float = Field(default=0.001, gt=0)
    dt_max: float = Field(default=0.1, gt=0)

    def build(self, width: int) -> Mamba1:
        """Build the mixer for tokens of `width` features."""
        return Mamba1(self, width)


class MambaState(NamedTuple):
    """Where a sequence stopped.

    Attributes
    ----------
    conv : Tensor, shape (B, channels, d_conv)
        The last inputs of the convolution, newest last.
    scan : Tensor
        State of the scan: (B, channels, d_state), or (B, heads, headdim, d_state) in version 2.
    """

    conv: Tensor
    scan: Tensor


class ScanInputs(NamedTuple):
    """What the scan gets, each of shape (B, features, L)."""

    x: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    z: Tensor


class Mamba1(nn.Module):
    """A selective state space over a sequence; looks backwards only.

    Parameters
    ----------
    config : Mamba1Config
        Hyper-parameters.
    width : int
        Features of a token.
    """

    def __init__(self, config: Mamba1Config, width: int):
        super().__init__()
        self.config = config
        inner = int(config.expand * width)
        if inner < 1:
            raise ConfigError(
                f"mamba1: expand = {config.expand} leaves no inner channel at width {width}",
                hint="expand times the width is 1 or more",
            )
        self.dt_rank = config.dt_rank or math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=config.bias)
        self.conv1d = CausalConv(inner, config.d_conv, bias=config.conv_bias)
        self.x_proj = nn.Linear(inner, self.dt_rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, inner)
        rows = torch.arange(1, config.d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(rows.log().repeat(inner, 1))  # (inner, d_state)
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=config.bias)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(initial_step_bias(inner, config.dt_min, config.dt_max))

    def forward(self, x: Tensor) -> Tensor:
        """Mix a sequence, shape (B, L, width), into one of the same shape."""
        return self.run(x)[0]

    def step(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """Take one token, shape (B, width), and go on from a state; None starts a sequence."""
        y, state = self.run(x[:, None], state)
        return y[:, 0], state

    def run(self, x: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """Mix a stretch of a sequence that goes on from a state.

        Parameters
        ----------
        x : Tensor, shape (B, L, width)
            Tokens.
        state : MambaState, optional
            Where the sequence stopped; None starts one.

        Returns
        -------
        y : Tensor, shape (B, L, width)
            Mixed tokens.
        state : MambaState
            Where it stopped.
        """
        inputs, conv = self.project(x, None if state is None else state.conv)
        y, scan = self.scan(inputs, None if state is None else state.scan)
        return self.out_proj(y.transpose(1, 2)), MambaState(conv, scan)

    def project(self, x: Tensor, conv: Tensor | None) -> tuple[ScanInputs, Tensor]:
        """Return what the scan gets of tokens (B, L, width), and the convolution's last inputs."""
        signal, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        signal, conv = self.conv1d.run(signal, conv)
        signal = F.silu(signal)
        sizes = (self.dt_rank, self.config.d_state, self.config.d_state)
        dt, B, C = self.x_proj(signal.transpose(1, 2)).split(sizes, dim=-1)
        dt = F.linear(dt, self.dt_proj.weight)
        inputs = ScanInputs(signal, dt.transpose(1, 2), B.transpose(1, 2), C.transpose(1, 2), z)
        return inputs, conv

    def scan(self, inputs: ScanInputs, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gated scan, shape (B, inner, L), and its last state."""
        return selective_scan(
            inputs.x,
            inputs.dt,
            decay_rates(self.A_log),
            inputs.B,
            inputs.C,
            self.D,
            z=inputs.z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            state=state,
        )

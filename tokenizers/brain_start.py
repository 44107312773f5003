"""First weights of a BrainTokenizer: the scale of a signal is kept, and sources lie on the head.

S sources, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurofm.nn.initialise import initialise_linear
from neurofm.nn.place import HEAD_M
from neurofm.nn.seanet import PaddedConv
from neurofm.sphere import fibonacci
from neurofm.tokenizers.brain_parts import BrainEncoder, BrainParts

_NEAR, _KIND_SHARE, _PICKY, _AGREED, _ASIDE = 4.0, 0.3, 3.0, 0.1, 0.1
# a head in the head frame: between the ears is the origin, its middle lies above
_MIDDLE_M, _RADIUS_M, _LOWEST = (0.0, 0.0, 0.04), 0.095, -0.4


@torch.no_grad()
def first_weights(parts: BrainEncoder) -> None:
    """Draw first weights that keep the scale of a signal, and make sources of their surroundings.

    Those torch draws lose a third of its power or more in each of a dozen layers, so that what
    comes out of a fresh encoder is its biases, whatever comes in. And with queries that are drawn,
    it takes thousands of steps until sources and sensors have found out who is near whom: here
    each source begins as a point of the head, that looks at the sensors around it, and that
    sensors around it look at.

    Parameters
    ----------
    parts : BrainEncoder
        Changed in place.
    """
    _keep_scale(parts)
    start_sources(parts, _embedded(parts, on_the_head(parts.config.n_sources)))


def on_the_head(n: int) -> Tensor:
    """Return `n` points spread over a head as sensors see it, metres in the head frame, (n, 3)."""
    directions = torch.from_numpy(fibonacci(n, lowest=_LOWEST)).float()
    return torch.tensor(_MIDDLE_M) + _RADIUS_M * directions


@torch.no_grad()
def start_sources(parts: BrainEncoder, sensors: Tensor) -> None:
    """Let each source begin as a sensor: it looks, and is looked at, where that one is.

    Parameters
    ----------
    parts : BrainEncoder
        Changed in place.
    sensors : Tensor, shape (S, D)
        Embedded sensors.
    """
    nn.init.eye_(parts.to_sources.key.weight)
    nn.init.zeros_(parts.to_sources.key.bias)
    parts.to_sources.queries.copy_(_PICKY * sensors)
    if isinstance(parts, BrainParts) and parts.to_sensors.names is not None:
        parts.to_sensors.names.copy_(_PICKY * sensors)
        # at first, who a sensor listens to is a matter of place, not of what is said
        n = len(sensors[0])
        parts.to_sensors.key_value.weight[:n].mul_(_AGREED)


def _embedded(parts: BrainEncoder, points: Tensor) -> Tensor:
    geometry = torch.cat((points / HEAD_M, torch.zeros_like(points)), -1)
    kind = torch.zeros(1, len(points), dtype=torch.int64)
    weight = parts.sensors.widen.weight
    return parts.sensors(geometry[None].to(weight), kind.to(weight.device))[0]


def _keep_scale(parts: BrainEncoder) -> None:
    for module in parts.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            n_in, _, kernel = module.weight.shape
            if isinstance(module, nn.Conv1d):
                fan = module.in_channels * kernel
            else:  # each sample that comes out has seen so many that went in
                fan = n_in * kernel // module.stride[0]
            module.weight = torch.randn_like(module.weight) * fan**-0.5
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # sensors of one kind start out unlike each other: were attention nearly even, the mean over a
    # head would be all that sources get, which of a referenced recording is zero
    initialise_linear(parts.sensors.widen, 1 / _NEAR)
    nn.init.uniform_(parts.sensors.widen.bias, -_NEAR / 2, _NEAR / 2)
    initialise_linear(parts.sensors.narrow)
    parts.sensors.kinds.weight.mul_(_KIND_SHARE)
    for layer in (parts.to_sources.value, parts.to_sources.project_out):
        initialise_linear(layer)
    _lead(parts.encoder.last, parts.straight_in)
    if isinstance(parts, BrainParts):
        initialise_linear(parts.to_sensors.project_out)
        initialise_linear(parts.to_sensors.key_value)
        _lead(parts.decoder.last, parts.straight_out)


def _lead(convolutions: PaddedConv, straight: nn.Linear | None) -> None:
    """Let what is straight lose nothing at first, and convolutions add little to it."""
    if straight is None:
        return
    nn.init.orthogonal_(
        straight.weight, max(1.0, straight.out_features / straight.in_features) ** 0.5
    )
    nn.init.zeros_(straight.bias)
    convolutions.conv.weight = _ASIDE * convolutions.conv.weight

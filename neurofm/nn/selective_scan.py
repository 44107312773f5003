"""The selective scan of Mamba (Gu and Dao, 2023), exact, in time and memory linear in length.

The state of each channel follows ``h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t`` and is read
out as ``y_t = C_t . h_t``. Associative and log-space formulations move each state many times
through memory, and log space can overflow. Here a stretch of steps at a time has its exponentials
taken at once, then each step is one multiply-add in place. Only the states between stretches are
kept; the backward pass computes the others again.

B windows, L steps, D channels, N state, G groups of channels that share B and C, E = D / G.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm.errors import SignalError
from neurofm.nn.kernels import scan_kernel

# States of one stretch: three arrays of 1 MB, about what one core keeps beside it.
STRETCH_VALUES = 1 << 18


def selective_scan(  # noqa: PLR0913 - the operands of the original, in its order
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the scan.

    Parameters
    ----------
    u : Tensor, shape (B, D, L)
        What comes in.
    delta : Tensor, shape (B, D, L)
        Step sizes, before bias and softplus.
    A : Tensor, shape (D, N)
        Real and negative.
    B, C : Tensor, shape (D, N), (B, N, L) or (B, G, N, L)
        Fixed a channel, or one a step, shared by all channels or by contiguous groups of them.
    D : Tensor, shape (D,), optional
        Weight of `u` in what goes out.
    z : Tensor, shape (B, D, L), optional
        Gate: what goes out is multiplied by its SiLU.
    delta_bias : Tensor, shape (D,), optional
        Added to `delta`.
    delta_softplus : bool
        Pass `delta` through a softplus, after the bias.
    state : Tensor, shape (B, D, N), optional
        State before the first step; zeros by default.

    Returns
    -------
    y : Tensor, shape (B, D, L)
        As `u` in dtype; the scan itself is computed in float32 at least.
    last : Tensor, shape (B, D, N)
        State after the last step.

    Raises
    ------
    SignalError
        If shapes do not fit each other.
    """
    _check(u, delta, A, B, C)
    kernel = scan_kernel(u.device)
    if kernel is not None and state is None and B.ndim > 2 and C.ndim > 2:
        D, delta_bias = (None if t is None else t.float() for t in (D, delta_bias))  # it needs that
        found: tuple[Tensor, Tensor] = kernel(
            u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state=True
        )
        return found
    exact = torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        wide, step = u.to(exact), delta.to(exact)
        if delta_bias is not None:
            step = step + delta_bias.to(exact)[:, None]
        if delta_softplus:
            step = F.softplus(step)
        n_windows, n_channels, n_steps = u.shape
        if state is None:
            state = step.new_zeros(n_windows, n_channels, A.shape[1])
        inputs, outputs = (_per_step(t, n_windows, n_steps).to(exact) for t in (B, C))
        if inputs.shape[2] != outputs.shape[2]:
            n_groups = math.lcm(inputs.shape[2], outputs.shape[2])
            inputs, outputs = (
                t.repeat_interleave(n_groups // t.shape[2], 2) for t in (inputs, outputs)
            )
        y, last, _ = _scan(
            wide.transpose(1, 2),
            step.transpose(1, 2),
            A.to(exact),
            inputs,
            outputs,
            state.to(exact),
        )
        y = y.transpose(1, 2)
        if D is not None:
            y = y + wide * D.to(exact)[:, None]
        if z is not None:
            y = y * F.silu(z.to(exact))
    return y.to(u.dtype), last


def _check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
    n_windows, n_channels, n_steps = u.shape
    n_state = A.shape[1]
    fits = delta.shape == u.shape and A.shape[0] == n_channels
    for value in (B, C):
        fixed = value.shape == (n_channels, n_state)
        stepped = value.ndim in {3, 4} and value.shape[-2:] == (n_state, n_steps)
        grouped = value.ndim < 4 or n_channels % value.shape[1] == 0
        fits = fits and (fixed or (stepped and grouped and value.shape[0] == n_windows))
    if not fits:
        shapes = ", ".join(
            f"{name} {tuple(value.shape)}"
            for name, value in (("u", u), ("delta", delta), ("A", A), ("B", B), ("C", C))
        )
        raise SignalError(
            f"selective scan: shapes do not fit each other: {shapes}",
            hint="u and delta (B, D, L), A (D, N), B and C (D, N), (B, N, L) or (B, G, N, L)",
        )


def _per_step(value: Tensor, n_windows: int, n_steps: int) -> Tensor:
    """Return B or C as (B, L, G, N)."""
    if value.ndim == 2:  # one a channel: each is a group of its own
        return value.expand(n_windows, n_steps, -1, -1)
    if value.ndim == 3:
        value = value[:, None]
    return value.permute(0, 3, 1, 2)


class _Stretch:
    """One stretch of steps, (length, B, G, N, E): a view of arrays that all stretches share."""

    def __init__(self, arrays: list[_Array], steps: slice, operands: tuple[Tensor, ...]):
        drive, delta, self.A, B, C = operands
        length = steps.stop - steps.start
        self.steps = steps
        self.decay, self.states, *rest = (array.first(length) for array in arrays)
        self.spare = rest[0] if rest else self.states
        self.drive, self.delta, self.B, self.C = (t[steps] for t in (drive, delta, B, C))

    def run(self, state: Tensor) -> Tensor:
        """Fill `decay` and `states` from the state before; return the last state."""
        torch.mul(self.delta[..., None, :], self.A, out=self.decay.whole).exp_()
        torch.mul(self.drive[..., None, :], self.B[..., None], out=self.states.whole)
        previous = state
        for now, decay in zip(self.states.rows, self.decay.rows, strict=True):
            previous = now.addcmul_(decay, previous)
        return previous

    def run_back(self, grad_y: Tensor, carried: Tensor) -> Tensor:
        """Fill `spare` with the gradient at each state; return what passes to before."""
        torch.mul(self.C[..., None], grad_y[..., None, :], out=self.spare.whole)
        grads, decays = self.spare.rows, self.decay.rows
        later = grads[-1].add_(carried)
        for t in range(len(grads) - 2, -1, -1):
            later = grads[t].addcmul_(decays[t + 1], later)
        return decays[0] * later


class _Array(NamedTuple):
    """An array, and views of its rows, which take as long to make as a step takes."""

    whole: Tensor
    rows: tuple[Tensor, ...]

    def first(self, length: int) -> _Array:
        """Return the first rows."""
        return self if length == len(self.rows) else _Array(self.whole[:length], self.rows[:length])


def _stretches(
    operands: tuple[Tensor, ...], n_arrays: int, *, back: bool = False
) -> Iterator[tuple[int, _Stretch]]:
    u, delta, A, B, C = operands
    n_windows, n_steps = u.shape[:2]
    length = stretch_length(n_windows * A.numel())
    shape = (min(length, n_steps), n_windows, *A.shape)
    new = [u.new_empty(shape) for _ in range(n_arrays)]
    arrays = [_Array(array, array.unbind(0)) for array in new]
    drive, step = (
        t.transpose(0, 1).unflatten(-1, (B.shape[2], -1)) for t in (delta * u, delta)
    )  # (L, B, G, E)
    B, C = (t.transpose(0, 1).contiguous() for t in (B, C))
    operands = (drive, step, A, B, C)
    starts = range(0, n_steps, length)
    for index in reversed(range(len(starts))) if back else range(len(starts)):
        steps = slice(starts[index], min(starts[index] + length, n_steps))
        yield index, _Stretch(arrays, steps, operands)


def stretch_length(n_values: int) -> int:
    """Return the steps of one stretch where a state of all windows has `n_values` numbers."""
    return min(256, max(16, STRETCH_VALUES // max(1, n_values)))


def _grouped(A: Tensor, n_groups: int) -> Tensor:
    """Return A (D, N) as (G, N, E): channels last, which is what the arithmetic runs along."""
    return A.unflatten(0, (n_groups, -1)).transpose(1, 2).contiguous()


def _ungrouped(value: Tensor) -> Tensor:
    """Return (..., G, N, E) as (..., D, N)."""
    return value.transpose(-1, -2).flatten(-3, -2).contiguous()


@torch.library.custom_op("neurofm::selective_scan", mutates_args=())
def _scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan u, delta (B, L, D) with A (D, N), B and C (B, L, G, N) from a state (B, D, N).

    An operator of its own, so that `torch.compile` and `torch.export` take it as one node
    instead of unrolling its steps. Returns y (B, L, D), the last state (B, D, N), and the
    state before each stretch (n_stretches, B, G, N, E).
    """
    grouped = _grouped(A, B.shape[2])
    operands = (u, delta, grouped, B, C)
    now = state.unflatten(1, (B.shape[2], -1)).transpose(-1, -2)
    y, before = torch.empty_like(u, memory_format=torch.contiguous_format), []
    for _, stretch in _stretches(operands, 2):
        before.append(now.clone(memory_format=torch.contiguous_format))
        now = stretch.run(before[-1])
        out = torch.matmul(stretch.C[..., None, :], stretch.states.whole)  # (length, B, G, 1, E)
        y[:, stretch.steps] = out.flatten(2).transpose(0, 1)
    kept = torch.stack(before) if before else u.new_empty(0, *now.shape)
    return y, _ungrouped(now).clone(), kept


@_scan.register_fake
def _(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n_windows, n_steps, n_channels = u.shape
    n_groups = B.shape[2]
    length = stretch_length(n_windows * A.numel())
    n_stretches = (n_steps + length - 1) // length
    kept = u.new_empty(n_stretches, n_windows, n_groups, A.shape[1], n_channels // n_groups)
    return torch.empty_like(u, memory_format=torch.contiguous_format), torch.empty_like(state), kept


@torch.library.custom_op("neurofm::selective_scan_backward", mutates_args=())
def _scan_backward(
    grad_y: Tensor,
    grad_last: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    before: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, delta, A, B, C and of the first state."""
    n_groups = B.shape[2]
    grouped = _grouped(A, n_groups)
    operands = (u, delta, grouped, B, C)
    carried = grad_last.unflatten(1, (n_groups, -1)).transpose(-1, -2)
    grad_u, grad_delta, grad_B, grad_C = (
        torch.empty_like(t, memory_format=torch.contiguous_format) for t in (u, delta, B, C)
    )
    by_A: Tensor | None = None  # summed over stretches first, over their steps at the end
    for index, stretch in _stretches(operands, 3, back=True):
        steps, first = stretch.steps, before[index]
        coming = grad_y[:, steps].transpose(0, 1).unflatten(-1, (n_groups, -1)).contiguous()
        stretch.run(first)
        carried = stretch.run_back(coming, carried)
        decay, states, grads = (a.whole for a in (stretch.decay, stretch.states, stretch.spare))

        # 1. What reads the state, and what drives it.
        # (a row times a matrix: the product of a matrix and a column takes a slower path)
        by_C = torch.matmul(coming[..., None, :], states.transpose(-1, -2))[..., 0, :]
        by_B = torch.matmul(stretch.drive[..., None, :], grads.transpose(-1, -2))[..., 0, :]
        by_drive = torch.matmul(stretch.B[..., None, :], grads)[..., 0, :]

        # 2. What decays it: the gradient at delta A, in place of the gradient at the state.
        grads.mul_(decay)
        grads[0].mul_(first)
        grads[1:].mul_(states[:-1])
        if by_A is None:  # the last stretch, which alone may be shorter
            by_A = grads.new_zeros(min(u.shape[1], stretch_length(first.numel())), *first.shape)
        by_A[: len(grads)].addcmul_(grads, stretch.delta[..., None, :])
        by_decay = torch.mul(grads, grouped, out=states).sum(-2)

        grad_B[:, steps], grad_C[:, steps] = by_B.transpose(0, 1), by_C.transpose(0, 1)
        grad_u[:, steps] = by_drive.flatten(2).transpose(0, 1)
        grad_delta[:, steps] = by_decay.flatten(2).transpose(0, 1)
    grad_delta.addcmul_(grad_u, u)  # the drive is delta u
    grad_u.mul_(delta)
    grad_A = torch.zeros_like(grouped) if by_A is None else by_A.sum((0, 1))
    return grad_u, grad_delta, _ungrouped(grad_A), grad_B, grad_C, _ungrouped(carried)


@_scan_backward.register_fake
def _(
    grad_y: Tensor,
    grad_last: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    before: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (u, delta, A, B, C)]
    return like[0], like[1], like[2], like[3], like[4], torch.empty_like(grad_last)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    u, delta, A, B, C, _ = inputs
    ctx.save_for_backward(u, delta, A, B, C, output[2])
    ctx.set_materialize_grads(True)


def _back(ctx: Any, grad_y: Tensor, grad_last: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = _scan_backward(grad_y, grad_last, *ctx.saved_tensors)
    return found


_scan.register_autograd(_back, setup_context=_keep)

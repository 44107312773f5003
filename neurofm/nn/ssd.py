"""The state-space scan of Mamba-2 as chunked matrix products (Dao and Gu, 2024).

The state of each head follows ``h_t = exp(dt_t A) h_{t-1} + dt_t x_t (outer) B_t`` and is read out
as ``y_t = h_t C_t``. Within a chunk that is a masked, decaying attention; between chunks one state
is passed on. Time and memory are linear in length: a few chunks at a time are computed, only the
state before each such stretch is kept, and the backward pass computes the rest again.

B windows, L steps, H heads, P features of a head, N state, G groups of heads that share B and C,
R = H / G, K chunks of a stretch, T steps of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm.errors import SignalError
from neurofm.nn.kernels import ssd_kernel

STRETCH_VALUES = {"cpu": 1 << 18}  # of the decay matrices of a stretch: they stay in the cache
DEFAULT_VALUES = 1 << 26  # on accelerators, which want few and large products
CPU_CHUNK = 32  # longer chunks cost more than they bring there


def ssd_scan(  # noqa: PLR0913 - the operands of the original, in its order
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    chunk_size: int = CPU_CHUNK,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the scan.

    Parameters
    ----------
    x : Tensor, shape (B, L, H, P)
        What comes in.
    dt : Tensor, shape (B, L, H)
        Step sizes, before bias, softplus and limits.
    A : Tensor, shape (H,)
        Negative.
    B, C : Tensor, shape (B, L, G, N)
        What writes to the state, and what reads it.
    chunk_size : int
        Steps of a chunk; no influence on the result but rounding. At most 32 on a CPU.
    D : Tensor, shape (H,) or (H, P), optional
        Weight of `x` in what goes out.
    z : Tensor, shape (B, L, H, P), optional
        Gate: what goes out is multiplied by its SiLU.
    dt_bias : Tensor, shape (H,), optional
        Added to `dt`.
    dt_softplus : bool
        Pass `dt` through a softplus, after the bias.
    dt_limit : (float, float)
        Least and greatest step size, after the softplus.
    state : Tensor, shape (B, H, P, N), optional
        State before the first step; zeros by default.

    Returns
    -------
    y : Tensor, shape (B, L, H, P)
        As `x` in dtype; the scan itself is computed in float32 at least.
    last : Tensor, shape (B, H, P, N)
        State after the last step.

    Raises
    ------
    SignalError
        If shapes do not fit each other.
    """
    _check(x, dt, A, B, C)
    kernel = ssd_kernel(x.device)
    if kernel is not None:
        found: tuple[Tensor, Tensor] = kernel(
            x,
            dt,
            A,
            B,
            C,
            chunk_size,
            D=D,
            z=z,
            dt_bias=dt_bias,
            initial_states=state,
            dt_softplus=dt_softplus,
            dt_limit=dt_limit,
            return_final_states=True,
        )
        return found
    exact = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        wide, step = x.to(exact), dt.to(exact)
        if dt_bias is not None:
            step = step + dt_bias.to(exact)
        if dt_softplus:
            step = F.softplus(step)
        if not dt_softplus or dt_limit != (0.0, float("inf")):
            step = step.clamp(*dt_limit)
        n_windows, _, n_heads, n_features = x.shape
        if state is None:
            state = wide.new_zeros(n_windows, n_heads, n_features, B.shape[-1])
        chunk = min(chunk_size, CPU_CHUNK) if x.device.type == "cpu" else chunk_size
        y, last, _ = _scan(
            wide, step, A.to(exact), B.to(exact), C.to(exact), state.to(exact), chunk
        )
        if D is not None:
            y = y + wide * D.to(exact).reshape(n_heads, -1)
        if z is not None:
            y = y * F.silu(z.to(exact))
    return y.to(x.dtype), last


def _check(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
    n_windows, n_steps, n_heads, _ = x.shape
    fits = dt.shape == x.shape[:3] and A.shape == (n_heads,) and B.shape == C.shape
    fits = fits and B.ndim == 4 and B.shape[:2] == (n_windows, n_steps)
    if not fits or n_heads % B.shape[2]:
        shapes = ", ".join(
            f"{name} {tuple(value.shape)}"
            for name, value in (("x", x), ("dt", dt), ("A", A), ("B", B), ("C", C))
        )
        raise SignalError(
            f"state-space scan: shapes do not fit each other: {shapes}",
            hint="x (B, L, H, P), dt (B, L, H), A (H,), B and C (B, L, G, N), H a multiple of G",
        )


class _Stretch:
    """A few chunks and all that forward and backward need of them."""

    def __init__(self, steps: slice, chunk: int, operands: tuple[Tensor, ...]):
        x, dt, A, B, C = operands
        n_groups = B.shape[2]
        self.steps, self.chunk = steps, chunk
        self.A = A.unflatten(0, (n_groups, -1))  # (G, R)
        self.x = self.chunks(x).unflatten(-2, (n_groups, -1)).permute(0, 1, 3, 2, 4, 5)
        self.dt = self.chunks(dt).unflatten(-1, (n_groups, -1)).permute(0, 1, 3, 2, 4)
        self.B, self.C = (self.chunks(t).transpose(2, 3) for t in (B, C))  # (B, K, G, T, N)
        self.driven = self.x * self.dt[..., None]  # (B, K, G, T, R, P)
        # summed in double precision: differences of large totals would keep few digits
        double = torch.float64 if x.device.type != "mps" else x.dtype  # which has none
        total = (self.dt.to(double) * self.A[:, None]).cumsum(3)  # (B, K, G, T, R)
        self.since = total.exp().to(x.dtype)  # decay since the chunk began
        self.until = (total[:, :, :, -1:] - total).exp().to(x.dtype)  # decay until it ends
        self.total = total.to(x.dtype)
        self.rest = None if x.dtype == total.dtype else (total - self.total).to(x.dtype)

    def chunks(self, value: Tensor) -> Tensor:
        """Cut (B, L, ...) to this stretch in chunks, (B, K, T, ...), with zeros at the end.

        A step of size zero leaves the state as it is.
        """
        value = value[:, self.steps]
        if short := -value.shape[1] % self.chunk:
            zeros = value.new_zeros(value.shape[0], short, *value.shape[2:])
            value = torch.cat((value, zeros), dim=1)
        return value.unflatten(1, (-1, self.chunk))

    def whole(self, value: Tensor) -> Tensor:
        """Undo `chunks` and what is done to its result: (B, K, G, T, ...) to (B, steps, ...)."""
        whole = value.transpose(2, 3).flatten(1, 2)
        return whole[:, : self.steps.stop - self.steps.start]

    def decays(self) -> Tensor:
        """Return the decay from step j to step i of a chunk, (B, K, G, R, i, j)."""
        total = self.total.transpose(-1, -2)
        later = torch.ones(self.chunk, self.chunk, dtype=torch.bool, device=total.device).triu(1)
        between = total[..., :, None] - total[..., None, :]
        if self.rest is not None:  # what single precision left of the totals, both ends at once
            rest = self.rest.transpose(-1, -2)
            between += rest[..., :, None] - rest[..., None, :]
        return between.masked_fill_(later, -torch.inf).exp_()

    def run(self, state: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the state before each chunk and the last, each (B, G, N, R P), and decays.

        `state` is the one before the first chunk. Decays of whole chunks are (B, K, G, 1, R P).
        """
        n_features = self.x.shape[-1]
        written = self.B.transpose(-1, -2) @ (self.driven * self.until[..., None]).flatten(-2)
        whole = self.since[:, :, :, -1:].repeat_interleave(n_features, -1)
        states = [state]
        for k in range(written.shape[1]):
            states.append(torch.addcmul(written[:, k], whole[:, k], states[-1]))
        return states, whole

    def features(self, value: Tensor) -> Tensor:
        """Split the last axis into heads and their features, (..., R, P)."""
        return value.unflatten(-1, (-1, self.x.shape[-1]))


def _stretches(
    operands: tuple[Tensor, ...], chunk: int, *, back: bool = False
) -> Iterator[tuple[int, _Stretch]]:
    x = operands[0]
    n_steps = x.shape[1]
    length = stretch_length(x.shape[0] * x.shape[2], chunk, x.device.type)
    starts = range(0, n_steps, length)
    for index in reversed(range(len(starts))) if back else range(len(starts)):
        steps = slice(starts[index], min(starts[index] + length, n_steps))
        yield index, _Stretch(steps, chunk, operands)


def stretch_length(n_heads: int, chunk: int, device: str) -> int:
    """Return the steps computed at once, for the heads of all windows together."""
    most = STRETCH_VALUES.get(device, DEFAULT_VALUES)
    return chunk * max(1, most // (n_heads * chunk * chunk))


@torch.library.custom_op("neurofm::ssd_scan", mutates_args=())
def _scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan from a state (B, H, P, N); one node for `torch.compile` and `torch.export`.

    Returns y (B, L, H, P), the last state, and the state before each stretch, (stretches, B, G, N,
    R P).
    """
    operands = (x, dt, A, B, C)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    now, before = _inside(state, B.shape[2]), []
    for _, stretch in _stretches(operands, chunk):
        before.append(now)
        states, _ = stretch.run(now)
        scores = stretch.C @ stretch.B.transpose(-1, -2)  # (B, K, G, T, T)
        within = stretch.decays().mul_(scores[:, :, :, None])
        driven = stretch.driven.transpose(3, 4)  # (B, K, G, R, T, P)
        found = (within @ driven).transpose(3, 4)  # (B, K, G, T, R, P)
        across = stretch.features(stretch.C @ torch.stack(states[:-1], 1))
        found = found.addcmul(across, stretch.since[..., None])
        y[:, stretch.steps] = stretch.whole(found).flatten(2, 3)
        now = states[-1]
    kept = torch.stack(before) if before else x.new_empty(0, *now.shape)
    return y, _outside(now, x.shape[-1]).clone(), kept


def _inside(state: Tensor, n_groups: int) -> Tensor:
    """Return states (B, H, P, N) as (B, G, N, R P)."""
    return state.unflatten(1, (n_groups, -1)).permute(0, 1, 4, 2, 3).flatten(-2).contiguous()


def _outside(state: Tensor, n_features: int) -> Tensor:
    """Return states (B, G, N, R P) as (B, H, P, N)."""
    heads = state.unflatten(-1, (-1, n_features)).permute(0, 1, 3, 4, 2)
    return heads.flatten(1, 2).contiguous()


@_scan.register_fake
def _(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    n_windows, n_steps, n_heads, n_features = x.shape
    length = stretch_length(n_windows * n_heads, chunk, x.device.type)
    n_groups, n_state = B.shape[2:]
    kept = (n_windows, n_groups, n_state, n_heads // n_groups * n_features)
    return (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        state.new_empty(state.shape),
        x.new_empty((n_steps + length - 1) // length, *kept),
    )


@torch.library.custom_op("neurofm::ssd_scan_backward", mutates_args=())
def _scan_backward(
    grad_y: Tensor,
    grad_last: Tensor,
    operands: list[Tensor],
    before: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, dt, A, B, C and of the first state."""
    x, _, A, B, _ = operands
    carried, grad_A = _inside(grad_last, B.shape[2]), torch.zeros_like(A)
    grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in operands]
    for index, stretch in _stretches(tuple(operands), chunk, back=True):
        coming = stretch.chunks(grad_y).unflatten(-2, (B.shape[2], -1)).permute(0, 1, 3, 2, 4, 5)
        found, carried = _stretch_backward(stretch, coming, before[index], carried)
        by_x, by_dt, by_A, by_B, by_C = found
        grads[0][:, stretch.steps] = stretch.whole(by_x).flatten(2, 3)
        grads[1][:, stretch.steps] = stretch.whole(by_dt).flatten(2)
        grads[3][:, stretch.steps] = stretch.whole(by_B)
        grads[4][:, stretch.steps] = stretch.whole(by_C)
        grad_A += by_A.flatten()
    return grads[0], grads[1], grad_A, grads[3], grads[4], _outside(carried, x.shape[-1]).clone()


def _stretch_backward(
    stretch: _Stretch, coming: Tensor, before: Tensor, carried: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return gradients of x, dt, A, B, C of a stretch, and of the state before it.

    `coming` is the gradient of y, (B, K, G, T, R, P); `carried` that of the state after.
    """
    B, C = stretch.B, stretch.C
    states, whole = stretch.run(before)
    entered = torch.stack(states[:-1], 1)  # (B, K, G, N, R P)

    # 1. Within chunks: y = within @ driven, with within = decays * scores.
    decays = stretch.decays()
    scores = (C @ B.transpose(-1, -2))[:, :, :, None]
    by_head, driven = coming.transpose(3, 4), stretch.driven.transpose(3, 4)
    by_within = (by_head @ driven.transpose(-1, -2)).mul_(decays)  # at the scores, head by head
    by_scores = by_within.sum(3)
    by_driven = ((decays.mul_(scores)).transpose(-1, -2) @ by_head).transpose(3, 4)
    by_within.mul_(scores)  # at the differences of the totals
    by_total = (by_within.sum(-1) - by_within.sum(-2)).transpose(-1, -2)  # (B, K, G, T, R)
    by_C = by_scores @ B
    by_B = by_scores.transpose(-1, -2) @ C

    # 2. What the state before each chunk adds: since * (C @ entered).
    read = (coming * stretch.since[..., None]).flatten(-2)  # (B, K, G, T, R P)
    by_C += read @ entered.transpose(-1, -2)
    by_total += stretch.features(read * (C @ entered)).sum(-1)
    by_entered = C.transpose(-1, -2) @ read

    # 3. From chunk to chunk, backwards.
    left = [carried]
    for k in range(len(states) - 2, -1, -1):
        left.append(torch.addcmul(by_entered[:, k], whole[:, k], left[-1]))
    by_written = torch.stack(left[-2::-1], 1)  # at the state after each chunk
    by_whole = stretch.features((by_written * entered).sum(3) * whole[:, :, :, 0]).sum(-1)

    # 4. What each chunk writes: B^T @ (driven * until).
    until = stretch.until[..., None]
    by_B += (stretch.driven * until).flatten(-2) @ by_written.transpose(-1, -2)
    spread = stretch.features(B @ by_written) * until
    by_driven = by_driven + spread
    by_until = (spread * stretch.driven).sum(-1)
    by_total -= by_until
    by_total[:, :, :, -1] += by_until.sum(3) + by_whole

    # 5. Through the running totals to step sizes, and to x.
    by_step = by_total.flip(3).cumsum(3).flip(3)
    by_dt = by_step * stretch.A[:, None] + (by_driven * stretch.x).sum(-1)
    by_A = (by_step * stretch.dt).sum((0, 1, 3))
    return (by_driven * stretch.dt[..., None], by_dt, by_A, by_B, by_C), left[-1]


@_scan_backward.register_fake
def _(
    grad_y: Tensor, grad_last: Tensor, operands: list[Tensor], before: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in operands]
    return like[0], like[1], like[2], like[3], like[4], grad_last.new_empty(grad_last.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *operands, _, chunk = inputs
    ctx.save_for_backward(*operands, output[2])
    ctx.chunk = chunk
    ctx.set_materialize_grads(True)


def _back(ctx: Any, grad_y: Tensor, grad_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *operands, before = ctx.saved_tensors
    return *_scan_backward(grad_y, grad_last, list(operands), before, ctx.chunk), None


_scan.register_autograd(_back, setup_context=_keep)

"""State-space scans on the CPU: ours beside loops, doubling, log-space and associative scans.

Times are medians over rounds in which all formulations take turns, forward and forward +
backward; what is slow has fewer rounds. Memory is the growth of the peak resident set
over the operands, each in a process of its own. Every formulation is first checked against the
plain loop.

    python benchmarks/scans.py                 the comparison at 1024 steps, ours up to 16384
    python benchmarks/scans.py --length 4096   the comparison at another length (minutes)
    python benchmarks/scans.py --cpu --threads 1   on a machine that others use too
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm.nn.selective_scan import selective_scan
from neurofm.nn.ssd import ssd_scan

WINDOWS, CHANNELS, STATE, HEAD = 2, 256, 16, 64
LENGTHS = (1024, 4096, 16384)
ENOUGH_S = 5.0  # no further round for what has taken this long
Scan = Callable[..., Tensor]

# ---------------------------------------------------------------------------------------
# Version 1: u and delta (B, L, D), A (D, N), B and C (B, L, N)


def driven(u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Return logarithms of decays and what drives the states, (B, L, D, N)."""
    return delta[..., None] * A, (delta * u)[..., None] * B[:, :, None]


def v1_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Step by step, keeping every state for the backward pass."""
    log_decay, drive = driven(u, delta, A, B)
    state, y = torch.zeros_like(drive[:, 0]), []
    # unbound at once: a slice a step would cost a whole array of zeros each in the backward pass
    steps = (t.unbind(1) for t in (log_decay.exp(), drive, C[:, :, None]))
    for decay, drive_t, read in zip(*steps, strict=True):
        state = decay * state + drive_t
        y.append((state * read).sum(-1))
    return torch.stack(y, 1)


def v1_doubling(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Hillis and Steele: spans of twice the length in each of log2 L passes."""
    log_decay, state = driven(u, delta, A, B)
    decay, span = log_decay.exp(), 1
    while span < u.shape[1]:
        back = (0, 0, 0, 0, span, 0)
        state = state + decay * F.pad(state[:, :-span], back)
        decay = decay * F.pad(decay[:, :-span], back, value=1.0)
        span *= 2
    return torch.einsum("bldn,bln->bld", state, C)


def v1_log_space(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Heinsen: cumulative sums of logarithms, positive and negative drive apart."""
    log_decay, drive = driven(u, delta, A, B)
    total = log_decay.cumsum(1)
    parts = [
        (total + torch.logcumsumexp(part.clamp_min(1e-30).log() - total, 1)).exp()
        for part in (drive, -drive)
    ]
    return torch.einsum("bldn,bln->bld", parts[0] - parts[1], C)


def v1_associative(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Torch's own associative scan (a private name of torch)."""
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[0] * y[0], y[0] * x[1] + y[1]

    log_decay, drive = driven(u, delta, A, B)
    _, state = associative_scan(combine, (log_decay.exp(), drive), dim=1, combine_mode="generic")
    return torch.einsum("bldn,bln->bld", state, C)


def v1_ours(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Call what ships."""
    u, delta, B, C = (t.transpose(1, 2) for t in (u, delta, B, C))
    return selective_scan(u, delta, A, B, C)[0].transpose(1, 2)


# ---------------------------------------------------------------------------------------
# Version 2: x (B, L, H, P), dt (B, L, H), A (H,), B and C (B, L, 1, N)


def v2_loop(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Step by step as one writes it down: each step takes its slices of the operands."""
    state, y = torch.zeros(*x.shape[:1], *x.shape[2:], B.shape[-1]), []
    for t in range(x.shape[1]):
        drive = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        state = (dt[:, t] * A).exp()[..., None, None] * state + drive
        y.append((state * C[:, t, :, None]).sum(-1))
    return torch.stack(y, 1)


def v2_tuned_loop(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Step by step with all that can be done at once done before."""
    state, y = torch.zeros(*x.shape[:1], *x.shape[2:], B.shape[-1]), []
    decays = (dt * A).exp()[..., None, None]
    steps = (t.unbind(1) for t in (decays, x * dt[..., None], B, C))
    for decay, driven_t, write, read in zip(*steps, strict=True):
        state = decay * state + driven_t[..., None] * write[:, :, None]
        y.append((state * read[:, :, None]).sum(-1))
    return torch.stack(y, 1)


def v2_minimal(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int = 64) -> Tensor:
    """Do the four einsums of the paper, between chunks too."""
    x, decay = x * dt[..., None], (dt * A).permute(0, 2, 1)
    x, B, C = (t.unflatten(1, (-1, chunk)) for t in (x, B.expand(-1, -1, x.shape[2], -1), C))
    C = C.expand(-1, -1, -1, x.shape[3], -1)
    decay = decay.unflatten(-1, (-1, chunk))  # (B, H, K, T)
    total = decay.cumsum(-1)
    y = torch.einsum("bclhn,bcshn,bhcls,bcshp->bclhp", C, B, segments(decay).exp(), x)
    until = (total[..., -1:] - total).exp()
    states = torch.einsum("bclhn,bhcl,bclhp->bchpn", B, until, x)
    states = torch.cat((torch.zeros_like(states[:, :1]), states), 1)
    between = segments(F.pad(total[..., -1], (1, 0))).exp()
    states = torch.einsum("bhzc,bchpn->bzhpn", between, states)[:, :-1]
    return (y + torch.einsum("bclhn,bchpn,bhcl->bclhp", C, states, total.exp())).flatten(1, 2)


def segments(x: Tensor) -> Tensor:
    """Return sums of x over j < t <= i, at (i, j), minus infinity where j > i."""
    total = x.cumsum(-1)
    later = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool).triu(1)
    return (total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf)


def v2_ours(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Call what ships."""
    return ssd_scan(x, dt, A, B, C)[0]


SCANS: dict[str, Scan] = {
    "Mamba-1 loop": v1_loop,
    "Mamba-1 doubling": v1_doubling,
    "Mamba-1 log-space": v1_log_space,
    "Mamba-1 associative_scan": v1_associative,
    "Mamba-1 ours": v1_ours,
    "Mamba-2 loop": v2_loop,
    "Mamba-2 tuned loop": v2_tuned_loop,
    "Mamba-2 minimal einsums": v2_minimal,
    "Mamba-2 ours": v2_ours,
}
RIVALS = ("Mamba-1 doubling", "Mamba-1 log-space", "Mamba-1 associative_scan")

# ---------------------------------------------------------------------------------------
# Measuring


def operands(name: str, length: int) -> list[Tensor]:
    """Draw operands with gradients."""
    draw = torch.Generator().manual_seed(0)
    step = torch.exp(torch.empty(WINDOWS, length, CHANNELS).uniform_(-6.9, -2.3, generator=draw))
    rows = -torch.arange(1.0, STATE + 1)
    if "Mamba-1" in name:
        values = [torch.randn(step.shape, generator=draw), step, rows.repeat(CHANNELS, 1)]
        maps: tuple[int, ...] = (WINDOWS, length, STATE)
    else:
        heads = CHANNELS // HEAD
        x = torch.randn(WINDOWS, length, heads, HEAD, generator=draw)
        values = [x, step[..., :heads].clone(), rows[:heads].clone()]
        maps = (WINDOWS, length, 1, STATE)
    values += [torch.randn(maps, generator=draw) for _ in range(2)]
    return [value.requires_grad_() for value in values]


clock = time.perf_counter


def once(scan: Scan, values: list[Tensor]) -> tuple[float, float]:
    """Return seconds of forward, and of forward + backward."""
    for value in values:
        value.grad = None
    start = clock()
    y = scan(*values)
    middle = clock()
    y.sum().backward()
    return middle - start, clock() - start


def take_turns(names: list[str], length: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return median milliseconds of forward and of forward + backward, by name."""
    values = {name: operands(name, length) for name in names}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names:
            if sum(both for _, both in found[name]) > ENOUGH_S:
                continue
            seconds = once(SCANS[name], values[name])
            if number or seconds[1] > 1:  # what is fast warms up in the first round
                found[name].append(seconds)
    return {
        name: (
            1e3 * statistics.median(f for f, _ in seconds),
            1e3 * statistics.median(b for _, b in seconds),
        )
        for name, seconds in found.items()
    }


def extra_megabytes(name: str, length: int) -> float:
    """Return the growth of the peak resident set over the operands, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--length", str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def grow(name: str, length: int) -> None:
    """Run forward + backward once after a short warm-up; print megabytes."""
    once(SCANS[name], operands(name, 64))
    values = operands(name, length)
    for value in values:  # gradients are results: they are not counted
        value.grad = torch.zeros_like(value)
    before = peak_megabytes()
    SCANS[name](*values).sum().backward()
    print(json.dumps(peak_megabytes() - before))


def peak_megabytes() -> float:
    """Return the peak of this program; what `getrusage` gives includes that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def check(names: list[str]) -> None:
    """Stop where a formulation is not the recurrence."""
    for name in names:
        values = operands(name, 256)
        expected = SCANS[f"{name[:7]} loop"](*values)
        torch.testing.assert_close(SCANS[name](*values), expected, rtol=1e-3, atol=1e-4)


def compare(length: int, rounds: int) -> None:
    """Print every formulation at one length, and the ratios that matter."""
    names = list(SCANS)
    check(names)
    times = take_turns(names, length, rounds)
    memory = {name: extra_megabytes(name, length) for name in names}
    print(f"\n{WINDOWS} windows, {length} steps, {CHANNELS} channels, state {STATE}, float32")
    print(f"{'formulation':<28}{'fwd ms':>9}{'fwd+bwd ms':>12}{'extra MB':>10}")
    for name in names:
        print(f"{name:<28}{times[name][0]:>9.1f}{times[name][1]:>12.1f}{memory[name]:>10.0f}")
    best = min(RIVALS, key=lambda name: times[name][1])
    least = min(memory[name] for name in RIVALS)
    ours, loop = "Mamba-1 ours", "Mamba-2 loop"
    print(
        f"version 1: {times[best][1] / times[ours][1]:.1f} x the best of the three parallel forms "
        f"({best}), {memory[ours] / memory[best]:.2f} of its memory, "
        f"{memory[ours] / least:.2f} of the least of theirs"
    )
    two = times["Mamba-2 ours"][1]
    print(
        f"version 2: {times[loop][1] / two:.1f} x the loop, "
        f"{times['Mamba-2 tuned loop'][1] / two:.1f} x the tuned loop, "
        f"{times['Mamba-2 minimal einsums'][1] / two:.1f} x the minimal einsums"
    )


def lengthen(rounds: int) -> None:
    """Print how ours grow with length."""
    print(f"\n{'steps':>8}", end="")
    names = [name for name in SCANS if name.endswith("ours")]
    for name in names:
        print(f"{name + ' fwd+bwd ms':>28}{'us a step':>11}{'extra MB':>10}", end="")
    print()
    for length in LENGTHS:
        times = take_turns(names, length, rounds)
        print(f"{length:>8}", end="")
        for name in names:
            ms = times[name][1]
            memory = extra_megabytes(name, length)
            print(f"{ms:>28.1f}{1e3 * ms / length:>11.1f}{memory:>10.0f}", end="")
        print(flush=True)


def main() -> None:
    """Compare at one length, then lengthen ours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cpu", action="store_true", help="time of this process alone, where others are at work"
    )
    parser.add_argument("--memory-of", choices=SCANS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    global clock
    clock = time.process_time if args.cpu else time.perf_counter
    torch.set_num_threads(args.threads)
    if args.memory_of:
        grow(args.memory_of, args.length)
        return
    print(f"torch {torch.__version__}, {args.threads} threads, load {os.getloadavg()[0]:.1f}")
    compare(args.length, args.rounds)
    lengthen(args.rounds)


if __name__ == "__main__":
    main()

"""Attention and Mamba against length: tokens a second, share of the machine, memory, who is ahead.

Stacks of the same width and depth, forward + backward, one sequence of so many tokens a window.
MFU is model FLOPs (6 a weight and token, 12 a pair of tokens and feature in attention; scans not
counted) over what one large matmul of the same type reaches here, measured between them. Memory is
the peak of a step over weights and input: what torch allocated on a GPU, growth of the peak
resident set of a process of its own on a CPU. With mamba_ssm's kernels at hand, its scans are
timed beside ours in plain torch.

    python benchmarks/lengths.py                        small: a CPU, minutes
    python benchmarks/lengths.py --device cuda          width 512, depth 8, up to 32768 tokens
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from neurofm.backbones.mamba import MambaConfig
from neurofm.backbones.transformer import TransformerConfig
from neurofm.nn import selective_scan as version1
from neurofm.nn import ssd as version2
from neurofm.nn.kernels import scan_kernel, ssd_kernel
from neurofm.signals import Grid

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"width": 128, "depth": 2, "lengths": [256, 1024, 4096, 8192], "rounds": 3},
    "cuda": {"width": 512, "depth": 8, "lengths": [2**i for i in range(9, 16)], "rounds": 7},
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STATE, HEAD = 16, 64


def stack(name: str, size: argparse.Namespace) -> nn.Module:
    """Build a backbone."""
    if name == "attention":
        heads = max(1, size.width // HEAD)
        config = TransformerConfig(depth=size.depth, n_heads=heads, attention="full")
        return config.build(size.width).to(size.device)
    mixer: dict[str, Any] = {"name": name}
    mamba = MambaConfig.model_validate({"depth": size.depth, "mixer": mixer})
    return mamba.build(size.width).to(size.device)


STACKS = ("attention", "mamba1", "mamba2")


def tokens(size: argparse.Namespace, length: int) -> Grid:
    """Draw a grid of one site."""
    shape = (size.windows, 1, length, size.width)
    return Grid(
        content=torch.randn(shape, device=size.device),
        place=torch.zeros(size.windows, 1, 1, size.width, device=size.device),
        present=torch.ones(shape[:3], dtype=torch.bool, device=size.device),
        whole=True,
    )


def steps_of(name: str, size: argparse.Namespace, length: int) -> tuple[nn.Module, Callable]:
    """Return a stack and its training step."""
    torch.manual_seed(0)
    module, grid = stack(name, size), tokens(size, length)
    dtype = DTYPES[size.dtype]

    def step() -> None:
        module.zero_grad(set_to_none=True)
        with torch.autocast(size.device, dtype, enabled=dtype != torch.float32):
            out = module(grid).content
        out.float().square().mean().backward()

    return module, step


def flops(module: nn.Module, name: str, size: argparse.Namespace, length: int) -> float:
    """Return model FLOPs of forward and backward."""
    n_tokens = size.windows * length
    weights = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
    pairs = 12.0 * n_tokens * length * size.width * size.depth if name == "attention" else 0.0
    return 6.0 * n_tokens * weights + pairs


def wait(device: str) -> None:
    """Wait for what is queued."""
    if device == "cuda":
        torch.cuda.synchronize()


def median_s(step: Callable[[], object], size: argparse.Namespace) -> float:
    """Return the median time of a step after one to warm up."""
    times = []
    for _ in range(size.rounds + 1):
        wait(size.device)
        start = time.perf_counter()
        step()
        wait(size.device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def ceiling(size: argparse.Namespace) -> float:
    """Return FLOP/s of one large matmul of random numbers."""
    n = 8192 if size.device == "cuda" else 1024
    a, b = (torch.randn(n, n, device=size.device, dtype=DTYPES[size.dtype]) for _ in range(2))
    return 2 * n**3 / median_s(lambda: a @ b, size)


def megabytes(name: str, size: argparse.Namespace, length: int) -> float:
    """Return the peak of one step over weights and input."""
    if size.device == "cuda":
        _, step = steps_of(name, size, length)
        wait(size.device)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        wait(size.device)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    command = [
        sys.executable,
        __file__,
        *sys.argv[1:],
        "--memory-of",
        name,
        size.dtype,
        str(length),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def grow(name: str, size: argparse.Namespace, length: int) -> None:
    """Run a short step, then one of full length; print by how much the peak grew."""
    steps_of(name, size, 32)[1]()
    _, step = steps_of(name, size, length)
    before = resident_peak()
    step()
    print(json.dumps(resident_peak() - before))


def resident_peak() -> float:
    """Return the peak resident set of this process in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def crossover(lengths: list[int], slow: list[float], fast: list[float]) -> str:
    """Say from which length on the first takes longer, by a line between logarithms."""
    ahead = [math.log(a / b) for a, b in zip(slow, fast, strict=True)]
    if ahead[0] > 0:
        return f"below {lengths[0]} tokens"
    for i in range(1, len(lengths)):
        if ahead[i] > 0:
            share = -ahead[i - 1] / (ahead[i] - ahead[i - 1])
            low, high = math.log(lengths[i - 1]), math.log(lengths[i])
            return f"about {math.exp(low + share * (high - low)):.0f} tokens"
    return f"beyond {lengths[-1]} tokens"


def compare(size: argparse.Namespace) -> None:
    """Print a row a length, and where Mamba overtakes attention."""
    print(f"{'tokens':>8}  {'':10}{'ms':>10}{'tokens/s':>12}{'MFU':>7}{'peak MB':>10}")
    times: dict[str, list[float]] = {name: [] for name in STACKS}
    for length in size.lengths:
        for name in STACKS:
            best = ceiling(size)
            module, step = steps_of(name, size, length)
            seconds = median_s(step, size)
            times[name].append(seconds)
            share = flops(module, name, size, length) / seconds / best
            rate = size.windows * length / seconds
            del module, step
            print(
                f"{length:>8}  {name:10}{1e3 * seconds:>10.1f}{rate:>12,.0f}"
                f"{share:>7.0%}{megabytes(name, size, length):>10.0f}",
                flush=True,
            )
    for name in STACKS[1:]:
        where = crossover(size.lengths, times["attention"], times[name])
        print(f"{name} is faster than attention from: {where}")


def operands(size: argparse.Namespace, length: int) -> dict[str, list[Tensor]]:
    """Draw what the scans of one block take."""
    inner = 2 * size.width
    n_heads = inner // HEAD

    def draw(*shape: int) -> Tensor:
        return torch.randn(size.windows, *shape, device=size.device)

    rows = torch.arange(1.0, STATE + 1, device=size.device)
    one = [draw(inner, length), draw(inner, length).sigmoid() / 10, -rows.repeat(inner, 1)]
    two = [
        draw(length, n_heads, HEAD),
        draw(length, n_heads).sigmoid() / 10,
        -rows[:1].repeat(n_heads),
    ]
    one += [draw(STATE, length) for _ in range(2)]
    two += [draw(length, 1, STATE) for _ in range(2)]
    return {"mamba1": one, "mamba2": two}


def scan_rows(size: argparse.Namespace, length: int) -> None:
    """Print our scans in plain torch beside mamba_ssm's kernels, forward + backward."""
    device = torch.device(size.device)
    if scan_kernel(device) is None or ssd_kernel(device) is None:
        print("mamba_ssm's kernels: not here (they need a GPU and the extra 'mamba')")
        return
    scans: dict[str, Callable[..., Any]] = {
        "mamba1": version1.selective_scan,
        "mamba2": partial(version2.ssd_scan, chunk_size=256),
    }
    found = operands(size, length)
    for name, scan in scans.items():
        values = [value.requires_grad_() for value in found[name]]
        by_kernel = median_s(lambda s=scan, v=values: s(*v)[0].sum().backward(), size)
        with (
            mock.patch.object(version1, "scan_kernel", lambda device: None),
            mock.patch.object(version2, "ssd_kernel", lambda device: None),
        ):
            plain = median_s(lambda s=scan, v=values: s(*v)[0].sum().backward(), size)
        print(
            f"{name} scan, {length} steps: {1e3 * plain:.1f} ms in torch, "
            f"{1e3 * by_kernel:.1f} ms by mamba_ssm, {plain / by_kernel:.1f} x"
        )


def parse() -> argparse.Namespace:
    """Read the command line; what is not given depends on the device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=SIZES, default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", help="float32; on a GPU bfloat16 too")
    parser.add_argument("--lengths", type=int, nargs="+")
    parser.add_argument("--width", type=int, help="a multiple of 64")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    size = parser.parse_args()
    if size.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; leave it out to run small on the CPU")
    for name, value in SIZES[size.device].items():
        if getattr(size, name) is None:
            setattr(size, name, value)
    if size.width % HEAD:
        parser.error(f"--width {size.width}: heads have {HEAD} features, so take a multiple of it")
    size.dtypes = size.dtype or (list(DTYPES) if size.device == "cuda" else ["float32"])
    torch.set_num_threads(size.threads)
    return size


def main() -> None:
    """Print a table a number type."""
    size = parse()
    if size.memory_of:
        name, size.dtype, length = size.memory_of
        grow(name, size, int(length))
        return
    where = torch.cuda.get_device_name() if size.device == "cuda" else f"{size.threads} threads"
    for dtype in size.dtypes:
        size.dtype = dtype
        print(
            f"{size.device} ({where}), {size.dtype}, width {size.width}, depth {size.depth}, "
            f"{size.windows} windows, torch {torch.__version__}"
        )
        compare(size)
    scan_rows(size, size.lengths[-1])


if __name__ == "__main__":
    main()

"""Windows of different channel counts in one batch: padding masked against padding left out.

The encoder, its weights and its windows are the same. Each round runs both, forward and backward,
the order changing from round to round; medians are of rounds, and the ratio is the median of the
rounds' ratios. With one thread the clock is that of the process.

    python benchmarks/packing.py
    python benchmarks/packing.py --montages 19 32 64 128 --batch 16 --rounds 15
    python benchmarks/packing.py --device cuda --width 512 --depth 12 --batch 64 --bfloat16
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import get_args

import torch

from neurofm.backbones.packed import encode_packed
from neurofm.backbones.table import BACKBONES
from neurofm.nn.packed_kernels import PackName
from neurofm.signals import Grid

KINDS = {
    "transformer, full": {"name": "transformer", "attention": "full"},
    "transformer, criss_cross": {"name": "transformer", "attention": "criss_cross"},
    "mamba, site_within_time": {"name": "mamba", "scan": "site_within_time"},
}


def mixed_grid(options: argparse.Namespace) -> Grid:
    """Return windows of each montage in turn, padded to the widest."""
    draw = torch.Generator().manual_seed(0)
    shape = (options.batch, max(options.montages), options.patches)
    present = torch.zeros(shape, dtype=torch.bool)
    for window in range(options.batch):
        present[window, : options.montages[window % len(options.montages)]] = True
    content = torch.randn(*shape, options.width, generator=draw)
    return Grid(
        content=content * present[..., None],
        place=torch.randn(*shape[:2], 1, options.width, generator=draw),
        present=present,
        position=0.06 * torch.randn(*shape[:2], 3, generator=draw),
        located=torch.ones(shape[:2], dtype=torch.bool),
    ).to(options.device)


def seconds(run: Callable[[], Grid], parameters: list[torch.Tensor]) -> float:
    """Return how long a pass forward and backward takes."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    on_gpu = parameters[0].is_cuda
    clock = time.perf_counter if on_gpu else clock
    start = clock()
    loss = run().content.square().mean()
    torch.autograd.grad(loss, parameters, allow_unused=True)
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    """Print one row a backbone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--montages", type=int, nargs="+", default=[19, 32, 64])
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--patches", type=int, default=10)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--by", choices=get_args(PackName), default="auto")
    parser.add_argument("--bfloat16", action="store_true", help="weights and tokens of this type")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch finds no such device here")
    grid = mixed_grid(options)
    if options.bfloat16:
        grid = grid.evolve(content=grid.content.bfloat16(), place=grid.place.bfloat16())
    share = 1 - grid.present.float().mean()
    print(f"{torch.get_num_threads()} threads, {options.device}; {share:.0%} of tokens are padding")
    print("| backbone | masked ms | packed ms | ratio | largest difference |")
    print("|---|--:|--:|--:|--:|")
    for title, values in KINDS.items():
        torch.manual_seed(0)
        config = BACKBONES[values["name"]].model_validate({**values, "depth": options.depth})
        backbone = config.build(options.width).to(options.device)
        backbone = backbone.bfloat16() if options.bfloat16 else backbone
        parameters = list(backbone.parameters())
        ways = [lambda b=backbone: b(grid), lambda b=backbone: encode_packed(b, grid, options.by)]
        with torch.no_grad():
            gap = (ways[0]().content - ways[1]().content).abs().max()
        taken: list[list[float]] = [[], []]
        for way in ways:
            seconds(way, parameters)
        for round_ in range(options.rounds):
            for which in (0, 1) if round_ % 2 else (1, 0):
                taken[which].append(seconds(ways[which], parameters))
        ratio = statistics.median(a / b for a, b in zip(*taken, strict=True))
        masked, packed = (1e3 * statistics.median(t) for t in taken)
        print(f"| {title} | {masked:.0f} | {packed:.0f} | {ratio:.2f} | {gap:.1e} |")


if __name__ == "__main__":
    main()

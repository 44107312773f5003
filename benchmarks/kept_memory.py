"""What it gives that a run keeps the memory its steps free, and what it costs.

The same training steps (forward, backward, AdamW) in a process that keeps memory
(`neurofm.training.processor.kept_memory`, as every run does) and in one that does not: published
encoders over windows of one montage, and the project's own over windows whose number of channels is
drawn step by step, the hardest case for memory that is kept.

    python benchmarks/kept_memory.py
    python benchmarks/kept_memory.py --windows 4 --steps 20

Printed are the median time of a step, the pages of 4 kB it asked the system for, and the most
memory the process held. What is best is known: no page asked for, and no more memory.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import resource
import statistics
import time
from collections.abc import Callable

import torch
from encoder_step import CONTRACT, N_CHANNELS, make_batch
from torch import Tensor, nn

from neurofm.encoder import EncoderConfig
from neurofm.published.biot import BIOTConfig
from neurofm.published.labram import LaBraMConfig
from neurofm.published.luna import LUNAConfig
from neurofm.training.processor import kept_memory

MONTAGES = (19, 32, 64, 102, 128)
DEPTH, WARM_UP = 4, 4
Trained = tuple[nn.Module, Callable[[], Tensor]]
Row = tuple[float, float, float]


def biot(n_windows: int) -> Trained:
    """BIOT."""
    model = BIOTConfig(n_names=N_CHANNELS, depth=DEPTH, n_out=2).build()
    x = torch.randn(n_windows, N_CHANNELS, CONTRACT.n_times)
    return model, lambda: model(x, torch.arange(N_CHANNELS))


def labram(n_windows: int) -> Trained:
    """LaBraM."""
    model = LaBraMConfig(depth=DEPTH, n_out=2).build()
    x = torch.randn(n_windows, N_CHANNELS, 10, 200)
    return model, lambda: model(x, torch.arange(1 + N_CHANNELS))


def luna(n_windows: int) -> Trained:
    """LUNA."""
    model = LUNAConfig(depth=DEPTH, n_classes=2).build()
    x = torch.randn(n_windows, N_CHANNELS, CONTRACT.n_times)
    where = 0.1 * torch.randn(n_windows, N_CHANNELS, 3)
    return model, lambda: model(x, where)


def own(n_windows: int) -> Trained:
    """Build a transformer over patches, given another montage each time."""
    backbone = {"name": "transformer", "depth": DEPTH, "n_heads": 4}
    config = EncoderConfig.model_validate({"width": 128, "backbone": backbone})
    encoder, draw = config.build(CONTRACT), random.Random(0)

    def forward() -> Tensor:
        batch = make_batch(n_windows, "cpu", draw.choice(MONTAGES))
        return encoder(batch).content

    return encoder, forward


MODELS = {"BIOT": biot, "LaBraM": labram, "LUNA": luna, "own, mixed montages": own}


def train(name: str, n_windows: int, n_steps: int, keeps: bool) -> Row:
    """Return milliseconds and pages of a step, and megabytes at most."""
    torch.manual_seed(0)
    took, pages = [], []
    with kept_memory() if keeps else contextlib.nullcontext():
        model, forward = MODELS[name](n_windows)
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(n_steps + WARM_UP):
            before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            optimizer.zero_grad()
            forward().square().mean().backward()
            optimizer.step()
            took.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_SELF)
            pages.append(after.ru_minflt - before.ru_minflt)
    middle = statistics.median(took[WARM_UP:]), statistics.mean(pages[WARM_UP:])
    return 1e3 * middle[0], middle[1], after.ru_maxrss / 1024


def main() -> None:
    """Print a row a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{asked.windows} windows, {asked.steps} steps, {torch.get_num_threads()} threads")
    head = f"{'ms a step':>12}{'pages':>10}{'MB':>7}"
    print(f"{'':20}{head}  given back{head}  kept, times faster")
    for name in MODELS:
        text = f"{name:20}"
        rows = []
        for keeps in (False, True):
            with context.Pool(1) as one:
                rows.append(one.apply(train, (name, asked.windows, asked.steps, keeps)))
            ms, pages, most = rows[-1]
            text += f"{ms:12.1f}{pages:10.0f}{most:7.0f}" + " " * 12
        print(f"{text[:-6]}{rows[0][0] / rows[1][0]:.2f}", flush=True)


if __name__ == "__main__":
    main()

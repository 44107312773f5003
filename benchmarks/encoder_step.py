"""How fast an encoder trains on this machine, beside what its matmuls could reach.

Forward and backward of a masked batch, 64 channels x 10 s in patches of 1 s, depth 4. The
ceiling is one large matmul of the same type measured between the encoders, so that a busy
machine slows both alike.

    python benchmarks/encoder_step.py            # CPU, 2 threads, float32
    python benchmarks/encoder_step.py --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from neurofm.contract import SignalContract
from neurofm.encoder import Encoder, EncoderConfig
from neurofm.signals import Batch
from neurofm.training.processor import processor

CONTRACT = SignalContract(sfreq=200, band_hz=(0.5, 75), window_s=10)
N_CHANNELS = 64


def make_batch(n_windows: int, device: str, n_channels: int = N_CHANNELS) -> Batch:
    """Random windows of one montage, nothing absent."""
    shape = (n_windows, n_channels)
    yes = torch.ones(shape, dtype=torch.bool)
    return Batch(
        signal=torch.randn(*shape, CONTRACT.n_times),
        position=0.06 * torch.randn(*shape, 3),
        orientation=torch.zeros(*shape, 3),
        kind=torch.zeros(shape, dtype=torch.int64),
        located=yes,
        oriented=~yes,
        present=yes,
        sfreq=CONTRACT.sfreq,
    ).to(device)


def model_flops(encoder: Encoder, n_windows: int, n_patches: int) -> float:
    """Multiplications and additions of forward and backward, recomputation not counted.

    A weight costs two operations a token forward and four backward; attention costs four a
    pair of tokens and feature forward, and twice that backward.
    """
    tokens = n_windows * N_CHANNELS * n_patches
    weights = sum(
        m.weight.numel() for m in encoder.backbone.modules() if isinstance(m, torch.nn.Linear)
    )
    weights += encoder.tokenizer.patch_len * encoder.width
    backbone = encoder.config.backbone
    keys = N_CHANNELS * n_patches
    if backbone.attention == "criss_cross":
        keys = (N_CHANNELS + n_patches) / 2  # each half of the heads sees one axis
    return 6.0 * tokens * weights + 12.0 * tokens * keys * encoder.width * backbone.depth


def median_s(step: Callable[[], object], repeats: int, device: str) -> float:
    """Median time of a step after three to warm up."""
    times = []
    for _ in range(repeats + 3):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def matmul_ceiling(device: str, dtype: torch.dtype, repeats: int) -> float:
    """GFLOP/s of one large matmul on random data."""
    n = 8192 if device == "cuda" else 1536
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / median_s(lambda: a @ b, repeats, device) / 1e9


def time_encoder(
    width: int, attention: str, n_windows: int, device: str, dtype: torch.dtype, repeats: int
) -> tuple[float, float]:
    """Return tokens/s and GFLOP/s of forward and backward."""
    config = EncoderConfig.model_validate(
        {
            "width": width,
            "tokenizer": {"name": "linear_patch", "patch_s": 1.0},
            "backbone": {"name": "transformer", "depth": 4, "n_heads": 4, "attention": attention},
        }
    )
    encoder = config.build(CONTRACT).to(device)
    batch = make_batch(n_windows, device)
    n_patches = encoder.tokenizer.n_patches(CONTRACT.n_times)
    hide = torch.rand(n_windows, N_CHANNELS, n_patches, device=device) < 0.5

    def step() -> None:
        encoder.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = encoder(batch, hide).content.float().square().mean()
        loss.backward()

    seconds = median_s(step, repeats, device)
    tokens = n_windows * N_CHANNELS * n_patches
    return tokens / seconds, model_flops(encoder, n_windows, n_patches) / seconds / 1e9


def main() -> None:
    """Read what to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--windows", type=int, help="batch size: 8 on a CPU, 128 on a GPU")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 200])
    args = parser.parse_args()
    with processor(args.threads):  # as every run has it
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Print one row an encoder."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    n_windows = args.windows or (128 if args.device == "cuda" else 8)
    print(f"{args.device}, {dtype}, {args.threads} threads, torch {torch.__version__}")
    print(f"{n_windows} windows of {N_CHANNELS} channels x {CONTRACT.window_s:g} s")
    print("width attention      tokens/s   GFLOP/s   ceiling  of it")
    for width in args.widths:
        for attention in ("full", "criss_cross"):
            ceiling = matmul_ceiling(args.device, dtype, args.repeats)
            tokens, found = time_encoder(
                width, attention, n_windows, args.device, dtype, args.repeats
            )
            print(
                f"{width:>5} {attention:<12} {tokens:>10,.0f} {found:>9,.1f} {ceiling:>9,.1f} "
                f"{found / ceiling:>6.0%}"
            )


if __name__ == "__main__":
    main()

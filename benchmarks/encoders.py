"""Published encoders as built here, beside braindecode's of the same size.

Width, depth, heads, windows and number type are the same; dropout is off in both, the forward pass
alone is that of evaluation. Each has a process of its own, set up as it would be in use: ours keeps
what it frees, as every run of neurofm does (`neurofm.training.processor`), theirs is as braindecode
leaves it; `--keep both` or `--keep neither` treats them alike. Each round runs both, the order
changing from round to round, and medians are of rounds; the ratio is the median of the rounds'
ratios, which a busy machine spoils less; with one thread the clock is that of the process, which it
hardly spoils at all.

"by hand" says how braindecode (1.8) writes attention: as matrix products and a softmax (Labram; of
LUNA the blocks over time), as linear attention of matrix products (BIOT, from another package; no
fused kernel exists), or through torch's fused kernel (CBraMod, EEGPT), as all of ours but BIOT.

`--products` says instead how long the products of matrices in a training step take (and fused
attention and convolutions, which are made of them), of ours and of theirs: what is left is all that
can be saved where both need the same products; and how many operations a step is.

    python benchmarks/encoders.py --batch 1 4 16
    python benchmarks/encoders.py --batch 1 4 16 --keep both
    python benchmarks/encoders.py --channels 64 --seconds 10 --depth 12 --rounds 15
    python benchmarks/encoders.py --channels 19 64 128 --seconds 2 10 30 --only LUNA
    OMP_NUM_THREADS=1 python benchmarks/encoders.py
    OMP_NUM_THREADS=1 python benchmarks/encoders.py --products
    python benchmarks/encoders.py --batch 4 --compile --only LUNA BIOT
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from _peers import mend_torchaudio
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neurofm.errors import ConfigError
from neurofm.published.biot import BIOTConfig
from neurofm.published.cbramod import CBraModConfig
from neurofm.published.eegpt import EEGPTConfig, EEGPTEncoder
from neurofm.published.labram import LaBraMConfig
from neurofm.published.luna import LUNAConfig
from neurofm.training.processor import kept_memory

N_OUT = 4
CLOCK = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addmv", "convolution", "scaled_dot_product")
Pair = tuple[nn.Module, Callable[[], Tensor], nn.Module, Callable[[], Tensor]]


def montage(n_channels: int) -> list[dict[str, Any]]:
    """Return so many electrodes of the 10-05 system, as braindecode takes them."""
    import mne

    template = mne.channels.make_standard_montage("standard_1005")
    names = [name for name in template.ch_names if name not in ("T3", "T4", "T5", "T6")]
    info = mne.create_info(names[:n_channels], 200.0, "eeg")
    info.set_montage(template)
    return list(info["chs"])


def labram(size: argparse.Namespace, models: Any) -> Pair:
    """Full attention over all patches, in braindecode written by hand."""
    x = torch.randn(size.batch, size.channels, size.seconds * 200)
    peer = models.Labram(
        n_outputs=N_OUT, n_chans=size.channels, n_times=x.shape[-1], sfreq=200,
        num_layers=size.depth, use_mean_pooling=True,
    )  # fmt: skip
    electrodes = list(models.labram.LABRAM_CHANNEL_ORDER[: size.channels])
    ours = LaBraMConfig(depth=size.depth, n_out=N_OUT).build()
    names = torch.arange(1 + size.channels)
    patches = x.unflatten(-1, (-1, 200))
    return ours, lambda: ours(patches, names), peer, lambda: peer(x, ch_names=electrodes)


def cbramod(size: argparse.Namespace, models: Any) -> Pair:
    """Criss-cross attention."""
    x = torch.randn(size.batch, size.channels, size.seconds * 200)
    peer = models.CBraMod(
        n_outputs=N_OUT, n_chans=size.channels, n_times=x.shape[-1], sfreq=200,
        n_layer=size.depth, drop_prob=0.0, return_encoder_output=True,
    )  # fmt: skip
    ours = CBraModConfig(depth=size.depth).build()
    patches = x.unflatten(-1, (-1, 200))
    return ours, lambda: ours.encode(patches), peer, lambda: peer(x)


def biot(size: argparse.Namespace, models: Any) -> Pair:
    """Spectra under linear attention."""
    x = torch.randn(size.batch, size.channels, size.seconds * 200)
    peer = models.BIOT(
        n_outputs=N_OUT, n_chans=size.channels, n_times=x.shape[-1], sfreq=200,
        num_layers=size.depth, drop_prob=0.0, att_drop_prob=0.0, att_layer_drop_prob=0.0,
    )  # fmt: skip
    ours = BIOTConfig(n_names=size.channels, depth=size.depth, n_out=N_OUT).build()
    names = torch.arange(size.channels)
    return ours, lambda: ours(x, names), peer, lambda: peer(x)


def eegpt(size: argparse.Namespace, models: Any) -> Pair:
    """Attention across the channels of each patch, with summary tokens."""
    n_channels = min(size.channels, 58)
    x = torch.randn(size.batch, n_channels, size.seconds * 256)
    peer = models.EEGPT(
        n_outputs=N_OUT, n_chans=n_channels, n_times=x.shape[-1], sfreq=256, depth=size.depth,
        patch_stride=64, chs_info=montage(n_channels), chan_proj_type="none",
        return_encoder_output=True,
    )  # fmt: skip
    ours = EEGPTEncoder(EEGPTConfig(depth=size.depth))
    names = torch.arange(n_channels)
    patches = x.unflatten(-1, (-1, 64)).transpose(1, 2)
    return ours, lambda: ours(patches, names), peer, lambda: peer(x)


def luna(size: argparse.Namespace, models: Any) -> Pair:
    """Gather channels by queries, then a transformer over time, in braindecode by hand."""
    x = torch.randn(size.batch, size.channels, size.seconds * 200)
    where = 0.1 * torch.randn(size.batch, size.channels, 3)
    peer = models.LUNA(
        n_outputs=N_OUT, n_chans=size.channels, n_times=x.shape[-1], sfreq=200, depth=size.depth
    )
    ours = LUNAConfig(depth=size.depth, n_classes=N_OUT).build()
    return ours, lambda: ours(x, where), peer, lambda: peer(x, channel_locations=where)


BY_HAND = {"Labram": "yes", "CBraMod": "no", "BIOT": "linear", "EEGPT": "no", "LUNA": "in part"}
PAIRS = {"Labram": labram, "CBraMod": cbramod, "BIOT": biot, "EEGPT": eegpt, "LUNA": luna}


def without_dropout(module: nn.Module) -> None:
    """Switch off what the constructor leaves on."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0


def seconds(module: nn.Module, forward: Callable[[], Tensor], *, backward: bool) -> float:
    """Time one step."""
    module.train(backward).zero_grad(set_to_none=True)
    start = CLOCK()
    if backward:
        forward().square().mean().backward()
    else:
        with torch.no_grad():
            forward()
    return CLOCK() - start


def awake(module: nn.Module, forward: Callable[[], Tensor], *, backward: bool) -> float:
    """Time a step, and a short one not as the first after a pause."""
    took = seconds(module, forward, backward=backward)
    if took > 0.1:
        return took
    return statistics.median(seconds(module, forward, backward=backward) for _ in range(3))


class Products(TorchDispatchMode):
    """Clock of what multiplies matrices, and count of all operations."""

    spent, calls = 0.0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Run an operation, and count its time if it is a product."""
        start = CLOCK()
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        if func.overloadpacket.__name__.lstrip("_").startswith(PRODUCTS):
            self.spent += CLOCK() - start
        return out


def split(module: nn.Module, forward: Callable[[], Tensor], rounds: int) -> tuple[float, ...]:
    """Return seconds of products and of the rest of a training step, and its operations."""
    whole, parts = [], []
    for i in range(2 * rounds + 2):
        if i % 2:
            whole.append(seconds(module, forward, backward=True))
        else:
            with Products() as clock:
                seconds(module, forward, backward=True)
            parts.append(clock.spent)
    part = statistics.median(parts[1:])
    return part, statistics.median(whole[1:]) - part, clock.calls


# ---------------------------------------------------------------------------------------
# A process for each side


KEEPS = {"ours": (True, False), "both": (True, True), "neither": (False, False)}


def serve(pipe: Connection, side: int, keeps: bool) -> None:
    """Build and time what is asked for, of ours (0) or of theirs (1)."""
    with kept_memory() if keeps else contextlib.nullcontext():
        answer(pipe, side)


def answer(pipe: Connection, side: int) -> None:
    """Do one job after the other until there is none."""
    warnings.simplefilter("ignore")
    mend_torchaudio()
    from braindecode import models

    while (job := pipe.recv()) is not None:
        what, *details = job
        if what == "build":
            name, size = details
            torch.manual_seed(0)
            built = PAIRS[name](size, models)
            module, forward = built[:2] if side == 0 else built[2:]
            without_dropout(module)
            if size.compile:
                module.compile()
            try:
                for warm_up in range(6):
                    seconds(module, forward, backward=warm_up % 2 == 0)
                pipe.send("")
            except ConfigError as error:
                pipe.send(error.problem)
        elif what == "step":
            pipe.send(awake(module, forward, backward=details[0]))
        else:
            pipe.send(split(module, forward, details[0]))


class Side:
    """A process that has one side's models."""

    def __init__(self, side: int, keeps: bool):
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=serve, args=(end, side, keeps), daemon=True)
        self.process.start()

    def ask(self, *job: Any) -> Any:
        """Have a job done, after threads of the other side have gone to sleep."""
        time.sleep(0.02)
        self.pipe.send(job)
        return self.pipe.recv()


def timed(ours: Side, theirs: Side, rounds: int) -> str:
    """Return forward, and forward + backward, of ours and theirs; a first round does not count."""
    row = ""
    for backward in (False, True):
        times: dict[Side, list[float]] = {ours: [], theirs: []}
        for i in range(rounds + 1):
            for side in (ours, theirs) if i % 2 else (theirs, ours):
                times[side].append(side.ask("step", backward))
        medians = [1e3 * statistics.median(times[side][1:]) for side in (ours, theirs)]
        pairs = zip(times[ours][1:], times[theirs][1:], strict=True)
        ratio = statistics.median(b / a for a, b in pairs)
        row += f"{medians[0]:10.1f}{medians[1]:10.1f}{ratio:8.2f}"
    return row


def products(ours: Side, theirs: Side, rounds: int) -> str:
    """Return products, rest and operations of both."""
    row = ""
    for side in (ours, theirs):
        part, rest, calls = side.ask("split", rounds)
        row += f"{1e3 * part:10.1f}{1e3 * rest:10.1f}{calls:8}"
    return row


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[64])
    parser.add_argument("--seconds", type=int, nargs="+", default=[10])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--keep", choices=list(KEEPS), default="ours", help="who keeps memory")
    parser.add_argument("--products", action="store_true")
    parser.add_argument("--compile", action="store_true", help="both by torch.compile; minutes")
    asked = parser.parse_args()
    head = ("ours", "theirs", "ratio") * 2
    title = "forward ms", "forward + backward ms"
    if asked.products:
        head, title = ("products", "rest", "calls") * 2, ("ours, ms", "theirs, ms")
    print(
        f"depth {asked.depth}, {torch.get_num_threads()} threads, float32, {asked.rounds} rounds; "
        f"memory is kept by {asked.keep}"
    )
    print(f"{'':45}{title[0]:>28}{title[1]:>28}")
    print(
        f"{'windows':>8}{'channels':>9}{'s':>4}  {'':9}{'theirs by hand':>14}"
        + "".join(f"{name:>{8 if i % 3 == 2 else 10}}" for i, name in enumerate(head))
    )
    sides = [Side(i, keeps) for i, keeps in enumerate(KEEPS[asked.keep])]
    sizes = itertools.product(asked.batch, asked.channels, asked.seconds, asked.only)
    for batch, channels, length, name in sizes:
        one = {"batch": batch, "channels": channels, "seconds": length}
        size = argparse.Namespace(**{**vars(asked), **one})
        refused = [side.ask("build", name, size) for side in sides]
        if any(refused):  # LaBraM's table of times ends at 16 s
            row = "  " + refused[0] + refused[1]
        else:
            row = (products if asked.products else timed)(*sides, asked.rounds)
        print(f"{batch:8}{channels:9}{length:4}  {name:9}{BY_HAND[name]:>14}{row}", flush=True)
    for side in sides:
        side.pipe.send(None)


if __name__ == "__main__":
    main()

"""Published encoders as built here, beside braindecode's of the same size.

Width, depth, heads, windows and number type are the same; dropout is off in both, the forward pass
alone is that of evaluation. Each round runs both, the order changing from round to round, and
medians are of rounds; the ratio is the median of the rounds' ratios, which a busy machine spoils
less; with one thread the clock is that of the process, which it hardly spoils at all.

"by hand" says how braindecode (1.8) writes attention: as matrix products and a softmax (Labram; of
LUNA the blocks over time), as linear attention of matrix products (BIOT, from another package; no
fused kernel exists), or through torch's fused kernel (CBraMod, EEGPT), as all of ours but BIOT.

    python benchmarks/encoders.py
    python benchmarks/encoders.py --channels 64 --seconds 10 --depth 12 --rounds 15
    OMP_NUM_THREADS=1 python benchmarks/encoders.py
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from _peers import mend_torchaudio
from torch import Tensor, nn

from neurofm.published.biot import BIOTConfig
from neurofm.published.cbramod import CBraModConfig
from neurofm.published.eegpt import EEGPTConfig, EEGPTEncoder
from neurofm.published.labram import LaBraMConfig
from neurofm.published.luna import LUNAConfig

N_OUT = 4
CLOCK = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
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


def interleaved(pair: Pair, rounds: int, *, backward: bool) -> tuple[list[float], list[float]]:
    """Time both of a pair in every round, after one round that does not count."""
    ours, run, peer, run_peer = pair
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        order = [(0, ours, run), (1, peer, run_peer)]
        for which, module, forward in order[:: 1 if i % 2 else -1]:
            times[which].append(seconds(module, forward, backward=backward))
    return times[0][1:], times[1][1:]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    size = parser.parse_args()
    mend_torchaudio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from braindecode import models
    print(
        f"{size.channels} channels x {size.seconds} s, batch {size.batch}, depth {size.depth}, "
        f"{torch.get_num_threads()} threads, float32, {size.rounds} rounds"
    )
    print(
        f"{'':10}{'theirs':>9}{'parameters':>22}{'forward ms':>20}"
        f"{'':>8}{'forward + backward ms':>26}"
    )
    print(
        f"{'':10}{'by hand':>9}{'ours':>11}{'theirs':>11}"
        + f"{'ours':>10}{'theirs':>10}{'ratio':>8}" * 2
    )
    for name in size.only:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pair = PAIRS[name](size, models)
            row = f"{name:10}{BY_HAND[name]:>9}"
            for module in (pair[0], pair[2]):
                without_dropout(module)
                row += f"{sum(p.numel() for p in module.parameters()):11,}"
            for backward in (False, True):
                ours, theirs = interleaved(pair, size.rounds, backward=backward)
                ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
                row += (
                    f"{1e3 * statistics.median(ours):10.1f}{1e3 * statistics.median(theirs):10.1f}"
                )
                row += f"{ratio:8.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()

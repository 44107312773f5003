"""Pretraining on codes: computed for every batch against read from the store.

A store of white noise, a tokenizer with fresh weights (what it has learnt costs no time), and the
same run of code prediction twice: with a discrete tokenizer nothing is left to encode once its
codes are stored. The losses must be equal to the last digit.

    python benchmarks/stored_codes.py
    python benchmarks/stored_codes.py --steps 20 --channels 64
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.pretrain.code_prediction import CodePredictionConfig
from neurofm.pretrain.run import PretrainConfig, _Data, _encoder
from neurofm.sensors import Knowledge, SensorKind, Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.writer import commit, create_store, write_recording
from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.codes import compute_codes
from neurofm.tokenizers.saved import save_tokenizer
from neurofm.training.seeding import step_generator

CONTRACT = SignalContract(sfreq=200, band_hz=(0.5, 70.0), window_s=10.0)
TOKENIZER = {"patch_s": 1.0, "ratios": (10, 5), "n_filters": 16, "inner": 128}
MINUTES, RECORDINGS, WINDOWS = 3, 2, 4


def make_store(path: Path, n_channels: int) -> None:
    """Write some recordings of noise."""
    create_store(path, CONTRACT)
    rows = []
    for number in range(RECORDINGS):
        draw = np.random.default_rng(number)
        sensors = Sensors(
            ch_names=tuple(f"E{c}" for c in range(n_channels)),
            kind=np.full(n_channels, SensorKind.EEG, np.int8),
            position=draw.normal(scale=0.1, size=(n_channels, 3)).astype(np.float32),
            orientation=np.zeros((n_channels, 3), np.float32),
            known=np.full(n_channels, Knowledge.MEASURED, np.int8),
            oriented=np.zeros(n_channels, bool),
            region=(None,) * n_channels,
        )
        signal = draw.normal(scale=1e-5, size=(n_channels, MINUTES * 60 * 200))
        recording = Recording(
            signal=signal.astype(np.float32),
            sfreq=200.0,
            sensors=sensors,
            entities=Entities(dataset="noise", subject=str(number)),
        )
        rows.append(write_recording(path, recording, quality={}, provenance={}))
    commit(path, rows)


def train(config: PretrainConfig) -> tuple[list[float], float]:
    """Return the losses of a run, and seconds of a step (the median)."""
    data = _Data(config)
    torch.manual_seed(0)
    objective = CodePredictionConfig().build(_encoder(config, data), data.contract)
    optimiser, _ = config.optim.build(objective, config.steps)
    losses, seconds = [], []
    begin = time.perf_counter()
    for step, batch in enumerate(data.loader(config, first_step=0)):
        optimiser.zero_grad()
        loss = objective(batch.to("cpu"), step_generator(0, step, "mask")).total
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    return losses, float(np.median(seconds))


def size(path: Path, array: str) -> int:
    """Return the bytes of all arrays of one name."""
    return sum(f.stat().st_size for f in path.glob(f"recordings/*/{array}/c/**/*") if f.is_file())


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--channels", type=int, default=32)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, tokenizer = Path(folder, "store"), Path(folder, "tokenizer")
        make_store(store, args.channels)
        config = BrainTokenizerConfig(**TOKENIZER)
        torch.manual_seed(0)
        parts = config.build_parts(CONTRACT)
        save_tokenizer(tokenizer, parts, config, contract=CONTRACT, provenance={}, training={})
        begin = time.perf_counter()
        compute_codes(tokenizer, [str(store)], device="cpu")
        once = time.perf_counter() - begin
        slot = {"name": "brain_tokenizer", "discrete": True, "frozen": True, **TOKENIZER}
        encoder: dict[str, Any] = EncoderConfig(width=128).to_dict() | {"tokenizer": slot}
        found = {}
        for codes in ("compute", "stored"):
            values = {
                "stores": [str(store)], "folder": folder, "tokenizer_from": str(tokenizer),
                "codes": codes, "encoder": encoder, "steps": args.steps,
                "loader": {"token_budget": WINDOWS * 10 * args.channels},
            }  # fmt: skip
            found[codes] = train(parse_config(PretrainConfig, values, where="benchmark"))
        (losses, slow), (same, fast) = found["compute"], found["stored"]
        hours = RECORDINGS * MINUTES / 60
        print(f"losses equal to the last digit: {losses == same}")
        print(
            f"a step of {WINDOWS} windows of {args.channels} channels x 10 s: {slow * 1e3:.0f} ms "
            f"with codes computed, {fast * 1e3:.0f} ms stored ({slow / fast:.1f} times)"
        )
        share = size(store, "codes-*") / size(store, "signal")
        print(f"once: {once / hours:.0f} s an hour of signal; codes take {share:.1%} of its bytes")


if __name__ == "__main__":
    main()

"""A small checkpoint."""

import dataclasses
from typing import Any

import pytest
import torch

from neurofm import checkpoint
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes encoders that depend on a seed only, and saves them."""

    contract: SignalContract
    provenance: dict[str, Any]
    training: dict[str, Any]

    def encoder(self, seed=0):
        torch.manual_seed(seed)
        values = {"tokenizer": {"name": "conv_patch"}, "backbone": {"depth": 1, "n_heads": 4}}
        return EncoderConfig.model_validate({"width": 16, **values}).build(self.contract)

    def save(self, path, encoder=None, **changes):
        values = {name: getattr(self, name) for name in ("contract", "provenance", "training")}
        return checkpoint.save(path, encoder or self.encoder(), **values | changes)


@pytest.fixture
def maker():
    return Maker(
        SignalContract(sfreq=100, band_hz=(0.5, 40), window_s=2, reference={"eeg": "average"}),
        provenance={
            "subjects": {"siesta": ["01", "02"], "nap": ["a"]},
            "recordings": ["siesta_sub-01", "siesta_sub-02", "nap_sub-a"],
        },
        training={"objective": {"name": "masked"}, "steps": 30, "loss": [[0, 1.5], [29, 0.75]]},
    )


@pytest.fixture
def saved(tmp_path, maker):
    return maker.save(tmp_path / "model")

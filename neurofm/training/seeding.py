"""Random numbers as a pure function of (seed, step), so that a resumed run draws the same."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part and on nothing else."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a CPU generator for one use in one step."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, step))

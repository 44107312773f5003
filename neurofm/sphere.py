"""Points on a sphere."""

from __future__ import annotations

import numpy as np


def fibonacci(count: int, *, lowest: float) -> np.ndarray:
    """Return unit vectors spread evenly over a sphere above height `lowest`, shape (n, 3)."""
    step = np.arange(count)
    z = 1 - (1 - lowest) * (step + 0.5) / count
    turn = np.pi * (3 - np.sqrt(5)) * step
    flat = np.sqrt(1 - z**2)
    return np.column_stack([flat * np.cos(turn), flat * np.sin(turn), z])

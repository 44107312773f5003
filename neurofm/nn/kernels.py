"""The CUDA kernels of `mamba_ssm`, where they import: never needed, used when there."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch

Kernel = Callable[..., Any]
KERNELS = {
    "scan": ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"),
    "ssd": ("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined"),
}


@functools.cache
def _find(name: str) -> Kernel | None:
    module, function = KERNELS[name]
    try:
        kernel: Kernel = getattr(importlib.import_module(module), function)
    except (ImportError, OSError, AttributeError):  # absent, or built for another torch
        return None
    return kernel


def scan_kernel(device: torch.device) -> Kernel | None:
    """Return mamba_ssm's selective scan, or None where it does not import or run."""
    return _find("scan") if device.type == "cuda" else None


def ssd_kernel(device: torch.device) -> Kernel | None:
    """Return mamba_ssm's chunked state-space scan, or None where it does not import or run."""
    return _find("ssd") if device.type == "cuda" else None

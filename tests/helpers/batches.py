"""Windows without anything special about them."""

import torch

from neurofm.signals import Batch


def plain_batch(signal, **fields):
    """Windows (B, C, T) of EEG channels that are all there and lie at the origin, at 64 Hz.

    Other values of any field may be given.
    """
    shape = signal.shape[:2]
    values = {
        "position": torch.zeros(*shape, 3),
        "orientation": torch.zeros(*shape, 3),
        "kind": torch.zeros(shape, dtype=torch.int64),
        "located": torch.ones(shape, dtype=torch.bool),
        "oriented": torch.zeros(shape, dtype=torch.bool),
        "present": torch.ones(shape, dtype=torch.bool),
        "sfreq": 64.0,
    }
    return Batch(signal=signal, **values | fields)

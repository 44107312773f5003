"""The witness of a checkpoint: what its encoder made of a batch that is always the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neurofm.contract import SignalContract
from neurofm.embedding import embed_batch
from neurofm.encoder import Encoder
from neurofm.nn.pool import MeanPool
from neurofm.sensors import SensorKind, text_code
from neurofm.signals import Batch

_KINDS = (
    SensorKind.EEG,
    SensorKind.EEG,
    SensorKind.MAG,
    SensorKind.GRAD_PLANAR,
    SensorKind.SEEG,
    SensorKind.ECOG,
)
# for places by table of names: two that the default one has, and four that it has not
_NAMES = ("Fp1", "Cz", "mag:1", "grad_planar:1", "seeg:LA1", "ecog:G1")


def witness(encoder: Encoder, contract: SignalContract) -> Tensor:
    """Encode a fixed synthetic batch: the same weights and code give the same numbers.

    The batch holds located and unlocated, oriented and unoriented sites of several kinds,
    and padding, so that a change in how any of them is treated shows.

    Parameters
    ----------
    encoder : Encoder
        In float32.
    contract : SignalContract
        Gives rate and length of the windows.

    Returns
    -------
    Tensor of float32, shape (2, D)
        Mean-pooled output.
    """
    shape = (2, len(_KINDS))
    # raw bits: the one stream of numpy that is promised never to change
    bits = np.random.PCG64(20)
    draw = _uniform(bits, (*shape, contract.n_times)) * np.sqrt(12)  # unit variance
    position = _uniform(bits, (*shape, 3)) * 0.2  # a cube of 20 cm
    normal = _uniform(bits, (*shape, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    kind = torch.tensor(_KINDS).expand(shape)
    present = torch.ones(shape, dtype=torch.bool)
    present[1, -1] = False
    located = present.clone()
    located[:, 1] = False
    subject, names = 0, [text_code(name) for name in _NAMES]
    if (known := encoder.tokenizer.example()) is not None:
        subject, names = known[0], [known[1][i % len(known[1])] for i in range(shape[1])]
    batch = Batch(
        signal=torch.from_numpy(draw).float() * present[..., None],
        position=torch.from_numpy(position).float() * located[..., None],
        orientation=torch.from_numpy(normal).float(),
        kind=kind,
        located=located,
        oriented=(kind == SensorKind.MAG) | (kind == SensorKind.GRAD_PLANAR),
        present=present,
        sfreq=contract.sfreq,
        name_code=torch.tensor(names).expand(shape),
        region_code=torch.zeros(shape, dtype=torch.int64),
        subject_code=torch.full(shape[:1], subject),
    )
    return embed_batch(encoder, batch, MeanPool())


def _uniform(bits: np.random.PCG64, shape: tuple[int, ...]) -> np.ndarray:
    raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(11)
    return (raw.astype(np.float64) * 2.0**-53 - 0.5).reshape(shape)

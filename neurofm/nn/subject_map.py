"""A linear map of channels of its own for every subject."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SubjectMap(nn.Module):
    """Channels that only one subject has, onto channels that all share, and back.

    Electrodes inside the head lie elsewhere in everybody, so there is nothing to share before
    this map (Zheng et al. 2024, Du-IN, sec. 3.1).

    Parameters
    ----------
    n_subjects, n_in, n_out : int
        Subjects, channels in, channels out.
    bias : bool
        Whether every subject has an offset for each channel out.
    """

    def __init__(self, n_subjects: int, n_in: int, n_out: int, *, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_subjects, n_in, n_out) / n_in**0.5)
        self.bias = nn.Parameter(torch.zeros(n_subjects, n_out)) if bias else None

    def forward(self, signal: Tensor, subject: Tensor) -> Tensor:
        """Map signals.

        Parameters
        ----------
        signal : Tensor, shape (B, n_in, T)
            A subject with fewer channels has zeros in the others.
        subject : Tensor of int, shape (B,)
            Whose they are.

        Returns
        -------
        Tensor, shape (B, n_out, T)
            The shared channels.
        """
        out = self.weight[subject].transpose(1, 2) @ signal
        return out if self.bias is None else out + self.bias[subject][..., None]

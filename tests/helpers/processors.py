"""What a run takes of the processor."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from neurofm.training import processor


class Reached(Exception):
    """The work was about to begin."""


@contextmanager
def processor_at(monkeypatch, where, name):
    """Record threads of torch, and whether memory is kept, when `name` of `where` is called.

    The call ends the run.
    """
    found, told = {}, []
    glibc = SimpleNamespace(malloc_trim=lambda pad: None)
    monkeypatch.setattr(processor, "_glibc", lambda: glibc)
    monkeypatch.setattr(processor, "_set", lambda libc, thresholds: told.append(thresholds))

    def reached(*args, **kwargs):
        found.update(threads=torch.get_num_threads(), keeps=told[-1:] == [processor._KEEP])
        raise Reached

    monkeypatch.setattr(where, name, reached)
    with pytest.raises(Reached):
        yield found

"""Progress of a training run on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import lightning


class StepBar(lightning.Callback):
    """A bar over optimiser steps.

    Parameters
    ----------
    bar : context manager
        Yields what advances the bar by a number of steps; see `neurofm.report.progress`.
    """

    def __init__(self, bar: AbstractContextManager[Callable[[int], None]]):
        self.bar = bar
        self.stack = ExitStack()

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Open the bar at the step the run starts from."""
        self.advance = self.stack.enter_context(self.bar)
        self.advance(trainer.global_step)

    def on_train_batch_end(self, *_: Any) -> None:
        """Advance by one."""
        self.advance(1)

    def on_train_end(self, *_: Any) -> None:
        """Close the bar."""
        self.stack.close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the error is readable."""
        self.stack.close()

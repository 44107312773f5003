"""Progress of a training run on a terminal."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning

from neurofm.report.progress import progress


class StepBar(lightning.Callback):
    """A bar over optimiser steps, quiet where there is no terminal."""

    def __init__(self, description: str, total: int):
        self.description = description
        self.total = total
        self.stack = ExitStack()

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Open the bar at the step the run starts from."""
        self.advance = self.stack.enter_context(progress(self.description, self.total))
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

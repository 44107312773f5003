"""Tasks: rules that say which stretches of which recordings are trials, and of which class.

The same event name may mean different things in different runs, so a rule says where it
holds; what two rules both claim is refused.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from neurofm.config import Config
from neurofm.errors import nearest


def _one_or_many(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]

SELECTORS = ("dataset", "subject", "session", "task", "run")


class TrialRule(Config):
    """Turn the events, or the whole length, of some recordings into trials of one class.

    Parameters
    ----------
    label : str
        The class.
    event : str or list of str
        Descriptions or labels of the events that are trials.
    tile : bool
        Instead of events: cut the whole recording into windows that do not overlap.
    offset_s : float
        Seconds from the event to the trial's time zero, for markers that announce.
    dataset, subject, session, task, run : str or list of str
        Where the rule holds; everywhere if not given.
    """

    label: str
    event: Names = ()
    tile: bool = False
    offset_s: float = 0.0
    dataset: Names = ()
    subject: Names = ()
    session: Names = ()
    task: Names = ()
    run: Names = ()

    @model_validator(mode="after")
    def _one_source(self) -> TrialRule:
        if bool(self.event) == self.tile:
            raise ValueError("a rule needs either `event: NAME` or `tile: true`")
        return self

    def __str__(self) -> str:
        where = [f"{k} {'/'.join(getattr(self, k))}" for k in SELECTORS if getattr(self, k)]
        what = f"event {'/'.join(self.event)}" if self.event else "tile"
        return f"{self.label!r} ({what}{' of ' if where else ''}{', '.join(where)})"


class TaskConfig(Config):
    """A labelled question asked of a store.

    Parameters
    ----------
    name : str
        What the task is called in tables.
    classes : list of str
        All classes, in the order of their codes.
    trials : list of TrialRule
        What is a trial of which class.
    start_s : float
        Where the encoder's window starts, in seconds after time zero.
    window_s : float, optional
        Length of the encoder's window; by default the store's. It must be a whole number of
        the encoder's patches.
    exclude_subjects : str or list of str
        Subjects that take no part.
    """

    name: str
    classes: tuple[str, ...] = Field(min_length=2)
    trials: tuple[TrialRule, ...] = Field(min_length=1)
    start_s: float = 0.0
    window_s: float | None = Field(default=None, gt=0)
    exclude_subjects: Names = ()

    @model_validator(mode="after")
    def _labels_are_classes(self) -> TaskConfig:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes occur twice: {', '.join(self.classes)}")
        labels = [rule.label for rule in self.trials]
        for label in labels:
            if label not in self.classes:
                close = nearest(label, self.classes)
                meant = f"; did you mean {close!r}?" if close else ""
                raise ValueError(f"label {label!r} is none of the classes{meant}")
        for name in self.classes:
            if name not in labels:
                raise ValueError(f"class {name!r} has no rule under `trials`")
        return self

"""Errors a user can act on: what went wrong, where, what was found, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NeurofmError(Exception):
    """Base of every error neurofm raises on purpose.

    Parameters
    ----------
    problem : str
        What is wrong, where, and what was found.
    hint : str, optional
        What to do next.
    """

    def __init__(self, problem: str, *, hint: str | None = None):
        super().__init__(problem if hint is None else f"{problem}\n  hint: {hint}")
        self.problem = problem
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the hint when an error crosses a process boundary."""
        return (_rebuild, (type(self), self.problem, self.hint))


def _rebuild(kind: type[NeurofmError], problem: str, hint: str | None) -> NeurofmError:
    return kind(problem, hint=hint)


class ConfigError(NeurofmError, ValueError):
    """A value in a config, or on the command line, is wrong."""


class SourceError(NeurofmError, ValueError):
    """A file cannot be read, or is not what its name says."""


class SignalError(NeurofmError, ValueError):
    """The samples of a recording cannot be used: units, length, rate or quality."""


class SensorError(NeurofmError, ValueError):
    """A sensor's name, kind or position is missing, unknown or contradictory."""


class ContractError(NeurofmError, ValueError):
    """Data and model, or data and store, promise different things."""


class StoreError(NeurofmError, ValueError):
    """A store is missing, damaged, or asked for what it does not hold."""


class StoreUnwritable(StoreError):
    """A store cannot be written: the disk is full, read-only, or gone."""


class CheckpointError(NeurofmError, ValueError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class ProtocolError(NeurofmError, ValueError):
    """A task or a protocol cannot be carried out on these recordings."""


class LeakError(ProtocolError):
    """The same subject, recording or samples are on both sides of a split."""


class TrainingError(NeurofmError, RuntimeError):
    """A training run diverged, or cannot be continued as asked."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the nearest known name, or None if none is close."""
    close = nearest(name, known)
    return f"did you mean {close!r}?" if close else None


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, error: type[NeurofmError] = ConfigError
) -> NeurofmError:
    """Say what was asked for, what exists, and what was probably meant."""
    names = sorted(known)
    return error(
        f"unknown {kind} {name!r}; known: {', '.join(names) or 'none'}",
        hint=did_you_mean(name, names),
    )

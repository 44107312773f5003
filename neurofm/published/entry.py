"""What a published model promises: a config from its constructor, and a map of its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from neurofm.errors import CheckpointError, ConfigError, nearest
from neurofm.nn.weights import check_fit

Rule = tuple[str, str]


class Buildable(Protocol):
    """A config of a published model."""

    def build(self) -> nn.Module:
        """Build the module with fresh weights."""
        ...


@dataclass(frozen=True, kw_only=True)
class Published:
    """How one published model is built here and takes its original weights.

    Attributes
    ----------
    from_constructor : callable
        Maps the constructor arguments of the original to a config with our names.
    weights : callable
        Maps the original state dict to ours, by name.
    parts : tuple of str
        The parts of this package it is made of, for the table in the documentation.
    """

    from_constructor: Callable[[Mapping[str, Any]], Buildable]
    weights: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    parts: tuple[str, ...]

    def load(self, constructor: Mapping[str, Any], original: Mapping[str, Tensor]) -> nn.Module:
        """Build the model and fill it with the original's weights.

        Parameters
        ----------
        constructor : mapping
            Arguments the original was built with.
        original : mapping of str to Tensor
            State dict of the original, under its names.

        Returns
        -------
        Module
            In evaluation mode.

        Raises
        ------
        ConfigError
            If an argument is unknown or has no meaning here.
        CheckpointError
            If a weight of the original is not used, one of ours is not filled, or a shape differs.
        """
        module = self.from_constructor(constructor).build()
        found = self.weights(original)
        check_fit(module.state_dict(), found, "original state dict")
        module.load_state_dict(found)
        return module.eval()


def rename(
    original: Mapping[str, Tensor],
    rules: Sequence[Rule],
    *,
    unused: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    r"""Give weights our names; nothing is left over without a reason.

    Parameters
    ----------
    original : mapping of str to Tensor
        State dict of the original.
    rules : sequence of (str, str)
        A regular expression that matches a whole original name, and our name, with ``\1`` for
        groups. The first rule that matches holds.
    unused : mapping of str to str, optional
        Regular expressions of names that have no place here, each with the reason.

    Returns
    -------
    dict of str to Tensor
        The same tensors under our names.

    Raises
    ------
    CheckpointError
        If no rule matches a name, or two names become one.
    """
    found: dict[str, Tensor] = {}
    for name, value in original.items():
        if any(re.fullmatch(pattern, name) for pattern in unused or {}):
            continue
        ours = _our_name(name, rules)
        if ours in found:
            raise CheckpointError(
                f"two weights of the original become {ours!r}; the second is {name!r}",
                hint="each needs a rule of its own",
            )
        found[ours] = value
    return found


def _our_name(name: str, rules: Sequence[Rule]) -> str:
    for pattern, to in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(to)
    raise CheckpointError(
        f"a weight of the original has no place here: {name!r}",
        hint="it is of another model, or of another version of it",
    )


def constructor_values(
    constructor: Mapping[str, Any], names: Mapping[str, str | None], *, model: str
) -> dict[str, Any]:
    """Give constructor arguments our names.

    Parameters
    ----------
    constructor : mapping
        Arguments of the original.
    names : mapping of str to str or None
        Our name of each argument; None for those without influence on the module.
    model : str
        For the message.

    Raises
    ------
    ConfigError
        If an argument is not among `names`.
    """
    for name in constructor:
        if name not in names:
            close = nearest(name, names)
            raise ConfigError(
                f"{model}: unknown constructor argument {name!r}; known: {', '.join(names)}",
                hint=f"did you mean {close!r}?" if close else None,
            )
    found = {names[name]: value for name, value in constructor.items()}
    return {name: value for name, value in found.items() if name is not None}

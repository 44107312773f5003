"""What a published model promises: a config from its constructor, and a map of its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from neurofm.config import C, Config, parse_config
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
    constructor: Mapping[str, Any],
    names: Mapping[str, str | None],
    *,
    model: str,
    defaults: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
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
    defaults : mapping, optional
        What the original takes for arguments that are not given, where our configs take something
        else.
    only : mapping, optional
        Further arguments of the original, each with the one value that has a counterpart here.

    Raises
    ------
    ConfigError
        If an argument is unknown, or has a value without a counterpart here.
    """
    only = only or {}
    for name, value in constructor.items():
        if name in only:
            if value != only[name]:
                raise ConfigError(
                    f"{model}: {name} = {value!r} has no counterpart here",
                    hint=f"what is built here has {name} = {only[name]!r}",
                )
        elif name not in names:
            known = (*names, *only)
            close = nearest(name, known)
            raise ConfigError(
                f"{model}: unknown constructor argument {name!r}; known: {', '.join(known)}",
                hint=f"did you mean {close!r}?" if close else None,
            )
    given = {**(defaults or {}), **constructor}
    found = {names[name]: value for name, value in given.items() if name not in only}
    return {name: value for name, value in found.items() if name is not None}


def section(constructor: Mapping[str, Any], name: str, *, model: str) -> Mapping[str, Any]:
    """Return the arguments of one part.

    Raises
    ------
    ConfigError
        If there is no such part.
    """
    found = constructor.get(name)
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{model}: the constructor lacks the arguments of its {name}",
            hint=f"give {name}: a mapping of arguments",
        )
    return found


def config_of(kind: type[C], values: Mapping[str, Any], *, model: str) -> C:
    """Validate values under our names, configs of parts among them.

    Raises
    ------
    ConfigError
        If a value is missing, or of a wrong type.
    """
    plain = json.loads(json.dumps(values, default=Config.to_dict))
    return parse_config(kind, plain, where=f"constructor of {model}")


def norm_eps(layer: str | None, *, model: str) -> float:
    """Return what a layer norm, told as ``LayerNorm(eps=1e-6)``, adds to the variance.

    Raises
    ------
    ConfigError
        If it is another norm.
    """
    match = re.fullmatch(
        r"(?:[\w.]*\.)?LayerNorm(?:\((?:eps=([\d.e+-]+))?\))?", layer or "LayerNorm"
    )
    if match is None:
        raise ConfigError(
            f"{model}: the norm {layer!r} has no counterpart here",
            hint="give LayerNorm, or LayerNorm(eps=...)",
        )
    return float(match[1] or 1e-5)

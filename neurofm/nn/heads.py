"""Heads that share the features of a token."""

from __future__ import annotations

from neurofm.errors import ConfigError


def require_heads(width: int, n_heads: int) -> int:
    """Return how many of `width` features each of `n_heads` heads has.

    Raises
    ------
    ConfigError
        If that is no whole number.
    """
    if n_heads < 1 or width % n_heads:
        good = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
        raise ConfigError(
            f"width {width} cannot be split into {n_heads} heads", hint=f"n_heads may be {good}"
        )
    return width // n_heads

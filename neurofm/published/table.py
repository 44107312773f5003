"""Every published model, by the name that its reference fixtures use."""

from __future__ import annotations

from neurofm.published.entry import Published

PUBLISHED: dict[str, Published] = {}

"""The report as a page."""

from __future__ import annotations

from neurofm.store.remote import Location

PAGE_NAME = "report.html"


def write_page(store: Location) -> None:
    """Write the page."""

"""A page of tables and figures in one HTML file that needs nothing else to be shown."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from neurofm.files import write_atomically

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;font-size:13px;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #eee}
th:first-child,td:first-child,td.text{text-align:left}th{background:#f6f6f6}
.wide{overflow-x:auto}figure{display:inline-block;margin:.5rem 1rem .5rem 0}
figcaption,caption{font-size:13px;color:#555;text-align:left}img{max-width:100%}
.warning{background:#fff4e0;border-left:4px solid #e09000;padding:.4rem .8rem}
summary{cursor:pointer}
pre{background:#f6f6f6;padding:.6rem;overflow-x:auto;font-size:12px}
"""


class Page:
    """A report, built from top to bottom. All text is escaped.

    Parameters
    ----------
    title : str
        The page's title.
    """

    def __init__(self, title: str):
        self.title = title
        self._parts: list[str] = []

    def section(self, heading: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(heading)}</h2>")

    def text(self, paragraph: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(paragraph)}</p>")

    def warning(self, paragraph: str) -> None:
        """Add a paragraph that stands out."""
        self._parts.append(f'<p class="warning">{escape(paragraph)}</p>')

    def code(self, block: str) -> None:
        """Add preformatted text."""
        self._parts.append(f"<pre>{escape(block)}</pre>")

    def table(self, table: pd.DataFrame, *, caption: str = "", index: bool = False) -> None:
        """Add a table; numbers that are not whole get three decimals, missing values a dash.

        Parameters
        ----------
        table : DataFrame
            The cells.
        caption : str
            What it shows.
        index : bool
            Whether the index is the first column.
        """
        shown = table.reset_index() if index else table
        head = "".join(f"<th>{escape(str(c))}</th>" for c in shown.columns)
        rows = shown.itertuples(index=False, name=None)
        body = "".join("<tr>" + "".join(_cell(v) for v in row) + "</tr>" for row in rows)
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._parts.append(
            f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def figures(self, figures: Sequence[tuple[Figure, str]]) -> None:
        """Add figures side by side, each with its caption."""
        for figure, caption in figures:
            buffer = io.BytesIO()
            with warnings.catch_warnings():
                # a name in a script that the font lacks is shown as boxes; the table has it
                warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                figure.savefig(buffer, format="png", dpi=110)
            image = base64.b64encode(buffer.getvalue()).decode()
            self._parts.append(
                f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{image}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )

    def drawings(self, drawings: Sequence[tuple[str, str]]) -> None:
        """Add drawings of `report.svg` side by side, each with its caption.

        Parameters
        ----------
        drawings : sequence of (str, str)
            SVG text, which is taken as it is, and captions. Empty drawings are left out.
        """
        self._parts += [
            f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
            for drawing, caption in drawings
            if drawing
        ]

    @contextmanager
    def folded(self, heading: str) -> Iterator[None]:
        """Hide what is added inside until its heading is clicked."""
        self._parts.append(f"<details><summary>{escape(heading)}</summary>")
        yield
        self._parts.append("</details>")

    def html(self) -> str:
        """Return the whole page."""
        title = escape(self.title)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{title}</title><style>{STYLE}</style></head>\n"
            f"<body><h1>{title}</h1>\n" + "\n".join(self._parts) + "\n</body></html>\n"
        )

    def write(self, path: Path) -> Path:
        """Write the page in one step: a reader sees the old page or the new one."""
        write_atomically(path, self.html())
        return path


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f'<td class="text">{escape(value)}</td>'
    if value is None or pd.isna(value):
        return "<td>–</td>"
    if isinstance(value, float):
        return f"<td>{value:.3f}</td>"
    return f"<td>{escape(str(value))}</td>"

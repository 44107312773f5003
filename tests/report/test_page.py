import re

import numpy as np
import pandas as pd

from neurofm.report.figures import confusion_plot, curve_plot, subject_plot
from neurofm.report.page import Page

NASTY = '<script>alert("x")</script> & $\\frac{$ 被试'


def full_page():
    page = Page(f"Report of {NASTY}")
    page.section(NASTY)
    page.text(NASTY)
    page.warning(NASTY)
    page.code(NASTY)
    table = pd.DataFrame({"subject": [NASTY, "b"], NASTY: [0.5, np.nan]})
    page.table(table, caption=NASTY)
    values = pd.DataFrame({"a $x": [0.1, 0.9], NASTY: [0.2, np.nan]}, index=["b", NASTY])
    page.table(values, index=True)
    page.figures(
        [
            (subject_plot(values, ylabel=NASTY, chance=0.5), NASTY),
            (confusion_plot(np.array([[3, 1], [0, 0]]), ["$a", NASTY], title=NASTY), NASTY),
            (curve_plot({NASTY: ([1, 2], [3, 4]), "b$": ([1], [2])}, xlabel="$", ylabel="y"), "c"),
        ]
    )
    return page


def test_a_page_needs_nothing_but_itself():
    html = full_page().html()
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'>\s]+)""", html)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_text_is_escaped_wherever_it_appears():
    html = full_page().html()
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; $") >= 9


def test_missing_values_are_shown_as_missing_and_numbers_with_three_decimals():
    page = Page("t")
    page.table(pd.DataFrame({"a": [0.12345, np.nan], "n": [3, 4], "none": [None, "x"]}))
    html = page.html()
    assert "<td>0.123</td>" in html
    assert "<td>3</td>" in html
    assert html.count("<td>–</td>") == 2
    assert "nan" not in html.lower()


def test_a_page_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "report.html"
    Page("first").write(path)
    Page("second").write(path)
    assert "second" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_confusion_rows_are_shares_of_the_truth():
    figure = confusion_plot(np.array([[3, 1], [0, 2]]), ["a", "b"], title="t")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["0.75", "0.25", "0.00", "1.00"]


def test_the_subject_plot_marks_the_mean_of_each_model():
    figure = subject_plot(pd.DataFrame({"a": [0.2, 0.6], "b": [1.0, np.nan]}), ylabel="y")
    bars = [
        c.get_segments()[0][0][1] for c in figure.axes[0].collections if hasattr(c, "get_segments")
    ]
    assert bars == [0.4, 1.0]

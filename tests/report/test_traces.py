"""Signals over one another, and weights on a head."""

import numpy as np

from neurofm.report.traces import overlay_plot, weights_plot


def test_both_versions_of_every_signal_are_drawn_under_its_name():
    first = np.zeros((3, 20))
    figure = overlay_plot(first, first + 1, ["a", "b", "$c"], sfreq=10, labels=("was", "is"))
    (ax,) = figure.axes
    assert len(ax.lines) == 6
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "$c"]
    assert np.allclose(ax.lines[0].get_xdata(), np.arange(20) / 10)
    assert np.allclose(ax.lines[3].get_ydata() - ax.lines[0].get_ydata(), 1)


def test_every_source_has_a_head_and_its_largest_weight_is_brightest():
    draw = np.random.default_rng(0)
    position, weights = draw.standard_normal((7, 3)), draw.random((11, 7))
    figure = weights_plot(position, weights)
    heads = [ax for ax in figure.axes if ax.collections]
    assert len(heads) == 11
    for row, ax in zip(weights, heads, strict=True):
        (dots,) = ax.collections
        brightest = np.asarray(dots.get_offsets())[int(np.argmax(dots.get_array()))]
        np.testing.assert_allclose(brightest, position[row.argmax(), :2])
    assert len(weights_plot(position, weights[:1]).axes) == 1

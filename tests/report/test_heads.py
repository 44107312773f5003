"""Figures of sensors: each where it is, hollow where only a template says so."""

import warnings

import mne
import numpy as np
import pytest

from neurofm.report.heads import sensor_plot
from neurofm.sensors import Knowledge, sensors_from_info


def texts(ax):
    return [text.get_text() for text in ax.texts]


def points(ax):
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


def test_sensors_are_drawn_where_they_are_and_named_where_few():
    sensors = sensors_from_info(mne.create_info(["Fz", "Cz", "Oz"], 100, "eeg"))
    above, side = sensor_plot(sensors).axes
    assert texts(above) == ["Fz", "Cz", "Oz"]
    assert points(above) == pytest.approx(1e3 * sensors.position[:, [0, 1]], abs=1e-3)
    assert points(side) == pytest.approx(1e3 * sensors.position[:, [1, 2]], abs=1e-3)
    assert all(len(c.get_facecolors()) == 0 for c in above.collections if len(c.get_offsets()))


def test_what_has_no_position_is_counted_and_not_drawn():
    sensors = sensors_from_info(mne.create_info(["Fz", "who", "$where$"], 100, "eeg"))
    figure = sensor_plot(sensors, title="a $cap")
    assert figure.get_suptitle() == "a $cap  2 of 3 without a position"
    assert texts(figure.axes[0]) == ["Fz"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


def test_nothing_located_is_still_a_figure():
    sensors = sensors_from_info(mne.create_info(["a", "b"], 100, "eeg"))
    figure = sensor_plot(sensors)
    figure.canvas.draw()
    assert "2 of 2 without" in figure.get_suptitle()


def test_each_kind_has_a_colour_and_the_device_frame_its_own_mark():
    sensors = sensors_from_info(mne.create_info(["Fz", "Cz", "Pz", "Oz"], 100, "eeg"))
    mixed = sensors.evolve(
        kind=np.array([0, 0, 1, 1], np.int8),
        known=np.array([Knowledge.MEASURED] * 3 + [Knowledge.DEVICE], np.int8),
    )
    figure = sensor_plot(mixed)
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["eeg (2)", "mag (2)"]
    drawn = [c for c in figure.axes[0].collections if len(c.get_offsets())]
    assert len({tuple(c.get_edgecolors()[0]) for c in drawn}) == 2
    assert [len(c.get_offsets()) for c in drawn] == [2, 1, 1]

import xml.etree.ElementTree as ET

import mne
import numpy as np
import pytest

from neurofm.report.svg import density_drawing, head_drawing, histogram_drawing
from neurofm.sensors import sensors_from_info

HZ = [1.0, 10.0, 100.0]


def curve(*values):
    return {"hz": HZ, "low": list(values), "median": list(values), "high": list(values)}


def points(drawing):
    lines = [e for e in ET.fromstring(drawing).iter() if e.tag == "polyline"]
    return [np.array([p.split(",") for p in line.get("points").split()], float) for line in lines]


def test_before_and_after_share_their_axes():
    before, after = points(density_drawing(curve(4, 2, 1), curve(4, 1, 1), "V"))
    np.testing.assert_allclose(before[0], after[0])
    np.testing.assert_allclose(before[:, 0], after[:, 0])
    assert before[1, 1] < after[1, 1]  # more power is higher up
    assert (np.diff(before[:, 0]) > 0).all()


def test_decades_are_equally_far_apart():
    (line,) = points(density_drawing(None, curve(1e-12, 1e-11, 1e-10), "V"))
    np.testing.assert_allclose(
        np.diff(line, axis=0), np.diff(line, axis=0)[:1].repeat(2, 0), atol=0.2
    )


def test_zeros_stay_inside_the_drawing():
    (line,) = points(density_drawing(None, curve(1e-12, 0.0, 1e-40), "V"))
    assert np.isfinite(line).all() and (line[:, 1] <= 150).all()


def test_nothing_to_draw_is_no_drawing():
    assert density_drawing(None, None, "V") == ""
    assert density_drawing(curve(0, 0, 0), None, "V") == ""
    assert histogram_drawing([0.0, 0.0], "V") == ""


def test_bars_are_as_high_as_values_are_many():
    drawing = histogram_drawing([1.1e-5] * 3 + [5.05e-5], "V")
    heights = [float(e.get("height")) for e in ET.fromstring(drawing) if e.tag == "rect"]
    assert heights == pytest.approx([max(heights), max(heights) / 3], abs=0.1)


def test_sensors_are_where_they_are_and_the_front_is_up():
    sensors = sensors_from_info(mne.create_info(["Fz", "Oz", "T7", "nowhere <b>"], 100.0, "eeg"))
    root = ET.fromstring(head_drawing(sensors))
    dots = {
        circle.find("title").text: (float(circle.get("cx")), float(circle.get("cy")))
        for circle in root.iter("circle")
        if circle.find("title") is not None
    }
    assert set(dots) == {"Fz", "Oz", "T7"}
    assert dots["Fz"][1] < 80 < dots["Oz"][1]
    assert dots["T7"][0] < 80
    assert {c.get("fill") for c in root.iter("circle")} == {"none"}  # a template: hollow


def test_without_a_position_there_is_no_head():
    assert head_drawing(sensors_from_info(mne.create_info(["a", "b"], 100.0, "eeg"))) == ""


def test_names_are_escaped():
    sensors = sensors_from_info(mne.create_info(["<b>"], 100.0, "eeg"))
    place = np.array([[0.0, 0.05, 0.08]], np.float32)
    drawing = head_drawing(sensors.evolve(position=place, known=np.array([1], np.int8)))
    if "<title>" in drawing:
        assert "<b>" not in drawing and "&lt;b&gt;" in drawing

"""Numbers that look like any other, and mean that something is not known."""

import mne
import numpy as np
import pytest

from neurofm.contract import robust_sd
from neurofm.errors import SensorError
from neurofm.sensors import Knowledge, sensors_from_info

MAG = 3024  # FIFFV_COIL_VV_MAG_T3


def make_info(shift_m=None, digitised=False):
    """A magnetometer over the vertex of a helmet; `shift_m` moves the device to the head."""
    info = mne.create_info(["MEG1"], 100.0, "mag")
    ch = info["chs"][0]
    ch["coil_type"], ch["coord_frame"] = MAG, 1
    ch["loc"][:] = [0, 0, 0.1, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    trans = np.eye(4)
    trans[2, 3] = shift_m or 0.0
    with info._unlock():
        info["dev_head_t"] = None if shift_m is None else mne.transforms.Transform(1, 4, trans)
        if digitised:
            point = {"kind": 1, "ident": 2, "coord_frame": 4, "r": np.array([0, 0.1, 0])}
            info["dig"] = [mne._fiff.meas_info.DigPoint(point)]
    return info


@pytest.mark.parametrize(
    ("shift_m", "digitised", "known", "z"),
    [
        (None, False, Knowledge.DEVICE, 0.1),
        (0.0, False, Knowledge.DEVICE, 0.1),  # readers put the identity where nobody measured
        (0.0, True, Knowledge.MEASURED, 0.1),
        (0.04, False, Knowledge.MEASURED, 0.14),
    ],
)
def test_an_identity_without_a_digitised_head_is_no_head_position(shift_m, digitised, known, z):
    sensors = sensors_from_info(make_info(shift_m, digitised))
    assert sensors.known[0] == known
    assert sensors.position[0, 2] == pytest.approx(z)
    np.testing.assert_allclose(sensors.orientation, [[0, 0, 1]])


def test_a_planar_gradiometer_points_along_its_difference_and_a_magnetometer_out_of_the_head():
    info = make_info(0.04)
    info["chs"][0]["loc"][3:12] = [0, 1, 0, 0, 0, 1, 1, 0, 0]
    np.testing.assert_allclose(sensors_from_info(info).orientation, [[1, 0, 0]])
    info["chs"][0]["coil_type"], info["chs"][0]["unit"] = 3012, 201
    np.testing.assert_allclose(sensors_from_info(info).orientation, [[0, 1, 0]])


@pytest.mark.parametrize(
    ("coil", "unit", "said"), [(MAG, 201, "in T/m, but mag"), (3012, 112, "in T, but grad_planar")]
)
def test_tesla_and_tesla_per_metre_are_never_mixed(coil, unit, said):
    info = make_info()
    info["chs"][0]["coil_type"], info["chs"][0]["unit"] = coil, unit
    with pytest.raises(SensorError, match=said):
        sensors_from_info(info)


def test_one_sample_that_is_no_number_makes_a_scale_none():
    rows = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    rows[1, 17] = np.nan
    assert np.isnan(robust_sd(rows)).tolist() == [False, True, False]


def test_a_scale_that_was_measured_is_nobodys_to_change():
    class Kept(np.ndarray):
        pass

    rows = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32).view(Kept)
    rows.remembered = {}
    first = robust_sd(rows)
    first *= 0
    assert robust_sd(rows).min() > 0.9

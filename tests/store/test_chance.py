"""What audit takes for chance: short stretches and bands that filters have left."""

import numpy as np
import pytest

from neurofm.contract import SignalContract
from neurofm.store.fingerprint import Fingerprint
from neurofm.store.matching import _Entry, _match, common_band


def prints(n_rows, n_wrong):
    """Two recordings whose bits agree but for `n_wrong` of each fifteen."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1 << 15, n_rows).astype(np.uint16)
    valid = np.ones(n_rows, bool)
    other = codes ^ np.uint16((1 << n_wrong) - 1)
    return [_Entry(name, Fingerprint(c, valid)) for name, c in (("a", codes), ("b", other))]


@pytest.mark.parametrize(
    ("n_rows", "n_wrong", "same"), [(80, 4, True), (8, 4, False), (8, 0, False)]
)
def test_a_few_seconds_that_agree_are_chance(n_rows, n_wrong, same):
    match = _match(*prints(n_rows, n_wrong), 0)
    assert (match is not None) == same
    if match is not None:
        assert match.share == pytest.approx(1 - n_wrong / 15, abs=1e-3)


def test_what_both_have_kept_is_compared_and_no_slope_of_a_filter():
    class Kept:
        def __init__(self, sfreq, band_hz):
            self.contract = SignalContract(sfreq=sfreq, band_hz=band_hz, window_s=1.0)

    wide = Kept(250.0, (0.5, 100.0))
    assert common_band(wide, wide) == (2.0, 30.0)
    assert common_band(wide, Kept(100.0, (4.0, 24.0))) == (4.0, 24.0)
    assert common_band(Kept(40.0, (0.5, 20.0)), wide) == (2.0, 18.0)
    assert common_band(wide, Kept(250.0, (20.0, 100.0))) is None

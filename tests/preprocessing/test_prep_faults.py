"""Damaged files: a few of those that ``benchmarks/faults.py`` makes by the thousand."""

import importlib.util
import sys
from pathlib import Path

import mne
import numpy as np
import pytest

from neurofm.config import parse_config
from neurofm.errors import SourceError
from neurofm.preprocessing.run import CONFIG, run
from neurofm.preprocessing.units import misfits
from neurofm.sensors import sensors_from_info

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def faults():
    """The benchmark, as a module."""
    spec = importlib.util.spec_from_file_location("faults", BENCHMARKS / "faults.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


SMALL = ("edf", "bdf", "gdf", "fif_eeg", "fif_opm", "brainvision", "table", "nicolet", "array")


def test_damaged_files_are_refused_or_kept_sound(faults, test_data, tmp_path):
    count = faults.damage(test_data, tmp_path, 60, seed=5, only=SMALL)
    assert count.faults == []
    assert sum(count.verdicts.values()) == 60
    assert {kind for kind, _ in count.verdicts} == set(SMALL)
    refused = sum(n for (_, verdict), n in count.verdicts.items() if verdict != "kept")
    assert 10 < refused < 60


def test_what_is_kept_wrong_is_noticed(faults, test_data, tmp_path, monkeypatch):
    """The judge itself: samples a thousand times too large are a fault."""

    def louder(base, rng):
        files = dict(base.files)
        head = files["a.edf"]
        at = head.index(b"uV")
        return files | {"a.edf": head[:at].replace(b"uV", b"mV") + b"mV" + head[at + 2 :]}, "louder"

    monkeypatch.setattr(faults, "mutate", louder)
    monkeypatch.setattr(faults, "WRONG_UNIT", 0.5)
    count = faults.damage(test_data, tmp_path, 1, seed=0, only=["edf_utf8"], workers=0)
    assert any("amplitudes" in fault for fault in count.faults)


def test_damage_is_the_same_for_the_same_seed(faults, test_data, tmp_path):
    base = faults.bases(test_data, tmp_path)[0]
    one, other = (faults.mutate(base, np.random.default_rng(3)) for _ in range(2))
    assert one == other and one[0] != base.files


def test_a_header_that_makes_no_sense_is_the_files_fault(make_raw, tmp_path):
    """Not something to report: a flipped bit made a channel of no type there is."""
    raw = make_raw()
    (tmp_path / "raw").mkdir()
    raw.save(tmp_path / "raw" / "sub-1_raw.fif", verbose="error")
    data = bytearray((tmp_path / "raw" / "sub-1_raw.fif").read_bytes())
    # the channel record of Fz: its number, then its kind
    at = data.index(b"Fz") - 80
    assert data[at + 8 : at + 12] == (2).to_bytes(4, "big")
    data[at + 8] |= 0x10
    (tmp_path / "raw" / "sub-1_raw.fif").write_bytes(data)
    values = {
        "dataset": "made",
        "root": str(tmp_path / "raw"),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2.0},
        "sources": [{"allow_unlocated": True}],
        "workers": 0,
    }
    with pytest.raises(SourceError, match="its header cannot be understood|MNE cannot read it"):
        run(parse_config(CONFIG, values, where="test"))


def test_of_two_channels_each_must_be_plausible():
    """Nobody can say which of two is the outlier."""
    sensors = sensors_from_info(mne.create_info(["Cz", "Pz"], 100.0, "eeg"))
    assert misfits(np.array([2e-5, 3e-5]), sensors) == []
    for wrong in (2.6, 2e-12):
        (misfit,) = misfits(np.array([2e-5, wrong]), sensors)
        assert misfit.found == wrong

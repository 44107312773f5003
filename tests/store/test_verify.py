"""Verifying finds whatever of a store does not agree with the rest."""

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurofm.sensors import Sensors
from neurofm.store.index import as_rows, change_index, read_index
from neurofm.store.reader import open_store


@pytest.fixture
def path(tmp_path, maker):
    return maker.store(tmp_path / "store", "anna", "bert")


def edit(path, change, node=""):
    """Change the metadata of anna's group, or of an array in it."""
    file = path / "recordings/d_sub-anna" / node / "zarr.json"
    table = json.loads(file.read_text())
    change(table["attributes"])
    file.write_text(json.dumps(table))


def set_row(path, **values):
    """Change anna's row in the index."""
    change_index(path, add=[as_rows(read_index(path))["d_sub-anna"] | values])


def faults(path):
    found = open_store(path).verify()
    assert all(line.startswith("d_sub-anna: ") for line in found)
    return "\n".join(found)


def test_a_sound_store_has_no_faults(path):
    assert open_store(path).verify() == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"subject": "otto"}, "index says subject = 'otto', the recording 'anna'"),
        ({"source_hash": "x"}, "index says source_hash = 'x', the recording ''"),
        ({"n_channels": 5}, "n_channels is 5 in the index, 4 in the array"),
        ({"n_times": 1300}, "n_times is 1300 in the index, 1200 in the array"),
        ({"duration_s": 13.0}, "1200 samples at 100 Hz are not 13 s"),
        ({"spans": [0.0, 14.0]}, "good spans do not lie in order between 0 and 12 s"),
        ({"spans": [3.0, 2.0]}, "good spans do not lie in order"),
        ({"spans": [3.0]}, "good spans do not lie in order"),
        ({"n_bytes": 17}, r"its shards have \d+ bytes, the index says 17"),
        ({"kinds": "mag"}, "its sensors are eeg, the index says mag"),
        ({"sfreq": 200.0}, "sampled at 200 Hz, the contract says 100 Hz"),
        ({"montage": "f00"}, "its sensors are not those its montage was made of"),
        ({"n_events": 3}, "0 events, the index says 3"),
    ],
)
def test_a_row_of_the_index_that_does_not_fit_is_found(path, values, expected):
    set_row(path, **values)
    assert re.search(expected, faults(path))


def test_sensors_that_are_not_those_of_the_array_are_found(path):
    sensors = open_store(path).sensors("d_sub-anna").select([0, 1, 2])
    edit(path, lambda about: about.update(sensors=sensors.to_dict()))
    found = faults(path)
    assert "3 sensors for 4 channels" in found
    assert "not those its montage was made of" in found


def test_sensors_that_cannot_be_read_are_found(path):
    edit(path, lambda about: about["sensors"].update(kind=["eeg", "nose", "eeg", "eeg"]))
    assert "its metadata cannot be read: KeyError: 'NOSE'" in faults(path)


def test_a_kind_that_the_contract_does_not_keep_is_found(path):
    kinds = np.full(4, 8, np.int8)  # reference magnetometers
    table = Sensors.from_dict(open_store(path).attributes("d_sub-anna")["sensors"])
    edit(path, lambda about: about.update(sensors=table.evolve(kind=kinds).to_dict()))
    assert "ref_meg channels, which the contract does not keep" in faults(path)


def test_another_name_is_found(path):
    edit(path, lambda about: about["entities"].update(subject="otto"))
    assert "its entities make it d_sub-otto" in faults(path)


def test_an_event_without_an_onset_is_found(path):
    edit(path, lambda about: about.update(events=[{"duration_s": 1.0, "description": "x"}]))
    assert "an event without an onset" in faults(path)


@pytest.mark.parametrize("name", ["scale", "divisor"])
@pytest.mark.parametrize("value", [0.0, -1e-9, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_found(path, name, value):
    edit(path, lambda about: about[name].__setitem__(2, value), "signal")
    assert "a scale or divisor is not a positive number" in faults(path)


@pytest.mark.parametrize("name", ["scale", "divisor"])
def test_a_factor_that_is_not_what_was_measured_is_found(path, name):
    array = path / "recordings/d_sub-anna/signal/zarr.json"
    said = json.loads(array.read_text())["attributes"]
    edit(path, lambda about: about["quality"].update(robust_sd=said["divisor"]))
    assert faults(path) == ""
    edit(path, lambda about: about[name].__setitem__(2, 1000 * about[name][2]), "signal")
    assert f"the {name} of 1 channels is not what was measured of them: Pz" in faults(path)


def test_another_band_than_the_contracts_is_found(path):
    low, high = open_store(path).contract.band_hz
    step = {"step": "band_pass", "low_hz": low, "high_hz": high}
    edit(path, lambda about: about["provenance"].update(history=[step]))
    assert faults(path) == ""
    edit(path, lambda about: about["provenance"]["history"][0].update(low_hz=2 * low))
    assert f"filtered to {2 * low:g}-{high:g} Hz, the contract says {low:g}-" in faults(path)


LEAVES = ("entities", "sensors", "events", "row")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_metadata_say_verifying_ends_with_a_list(path, data):
    file = path / "recordings/d_sub-anna/zarr.json"
    before = file.read_text()
    table = json.loads(before)
    place = table["attributes"]
    key = data.draw(st.sampled_from(LEAVES))
    if data.draw(st.booleans()) and isinstance(place[key], dict):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    wild = st.one_of(st.none(), st.integers(), st.text(), st.lists(st.floats()), st.just({"a": 1}))
    place[key] = data.draw(wild)
    file.write_text(json.dumps(table))
    try:
        found = open_store(path).verify()
        assert all(line.startswith("d_sub-anna: ") for line in found)
    finally:
        file.write_text(before)


def test_units_that_are_not_the_sensors_are_found(path):
    edit(path, lambda about: about.update(units=["V", "V", "T", "V"]), "signal")
    assert "its units are not those of its sensors" in faults(path)


def test_a_shard_too_many_is_found(path):
    (path / "recordings/d_sub-anna/signal/c/0/7").write_bytes(b"left behind")
    assert "its shards have" in faults(path)


def test_a_flipped_bit_is_found(path):
    shard = path / "recordings/d_sub-anna/signal/c/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    assert "is damaged: its checksum does not match" in faults(path)


def test_two_rows_of_one_recording_are_found(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / "index.parquet"
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), file)
    assert "more than one row in the index" in faults(path)


def test_a_recording_outside_the_index_is_found(path, maker):
    maker.put(path, "carl")
    assert "d_sub-carl: not in the index" in open_store(path).verify()[0]

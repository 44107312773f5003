"""Tables: a row a sample, with what goes wrong in them."""

import numpy as np
import pytest

from neurofm.config import parse_config
from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.events import EventsConfig, collect_events
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.tables import TableReader

NAMES = ("TP9", "AF7", "AF8", "TP10")


def reader(**more):
    values = {
        "name": "table", "time": "t", "sfreq": 256, "ch_names": list(NAMES), "unit": "uV",
        "markers": ["Marker"], **more,
    }  # fmt: skip
    return parse_config(TableReader, values, where="test")


@pytest.fixture
def rows():
    """Ten seconds: time, four channels in microvolts, marker."""
    n = 2560
    rng = np.random.default_rng(0)
    table = np.column_stack([1000 + np.arange(n) / 256, rng.normal(0, 20, (n, 4)), np.zeros(n)])
    table[[512, 1024], 5] = [1, 2]
    return table


def write(path, table, *, header=("t", *NAMES, "Marker"), separator=",", extra=()):
    lines = [separator.join(f"{v:.9g}" for v in row) for row in table]
    for at, text in extra:
        lines.insert(at, text)
    path.write_text("\n".join([separator.join(header), *lines]) + "\n")
    return path


def events_of(raw):
    found, _ = collect_events(raw, EventsConfig())
    return [(round(e.onset_s, 4), e.description) for e in found]


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-6), ("mV", 1e-3), ("V", 1.0)])
def test_a_table_is_read_in_volts(tmp_path, rows, unit, factor):
    raw, facts = open_raw(write(tmp_path / "x.csv", rows), reader(unit=unit))
    assert (tuple(raw.ch_names), raw.info["sfreq"], facts.notes) == (NAMES, 256, [])
    np.testing.assert_allclose(raw.get_data(), rows[:, 1:5].T * factor, rtol=1e-7)
    np.testing.assert_allclose(
        raw.get_data(picks=[2, 0], start=100, stop=200),
        rows[100:200, [3, 1]].T * factor,
        rtol=1e-7,
    )
    assert events_of(raw) == [(2.0, "1"), (4.0, "2")]


def test_another_separator_and_times_in_milliseconds(tmp_path, rows):
    rows[:, 0] *= 1000
    path = write(tmp_path / "x.tsv", rows, separator="\t")
    raw, _ = open_raw(path, reader(separator="\t", time_unit="ms"))
    assert raw.n_times == len(rows)


def test_a_gap_is_joined_marked_and_told(tmp_path, rows):
    rows[1280:, 0] += 3.0
    raw, facts = open_raw(write(tmp_path / "x.csv", rows), reader())
    assert (5.0, "EDGE boundary") in events_of(raw)
    assert any("1 gaps, the longest 3 s: joined at 5.000 s" in n for n in facts.notes)


def test_jitter_is_no_gap(tmp_path, rows):
    rows[:, 0] += np.random.default_rng(1).uniform(-0.015, 0.015, len(rows))
    raw, facts = open_raw(write(tmp_path / "x.csv", rows), reader())
    assert (raw.n_times, facts.notes) == (len(rows), [])
    np.testing.assert_allclose(raw.get_data()[0] * 1e6, rows[:, 1], rtol=1e-6)


def test_lines_without_numbers_and_repeated_rows_are_left_out_and_told(tmp_path, rows):
    again = np.vstack([rows, rows[2400:2450][::-1]])
    extra = [(700, "x,y,z"), (900, "nan,1,2,3,4,0"), (950, "1,2,3,4,5,6,7,8,9")]
    raw, facts = open_raw(write(tmp_path / "x.csv", again, extra=extra), reader())
    np.testing.assert_allclose(raw.get_data()[0] * 1e6, rows[:, 1], rtol=1e-6)
    assert facts.notes == [
        "left out 3 lines that hold no numbers and 50 rows that repeat an earlier one (of 2613)"
    ]


def test_too_much_that_cannot_be_used_is_refused(tmp_path, rows):
    extra = [(10, "x,y,z")] * 400
    with pytest.raises(SourceError, match=r"400 lines that hold no numbers of 2960 cannot be used"):
        open_raw(write(tmp_path / "x.csv", rows, extra=extra), reader())


def test_time_that_runs_backwards_is_refused(tmp_path, rows):
    rows[1000:, 0] -= 2.0
    with pytest.raises(SourceError, match="time runs backwards: sample 1000 was taken 2 s before"):
        open_raw(write(tmp_path / "x.csv", rows), reader())


def test_a_rate_that_the_times_do_not_have_is_refused(tmp_path, rows):
    with pytest.raises(
        SourceError, match=r"stamps run at 256 Hz, the sampling rate is said .* 500"
    ):
        open_raw(write(tmp_path / "x.csv", rows), reader(sfreq=500))


def test_times_in_another_unit_are_refused(tmp_path, rows):
    path = write(tmp_path / "x.csv", rows)
    with pytest.raises(SourceError, match=r"stamps run at 2\.56e\+05 Hz.*\n.*the unit of time"):
        open_raw(path, reader(time_unit="ms"))
    rows[:, 0] = 7.0
    with pytest.raises(SourceError, match="stamps run at inf Hz"):
        open_raw(write(tmp_path / "y.csv", rows), reader())


def test_what_was_left_out_is_marked_where_no_time_tells_it(tmp_path, rows):
    rows[700:711, 2] = np.nan
    raw, facts = open_raw(write(tmp_path / "x.csv", rows), reader(time=None, markers=[]))
    assert facts.notes == ["left out 11 lines that hold no numbers (of 2560)"]
    assert raw.n_times == 2549
    assert events_of(raw) == [(round(700 / 256, 4), "EDGE boundary")]


def test_a_column_that_is_not_there_names_the_nearest(tmp_path, rows):
    path = write(tmp_path / "x.csv", rows, header=("time", *NAMES, "Marker0"))
    with pytest.raises(SourceError, match=r"no column 'Marker'; found time, .*\n.*'Marker0'"):
        open_raw(path, reader(time="time"))
    with pytest.raises(SourceError, match="no column 't'"):
        open_raw(path, reader())


def test_names_that_occur_twice_are_refused(tmp_path, rows):
    with pytest.raises(SourceError, match="occur more than once: 'TP9'"):
        open_raw(write(tmp_path / "x.csv", rows), reader(ch_names=["TP9", "TP9"]))


def test_an_empty_table_and_one_of_bytes_are_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"")
    with pytest.raises(SourceError, match="the file is empty"):
        open_raw(tmp_path / "x.csv", reader())
    (tmp_path / "y.csv").write_text("t,TP9,AF7,AF8,TP10,Marker\n")
    with pytest.raises(SourceError, match="no line of 0 cannot be used"):
        open_raw(tmp_path / "y.csv", reader())
    (tmp_path / "z.csv").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SourceError):
        open_raw(tmp_path / "z.csv", reader())


def test_a_table_without_a_unit_or_channels_is_refused_where_it_is_written():
    with pytest.raises(ConfigError, match="unit: Field required"):
        parse_config(
            TableReader, {"name": "table", "sfreq": 256, "ch_names": ["a"]}, where="x.yaml"
        )


def test_the_headband_file_with_a_gap_garbage_and_rows_turned_round_is_repaired(test_data):
    path = test_data / "broken" / "muse_gap_and_garbage.csv"
    raw, facts = open_raw(path, reader(time="timestamps", markers=["Marker0"]))
    assert raw.n_times == 1800 - 1 - 100
    assert any("left out 1 lines that hold no numbers and 100 rows" in n for n in facts.notes)
    assert any("longest 3.13 s: joined at 3.121 s" in n for n in facts.notes)


def test_real_headband_files_are_read_whole_with_their_markers(test_data):
    for path in sorted((test_data / "muse").rglob("*.csv")):
        raw, facts = open_raw(path, reader(time="timestamps", markers=["Marker0"]))
        assert raw.n_times == 30_732 and facts.notes == []
        names = [name for _, name in events_of(raw)]
        assert set(names) == {"1", "2"} and len(names) in (195, 197, 198)

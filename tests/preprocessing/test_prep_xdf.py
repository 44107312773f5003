"""XDF files, written here a chunk at a time."""

import struct
import sys

import numpy as np
import pytest

from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing.events import EventsConfig, collect_events
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.xdf import XdfReader

SFREQ = 100.0


def chunk(tag, content):
    body = struct.pack("<H", tag) + content
    return struct.pack("<BI", 4, len(body)) + body


def header(number, name, kind, n_channels, sfreq, dtype, desc=""):
    xml = (
        f"<?xml version='1.0'?><info><name>{name}</name><type>{kind}</type>"
        f"<channel_count>{n_channels}</channel_count><nominal_srate>{sfreq}</nominal_srate>"
        f"<channel_format>{dtype}</channel_format><desc>{desc}</desc></info>"
    )
    return chunk(2, struct.pack("<I", number) + xml.encode())


def samples(number, times, rows, *, text=False):
    content = struct.pack("<IBI", number, 4, len(times))
    for at, row in zip(times, rows, strict=True):
        content += struct.pack("<Bd", 8, at)
        if text:
            content += struct.pack("<BB", 1, len(row)) + row.encode()
        else:
            content += np.asarray(row, "<f4").tobytes()
    return chunk(3, content)


def channels(*told):
    cells = "".join(
        f"<channel><label>{label}</label><unit>{unit}</unit><type>{kind}</type></channel>"
        for label, unit, kind in told
    )
    return f"<channels>{cells}</channels>"


TOLD = channels(("Fz", "microvolts", "EEG"), ("Cz", "uV", "EEG"), ("acc", "g", "ACC"))


def write(path, *parts):
    xml = b"<?xml version='1.0'?><info><version>1.0</version></info>"
    path.write_bytes(b"XDF:" + chunk(1, xml) + b"".join(parts))
    return path


@pytest.fixture
def signal():
    return np.random.default_rng(0).normal(0, 20, (1000, 3)).astype("f4")


def stream(signal, desc=TOLD, number=1, name="amp", times=None):
    times = 50 + np.arange(len(signal)) / SFREQ if times is None else times
    return header(number, name, "EEG", signal.shape[1], SFREQ, "float32", desc) + samples(
        number, times, signal
    )


def test_brain_channels_are_read_in_volts_and_markers_at_their_sample(tmp_path, signal):
    marks = header(2, "marks", "Markers", 1, 0, "string") + samples(
        2, [52.0, 53.504, 99.0], ["left", "right", "late"], text=True
    )
    raw, _ = open_raw(write(tmp_path / "x.xdf", stream(signal), marks))
    assert (raw.ch_names, raw.info["sfreq"]) == (["Fz", "Cz"], SFREQ)
    np.testing.assert_allclose(raw.get_data(), signal.T[:2] * 1e-6, rtol=1e-6)
    events, _ = collect_events(raw, EventsConfig())
    assert [(round(e.onset_s, 3), e.description) for e in events] == [
        (2.0, "left"),
        (3.5, "right"),
    ]


def test_a_gap_is_joined_marked_and_told(tmp_path, signal):
    times = 50 + np.arange(1000) / SFREQ
    times[400:] += 5
    raw, facts = open_raw(write(tmp_path / "x.xdf", stream(signal, times=times)))
    events, _ = collect_events(raw, EventsConfig())
    assert [(e.onset_s, e.description) for e in events] == [(4.0, "EDGE boundary")]
    assert any("1 gaps, the longest 5.01 s" in n for n in facts.notes)


def test_a_unit_that_is_not_told_must_be_said(tmp_path, signal):
    path = write(tmp_path / "x.xdf", stream(signal, ""))
    with pytest.raises(SourceError, match=r"does not say what the numbers of 'CH1' .*\n.*unit: uV"):
        open_raw(path)
    told = XdfReader(unit="mV", ch_names=("C3", "Cz", "C4"))
    raw, _ = open_raw(path, told)
    assert raw.ch_names == ["C3", "Cz", "C4"]
    np.testing.assert_allclose(raw.get_data(), signal.T * 1e-3, rtol=1e-6)
    with pytest.raises(SourceError, match="has 3 channels, `ch_names` has 1 names"):
        open_raw(path, XdfReader(unit="mV", ch_names=("C3",)))


def test_one_of_several_streams_must_be_chosen(tmp_path, signal):
    path = write(tmp_path / "x.xdf", stream(signal), stream(signal * 2, number=2, name="cap"))
    with pytest.raises(SourceError, match=r"2 streams of type EEG; found 'amp' \(EEG\), 'cap'"):
        open_raw(path)
    raw, _ = open_raw(path, XdfReader(stream="cap"))
    np.testing.assert_allclose(raw.get_data(), signal.T[:2] * 2e-6, rtol=1e-6)
    with pytest.raises(SourceError, match="no streams 'cup'"):
        open_raw(path, XdfReader(stream="cup"))


def test_what_is_no_xdf_or_has_no_sample_is_refused(tmp_path, signal):
    (tmp_path / "x.xdf").write_bytes(b"0       " + b" " * 600)
    with pytest.raises(SourceError, match=r"named \.xdf but its content is EDF, not XDF"):
        open_raw(tmp_path / "x.xdf")
    empty = header(1, "amp", "EEG", 3, SFREQ, "float32", TOLD)
    with pytest.raises(SourceError, match="the stream 'amp' holds no sample"):
        open_raw(write(tmp_path / "y.xdf", empty))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_file_that_was_cut_is_refused(tmp_path, signal, share):
    times = 60 + np.arange(1000) / SFREQ
    more = [samples(1, times + 10 * i, signal) for i in range(5)]
    path = write(tmp_path / "x.xdf", stream(signal), *more)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SourceError, match=r"x\.xdf: cut short or damaged"):
        open_raw(path)


def test_without_pyxdf_the_extra_is_named(tmp_path, signal, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyxdf", None)
    with pytest.raises(ConfigError, match=r"need pyxdf.*\n.*neurofm\[formats\]"):
        open_raw(write(tmp_path / "x.xdf", stream(signal)))


def test_a_real_file_is_read_once_its_unit_is_said(test_data):
    path = test_data / "formats" / "xdf" / "test.xdf"
    raw, facts = open_raw(path, XdfReader(unit="uV"))
    assert (len(raw.ch_names), raw.n_times, raw.info["sfreq"]) == (8, 9520, 1000)
    assert any("time stamps run at 998.421 Hz, read as 1000 Hz" in n for n in facts.notes)

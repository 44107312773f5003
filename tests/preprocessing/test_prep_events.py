import mne
import numpy as np
import pytest

from neurofm.errors import SourceError
from neurofm.preprocessing.events import (
    CarryConfig,
    EventsConfig,
    collect_events,
    companion_path,
)

PLAIN = EventsConfig()


def told(events):
    return [(round(e.onset_s, 6), round(e.duration_s, 6), e.description) for e in events]


def with_date(raw):
    raw.set_meas_date(1_000_000_000)
    return raw


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("first_samp", [0, 1000])
def test_annotations_count_from_the_first_sample(make_raw, dated, first_samp):
    raw = make_raw(first_samp=first_samp)
    if dated:
        with_date(raw)
    raw.set_annotations(mne.Annotations([2.0], [0.5], ["blink"]))
    if dated:  # with a date, MNE takes onsets from the start of acquisition
        orig = raw.annotations.orig_time
        raw.set_annotations(mne.Annotations([2.0 + raw.first_time], [0.5], ["blink"], orig))
    events, _ = collect_events(raw, PLAIN)
    assert told(events) == [(2.0, 0.5, "blink")]


@pytest.mark.parametrize("start_s", [0, 3])
def test_annotations_stay_with_their_samples_when_mne_crops(make_raw, start_s, make_signal):
    signal = make_signal()
    signal[0, 1280] = 1e-3
    raw = with_date(make_raw(signal=signal))
    raw.set_annotations(mne.Annotations([5.0], [0.0], ["spike"], raw.info["meas_date"]))
    raw.crop(start_s)
    (event,), _ = collect_events(raw, PLAIN)
    assert np.argmax(raw.get_data()[0]) == round(event.onset_s * 256)


@pytest.mark.parametrize("first_samp", [0, 700])
def test_stim_channels_give_their_codes_at_their_onsets(make_raw, make_signal, first_samp):
    signal = make_signal(3)
    signal[2] = 0
    signal[2, 512:520] = 5
    signal[2, 1024] = 255
    raw = make_raw(("Fp1", "Cz", "STI 014"), ["eeg", "eeg", "stim"], signal=signal,
                   first_samp=first_samp)  # fmt: skip
    events, notes = collect_events(raw, PLAIN, stim=["STI 014"])
    assert told(events) == [(2.0, 0.0, "5"), (4.0, 0.0, "255")]
    assert notes == []


def test_of_several_stim_channels_each_event_says_which(make_raw, make_signal):
    signal = make_signal(2)
    signal[:] = 0
    signal[0, 256], signal[1, 512] = 1, 1
    raw = make_raw(("TRIG1", "TRIG2"), "stim", signal=signal)
    events, _ = collect_events(raw, PLAIN, stim=["TRIG1", "TRIG2"])
    assert told(events) == [(1.0, 0.0, "TRIG1/1"), (2.0, 0.0, "TRIG2/1")]


def test_a_clock_is_not_taken_for_triggers(make_raw):
    raw = make_raw(("SCLK",), "stim", signal=np.arange(2560.0)[None])
    events, notes = collect_events(raw, PLAIN, stim=["SCLK"])
    assert not events
    assert "a clock, not triggers" in notes[0]


@pytest.mark.parametrize("first_samp", [0, 500])
def test_a_companion_file_counts_from_the_start_of_acquisition(tmp_path, make_raw, first_samp):
    raw = make_raw(first_samp=first_samp)
    path = tmp_path / "x-eve.fif"
    mne.write_events(path, np.array([[first_samp + 256, 0, 3]]), verbose="error")
    events, _ = collect_events(raw, PLAIN, companion=path)
    assert told(events) == [(1.0, 0.0, "3")]


def test_events_out_of_range_are_dropped_and_counted(test_data):
    folder = test_data / "broken"
    raw = mne.io.read_raw(folder / "odd_channel_names_raw.fif", verbose="error")
    raw.set_annotations(None)
    companion = folder / "events_out_of_range-eve.fif"
    events, notes = collect_events(raw, PLAIN, companion=companion)
    assert [e.onset_s for e in events] == sorted(e.onset_s for e in events)
    assert notes == ["1 of 4 events lie outside the recording"]
    assert told(events) == [(0.0625, 0.0, "1"), (2.5, 0.0, "1"), (2.5, 0.0, "2")]


def test_a_missing_companion_is_refused_by_name(tmp_path, make_raw):
    with pytest.raises(SourceError, match=r"x-eve\.fif: the events file .* is not there"):
        collect_events(make_raw(), PLAIN, companion=tmp_path / "x-eve.fif")


def test_a_companion_that_holds_no_events_is_refused(tmp_path, make_raw):
    make_raw().save(tmp_path / "x-eve.fif", verbose="error")
    with pytest.raises(SourceError, match="not an events file"):
        collect_events(make_raw(), PLAIN, companion=tmp_path / "x-eve.fif")


@pytest.mark.parametrize(
    ("name", "companion"),
    [("record-[1]_raw.fif", "record-[1]-eve.fif"), ("a.b_raw.fif.gz", "a.b-eve.fif"),
     ("x.edf", "x-eve.fif")],
)  # fmt: skip
def test_the_companions_name_comes_from_the_recordings(tmp_path, name, companion):
    assert companion_path(tmp_path / name, "{stem}-eve.fif") == tmp_path / companion


def announced(*codes):
    """Annotations one second apart."""
    return mne.Annotations(np.arange(len(codes)) + 1.0, [0.1] * len(codes), codes)


def test_an_announced_label_moves_to_the_next_onset(make_raw):
    raw = make_raw().set_annotations(announced("33025", "go", "stop", "33026", "go", "go"))
    config = EventsConfig(
        carry=CarryConfig(labels=("33025", "33026"), onto="go"), rename={"33025": "13 Hz"}
    )
    events, notes = collect_events(raw, config)
    assert told(events) == [
        (2.0, 0.1, "go"), (2.0, 0.1, "13 Hz"), (3.0, 0.1, "stop"),
        (5.0, 0.1, "go"), (5.0, 0.1, "33026"), (6.0, 0.1, "go"),
    ]  # fmt: skip
    assert notes == []


def test_an_announcement_that_nothing_follows_is_told(make_raw):
    raw = make_raw().set_annotations(announced("a", "b", "go", "a"))
    config = EventsConfig(carry=CarryConfig(labels=("a", "b"), onto="go"))
    events, notes = collect_events(raw, config)
    assert [e.description for e in events] == ["go", "b"]
    assert notes == ["2 announcements were followed by no 'go'"]


def test_bad_spans_are_cut_to_the_recording_and_kept(make_raw):
    marks = mne.Annotations([8.0, 1.0], [5.0, 0.0], ["BAD_x", "EDGE"])
    raw = make_raw().set_annotations(marks, verbose="error")
    events, _ = collect_events(raw, PLAIN)
    assert [e.description for e in events] == ["EDGE", "BAD_x"]
    assert events[1].onset_s + events[1].duration_s == pytest.approx(10.0, abs=1 / 256)


def test_a_rename_that_fits_nothing_is_told(make_raw):
    raw = make_raw().set_annotations(announced("a"))
    _, notes = collect_events(raw, EventsConfig(rename={"b": "c"}))
    assert notes == ["no event of `rename` occurs"]


@pytest.mark.parametrize("description", ["boundary", "New Segment/"])
def test_joins_of_eeglab_and_brainvision_are_edges(make_raw, description):
    raw = make_raw().set_annotations(mne.Annotations([0.0, 4.0], [0, 3.0], [description] * 2))
    events, _ = collect_events(raw, PLAIN)
    edges = [e for e in told(events) if e[2] == "EDGE boundary"]
    assert edges == [(4.0, 0.0, "EDGE boundary")]


def test_a_map_of_labels_makes_classes_and_names_stay(make_raw):
    raw = make_raw()
    raw.set_annotations(mne.Annotations([1.0, 2.0, 3.0], 0.0, ["T0", "T1", "T2"]))
    config = EventsConfig(rename={"T2": "feet"}, classes={"T1": "hands", "feet": "both feet"})
    events, notes = collect_events(raw, config)
    assert [(e.description, e.label) for e in events] == [
        ("T0", ""), ("T1", "hands"), ("feet", "both feet")
    ]  # fmt: skip
    assert notes == []


def test_a_map_of_labels_that_fits_nothing_is_told(make_raw):
    raw = make_raw()
    raw.set_annotations(mne.Annotations([1.0], 0.0, ["T0"]))
    _, notes = collect_events(raw, EventsConfig(classes={"T1": "hands"}))
    assert notes == ["no event of `classes` occurs"]


def test_events_that_occur_twice_are_read_once(make_raw):
    raw = make_raw()
    raw.set_annotations(mne.Annotations([1.0, 1.0, 1.0], 0.0, ["a", "a", "b"]))
    events, notes = collect_events(raw, PLAIN)
    assert told(events) == [(1.0, 0.0, "a"), (1.0, 0.0, "b")]
    assert notes == ["1 events occur more than once and were read once"]


def test_unsorted_and_impossible_events_of_a_file_are_put_right_and_told(test_data):
    raw = mne.io.read_raw(test_data / "broken" / "nan_inf_flat_clipped_raw.fif", verbose="error")
    companion = test_data / "broken" / "events_out_of_range-eve.fif"
    events, notes = collect_events(raw, PLAIN, companion)
    onsets = [e.onset_s for e in events]
    assert onsets == sorted(onsets) and {"1", "2"} <= {e.description for e in events}
    assert "1 of 6 events lie outside the recording" in notes

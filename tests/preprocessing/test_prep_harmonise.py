import numpy as np
import pytest

from neurofm.contract import SignalContract, robust_sd
from neurofm.errors import SignalError
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.harmonise import dropped_channels, harmonise, notes_of
from neurofm.preprocessing.quality import measure_quality
from neurofm.signals import Entities, Event

ME = Entities(dataset="made", subject="1")


def test_a_recording_becomes_what_the_contract_says(make_recording, contract):
    done = harmonise(make_recording(sfreq=500.0), contract)
    assert (done.sfreq, done.signal.dtype, done.signal.shape) == (128, np.float32, (8, 1280))
    assert [s["step"] for s in done.history] == [
        "keep_kinds", "find_mains", "band_pass", "resample"
    ]  # fmt: skip


def test_a_rate_below_twice_the_band_is_refused_with_both_numbers(make_recording, contract):
    with pytest.raises(SignalError, match=r"80 Hz is below twice the band \(90 Hz\)"):
        harmonise(make_recording(sfreq=80.0), contract)


def test_a_rate_of_exactly_twice_the_band_is_enough(make_recording, contract):
    assert harmonise(make_recording(sfreq=90.0), contract).sfreq == 128


def test_less_than_a_window_is_refused(make_recording, contract):
    with pytest.raises(SignalError, match="1.5 s long, shorter than one window of 2 s"):
        harmonise(make_recording(duration_s=1.5), contract)


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (1e6, "look like uV declared as V"),
        (1e3, "look like mV declared as V"),
        (1e-3, "1000 times too small"),
        (1e-6, "1e+06 times too small"),
    ],
)
def test_unit_mistakes_are_refused_and_named_in_both_directions(
    make_recording, make_signal, contract, factor, told
):
    with pytest.raises(SignalError) as caught:
        harmonise(make_recording(make_signal() * factor), contract)
    assert told in caught.value.problem
    assert f"unit_scale: {1 / factor:g}" in caught.value.hint


def test_units_can_be_trusted_and_that_is_noted(make_recording, make_signal, contract):
    done = harmonise(make_recording(make_signal() * 1e6), contract, units="trust")
    assert "uV declared as V: trusted" in notes_of(done)[-1]


def test_kinds_outside_the_contract_go_by_name(make_recording):
    contract = SignalContract(sfreq=128, band_hz=(0.5, 45), window_s=2, kinds=("eeg",))
    recording = make_recording(names=("Fp1", "Cz", "S1"), types=["eeg", "eeg", "seeg"])
    done = harmonise(recording, contract)
    assert done.sensors.ch_names == ("Fp1", "Cz")
    assert dropped_channels(done) == {"S1": "of a kind the contract does not keep"}


def test_no_channel_of_the_contracts_kinds_is_refused(make_recording):
    contract = SignalContract(sfreq=128, band_hz=(0.5, 45), window_s=2, kinds=("mag", "eeg"))
    recording = make_recording(names=("S1", "S2"), types="seeg")
    with pytest.raises(SignalError, match="keeps mag, eeg; the recording has seeg"):
        harmonise(recording, contract)


@pytest.mark.parametrize("factor", [1e6, 1e-4])
def test_a_single_channel_in_other_units_is_dropped_before_it_swamps_the_reference(
    make_recording, make_signal, factor
):
    contract = SignalContract(
        sfreq=128, band_hz=(0.5, 45), window_s=2, reference={"eeg": "average"}
    )
    signal = make_signal()
    signal[3] *= factor
    done = harmonise(make_recording(signal), contract)
    assert list(dropped_channels(done)) == ["Cz"]
    assert robust_sd(done.signal).max() < 30e-6


@pytest.mark.parametrize(
    ("line_hz", "step"),
    [("none", None), (50.0, [50.0]), ("auto", [60.0])],
)
def test_mains_are_notched_as_the_contract_says(make_recording, make_signal, line_hz, step):
    contract = SignalContract(sfreq=256, band_hz=(0.5, 60), window_s=2, line_hz=line_hz)
    signal = make_signal(duration_s=20)
    signal += 20e-6 * np.sin(2 * np.pi * 60 * np.arange(signal.shape[1]) / 256)
    done = harmonise(make_recording(signal), contract)
    notches = [s["freqs_hz"] for s in done.history if s["step"] == "notch"]
    assert notches == ([step] if step else [])


def test_a_low_pass_in_the_header_below_the_band_is_told(make_raw, contract):
    raw = make_raw()
    with raw.info._unlock():
        raw.info["lowpass"] = 30.0
    done = harmonise(recording_from_raw(raw, ME), contract)
    assert notes_of(done) == ["recorded with a low-pass at 30 Hz, below the band's 45"]


def test_events_keep_their_seconds(make_recording, contract):
    events = (Event(onset_s=3.3, duration_s=1.0, description="x"),)
    assert harmonise(make_recording(events=events), contract).events == events


def test_an_event_still_points_at_its_sample(make_recording, make_signal, contract):
    signal = make_signal(sfreq=250.0) * 0.1
    signal[:, 1250:1260] += 2e-4
    event = Event(onset_s=5.0, duration_s=0.0, description="pulse")
    done = harmonise(make_recording(signal, sfreq=250.0, events=[event]), contract)
    peak_s = np.abs(done.signal).mean(axis=0).argmax() / done.sfreq
    assert peak_s == pytest.approx(5.02, abs=0.02)


def test_channel_order_is_the_files_order_throughout(make_recording, make_signal, contract):
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    signal = make_signal()
    names = np.array(["Fp1", "Fz", "C3", "Cz", "C4", "Pz", "O1", "O2"])
    plain = harmonise(make_recording(signal, names=names), contract)
    mixed = harmonise(make_recording(signal[order], names=names[order]), contract)
    assert mixed.sensors.ch_names == tuple(names[order])
    np.testing.assert_array_equal(mixed.signal, plain.signal[order])


def test_quality_counts_extremes_flat_stretches_and_bad_spans(make_recording, make_signal):
    signal = make_signal(duration_s=10.0)
    signal[1, 100:356] = signal[1, 100]
    signal[2, 500:510] = 1e-3
    events = [Event(onset_s=1.0, duration_s=2.5, description="BAD_move")]
    quality = measure_quality(make_recording(signal, events=events))
    assert quality["robust_sd"][0] == pytest.approx(20e-6, rel=0.05)
    assert quality["flat_share"][1] == pytest.approx(0.1, abs=0.002)
    assert quality["extreme_share"][2] == pytest.approx(10 / 2560, abs=1e-6)
    assert quality["good_share"] == 0.75

"""Audit: what is in two stores is found by names, by bytes and by signal; strangers are not."""

import dataclasses

import numpy as np
import pytest
import scipy.signal

from neurofm.contract import SignalContract
from neurofm.errors import StoreError
from neurofm.sensors import Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.audit import audit
from neurofm.store.fingerprint import Fingerprint, agreement, fingerprints
from neurofm.store.reader import open_store
from neurofm.store.writer import commit, create_store, write_recording

EEG, MAG = 0, 1


def brain(seed, seconds=60.0, sfreq=250.0, n_channels=8):
    """Mixed sources whose rhythms come and go, above pink noise; volts."""
    rng = np.random.default_rng(seed)
    n = round(seconds * sfreq)
    spectrum = np.fft.rfft(rng.normal(size=(4, n)))
    sources = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.fft.rfftfreq(n, 1 / sfreq), 0.5)), n)
    envelope = scipy.signal.resample(rng.gamma(2.0, size=(4, max(4, n // 200))), n, axis=1)
    rhythm = scipy.signal.sosfilt(
        scipy.signal.butter(2, (8, 12), "bandpass", fs=sfreq, output="sos"), rng.normal(size=(4, n))
    )
    mixed = rng.normal(size=(n_channels, 4)) @ (sources / sources.std() + envelope * rhythm)
    return (2e-5 * (mixed + 0.2 * rng.normal(size=mixed.shape))).astype(np.float32)


def passed(signal, low, high, sfreq):
    sos = scipy.signal.butter(4, (low, high), "bandpass", fs=sfreq, output="sos")
    return scipy.signal.sosfiltfilt(sos, signal)


def sensors(n, kind=EEG):
    return Sensors(
        ch_names=tuple(f"{kind}.{i}" for i in range(n)),
        kind=np.full(n, kind, np.int8),
        position=np.zeros((n, 3), np.float32),
        orientation=np.zeros((n, 3), np.float32),
        known=np.zeros(n, np.int8),
        oriented=np.zeros(n, bool),
        region=(None,) * n,
    )


@dataclasses.dataclass
class Shelf:
    """Makes stores of given signals in a folder."""

    folder: object

    def store(self, name, signals, sfreq, band_hz=(0.5, 40.0), dataset="d", hashes=None, kind=EEG):
        path = self.folder / name
        contract = SignalContract(sfreq=sfreq, band_hz=band_hz, window_s=1.0)
        create_store(path, contract)
        rows = []
        for subject, signal in signals.items():
            recording = Recording(
                signal=np.ascontiguousarray(signal, np.float32),
                sfreq=sfreq,
                sensors=sensors(len(signal), kind),
                entities=Entities(dataset=dataset, subject=subject),
            )
            provenance = {"source_hash": (hashes or {}).get(subject, "")}
            rows.append(write_recording(path, recording, quality={}, provenance=provenance))
        commit(path, rows)
        return path


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def resampled(x):
    return scipy.signal.resample(passed(x, 0.5, 40, 250), x.shape[1] * 100 // 250, axis=1)


MADE_ANEW = {
    "resampled": resampled,
    "re-referenced": lambda x: resampled(x - x.mean(axis=0)),
    "referenced to a channel": lambda x: resampled(np.delete(x - x[3], 3, axis=0)),
    "other order and gain": lambda x: 1e-3 * resampled(x)[::-1],
    "upside down": lambda x: -resampled(x),
    "filtered otherwise": lambda x: passed(resampled(x), 1.0, 35.0, 100),
    "rounded to a microvolt, as EDF does": lambda x: resampled(np.round(x * 1e6) / 1e6),
    "a channel lost": lambda x: resampled(x)[:-1],
    "its end cut": lambda x: resampled(x)[:, :2500],
    "cut anywhere": lambda x: resampled(x)[:, 1137:],
}


@pytest.mark.parametrize("change", MADE_ANEW)
def test_a_signal_is_found_again_whatever_was_done_to_it(shelf, change):
    signals = {f"p{i}": brain(i) for i in range(4)}
    a = shelf.store("a", {k: passed(v, 0.5, 45, 250) for k, v in signals.items()}, 250.0)
    anew = {"x": MADE_ANEW[change](signals["p2"]), "y": resampled(brain(99))}
    b = shelf.store("b", anew, 100.0, dataset="e")
    found = audit(a, b)
    (match,) = found.signals
    assert (match.a, match.b) == ("d_sub-p2", "e_sub-x")
    assert match.share > 0.85
    start, n = (11.37, 48.63) if change == "cut anywhere" else (0.0, anew["x"].shape[1] / 100)
    assert abs(match.start_a_s - match.start_b_s - start) < 0.2
    assert abs(match.duration_s - n) < 0.6
    assert (found.recordings, found.sources, found.people) == ((), (), ())
    assert not found.disjoint


def test_strangers_are_not_taken_for_each_other(shelf):
    a = shelf.store("a", {f"p{i}": brain(i) for i in range(12)}, 250.0)
    b = shelf.store("b", {f"q{i}": brain(100 + i) for i in range(12)}, 250.0)
    found = audit(a, b)
    assert found.disjoint
    assert "signals: none" in found.summary()


def test_strangers_share_half_of_their_bits():
    prints = []
    for seed in range(14):
        signal = brain(seed)
        prints += fingerprints(lambda i, j, s=signal: s[:, i:j], 15000, 250.0, np.zeros(8, int))
    found = [agreement(a, b, lag) for a in prints for b in prints if a is not b for lag in (0, 40)]
    shares, deviations = np.array(found)[:, 0], np.array(found)[:, 1]
    assert abs(shares.mean() - 0.5) < 0.01
    assert np.abs(shares - 0.5).max() < 0.09
    assert deviations.std() < 1.3  # what "a chance in 10^11" rests on


def test_a_large_store_is_gone_through_in_parts(shelf, monkeypatch):
    a = shelf.store("a", {f"p{i}": brain(i) for i in range(5)}, 250.0)
    b = shelf.store("b", {f"q{i}": brain(i) for i in (4, 1)}, 250.0)
    whole = audit(a, b).signals
    monkeypatch.setattr("neurofm.store.matching.WORDS_AT_ONCE", 300)
    assert audit(a, b).signals == whole
    assert [(m.a[-1], m.b[-1]) for m in whole] == [("1", "1"), ("4", "4")]


def test_people_shifted_in_time_within_one_signal_are_told(shelf):
    long = passed(brain(5, seconds=90), 0.5, 45, 250)
    a = shelf.store("a", {"p": long[:, : 60 * 250]}, 250.0)
    b = shelf.store("b", {"q": long[:, 30 * 250 :]}, 250.0)
    (match,) = audit(a, b).signals
    assert (match.start_a_s, match.start_b_s) == (30.0, 0.0)
    assert abs(match.duration_s - 30) < 0.6
    (match,) = audit(b, a).signals
    assert (match.start_a_s, match.start_b_s) == (0.0, 30.0)


def test_any_kind_of_sensor_is_compared(shelf):
    signal = brain(1, n_channels=6)
    a = shelf.store("a", {"p": 1e-8 * signal}, 250.0, kind=MAG)
    b = shelf.store("b", {"q": 1e-8 * signal[:, ::1]}, 250.0, kind=MAG)
    assert len(audit(a, b).signals) == 1


def test_a_store_beside_itself_shows_what_it_holds_twice(shelf):
    signals = {"p1": brain(1), "p2": brain(2), "p3": 3 * brain(1)}
    a = shelf.store("a", signals, 250.0, hashes={"p1": "f", "p2": "f", "p3": "g"})
    found = audit(a, a)
    assert [(m.a, m.b) for m in found.signals] == [("d_sub-p1", "d_sub-p3")]
    assert found.sources == (("d_sub-p1", "d_sub-p2"),)
    assert (found.recordings, found.people) == ((), ())


def test_names_and_hashes_are_compared(shelf):
    few = {f"p{i}": brain(i, seconds=4) for i in range(3)}
    a = shelf.store("a", few, 250.0, hashes={"p0": "one", "p1": "two"})
    again = {"p2": brain(10, seconds=4), "z": brain(11, seconds=4)}
    b = shelf.store("b", again, 250.0, hashes={"z": "two"})
    found = audit(a, b)
    assert found.recordings == ("d_sub-p2",)
    assert found.sources == (("d_sub-p1", "d_sub-z"),)
    assert found.people == (("d/p2", "d/p2"),)
    text = found.summary()
    assert "recording ids: 1\n  d_sub-p2\n" in text
    assert "files with the same bytes: 1\n  d_sub-p1 = d_sub-z\n" in text
    assert "people: 1\n  d/p2\n" in text
    assert "not compared: signals of 3 recording(s) in" in text
    assert "shorter than 10 s" in text


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [
        (("eegbci", "S001"), ("EEG_BCI", "1"), True),
        (("eegbci", "sub-01"), ("eegbci", "subject1"), True),
        (("eegbci", "A01"), ("eegbci", "B01"), False),
        (("eegbci", "S001"), ("other", "S001"), False),
        (("eegbci", "10"), ("eegbci", "1"), False),
    ],
)
def test_people_are_found_under_other_spellings(shelf, here, there, same):
    short = brain(0, seconds=2)
    a = shelf.store("a", {here[1]: short}, 250.0, dataset=here[0])
    b = shelf.store("b", {there[1]: short}, 250.0, dataset=there[0])
    expected = (("/".join(here), "/".join(there)),) if same else ()
    assert audit(a, b, signals=False).people == expected


def test_many_matches_are_cut_short_in_the_summary(shelf):
    few = {f"p{i}": brain(i, seconds=2) for i in range(5)}
    a, b = shelf.store("a", few, 250.0), shelf.store("b", few, 250.0)
    text = audit(a, b, signals=False).summary(most=2)
    assert "recording ids: 5\n  d_sub-p0\n  d_sub-p1\n  and 3 more\n" in text


def test_stores_that_share_too_narrow_a_band_say_so(shelf):
    a = shelf.store("a", {"p": brain(0)}, 250.0, band_hz=(0.5, 12.0))
    b = shelf.store("b", {"q": brain(0)}, 250.0)
    found = audit(a, b)
    assert found.signals == ()
    assert "share too narrow a band" in found.not_compared[0]


def test_a_narrower_band_that_both_share_is_used(shelf):
    signal = brain(3)
    a = shelf.store("a", {"p": passed(signal, 4, 24, 250)}, 250.0, band_hz=(4.0, 24.0))
    b = shelf.store("b", {"q": passed(signal, 0.5, 45, 250)}, 250.0)
    assert len(audit(a, b).signals) == 1


def test_monotonous_signals_are_not_taken_for_copies(shelf):
    t = np.arange(15000) / 250
    pulse = np.zeros((8, 15000))
    pulse[:, ::250] = 1e-4
    pulse[:, 100:110] = 3e-5
    hum = 1e-5 * np.sin(2 * np.pi * 10 * t) * np.arange(1, 9)[:, None]
    quiet = brain(1).astype(np.float64)
    quiet[:, 1000:] = 0.0
    quieter = brain(2).astype(np.float64)
    quieter[:, 1000:] = 0.0
    # half of the samples must move for a channel to have a scale
    noise = 1e-7 * np.random.default_rng(0).normal(size=(4, 8, 15000))
    a = shelf.store("a", {"hum": hum + noise[0], "pulse": pulse + noise[1]}, 250.0)
    b = shelf.store("b", {"hum": 2 * hum + noise[2], "pulse": pulse + noise[3]}, 250.0)
    assert {(m.a, m.b) for m in audit(a, b).signals} <= {("d_sub-pulse", "d_sub-pulse")}
    zeros = [
        fingerprints(lambda i, j, s=s: s[:, i:j], 15000, 250.0, np.zeros(8, int))[0]
        for s in (quiet, quieter)
    ]
    assert agreement(*zeros, 0)[1] < 5


def test_nothing_overlapping_is_no_agreement():
    some = Fingerprint(np.ones(20, np.uint16), np.ones(20, bool))
    assert agreement(some, some, 20) == (0.5, 0.0, 0)
    dead = Fingerprint(np.ones(20, np.uint16), np.zeros(20, bool))
    assert agreement(dead, some, 0) == (0.5, 0.0, 0)


def test_a_fingerprint_does_not_depend_on_how_the_signal_is_read():
    signal = brain(7, seconds=150)
    reads = []

    def read(start, stop):
        reads.append(stop - start)
        return signal[:, start:stop]

    (whole,) = fingerprints(read, signal.shape[1], 250.0, np.zeros(8, int))
    assert max(reads) <= 63 * 250
    assert len(whole) == 150 * 4 - 7 - 8
    (later,) = fingerprints(lambda i, j: signal[:, 5000 + i : 5000 + j], 30000, 250.0, np.zeros(8))
    assert agreement(whole, later, 80)[0] == 1.0


def test_a_missing_store_is_said(shelf):
    a = shelf.store("a", {"p": brain(0, seconds=2)}, 250.0)
    with pytest.raises(StoreError, match="there is no store at"):
        audit(a, shelf.folder / "none")


def test_real_recordings_are_told_apart_and_found_again(shelf, test_data):
    import mne

    files = sorted(test_data.glob("eegmat/*.edf"))[:8]
    raws = [mne.io.read_raw_edf(f, verbose="error").get_data(range(19)) for f in files]
    a = shelf.store("a", {f"p{i}": passed(x, 0.5, 45, 250) for i, x in enumerate(raws)}, 250.0)
    again = [np.round(x / 2e-6) * 2e-6 for x in raws]  # steps of 2 uV
    anew = {f"q{i}": resampled(x - x.mean(axis=0))[:, 437 * (i % 2) :] for i, x in enumerate(again)}
    b = shelf.store("b", anew, 100.0)
    found = audit(a, b).signals
    assert [(m.a[-1], m.b[-1]) for m in found] == [(str(i), str(i)) for i in range(8)]
    assert min(m.share for m in found) > 0.88
    assert audit(open_store(a), a).signals == ()

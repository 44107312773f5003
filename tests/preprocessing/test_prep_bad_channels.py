"""Bad channels: each criterion finds what was broken on purpose, and nothing else."""

import mne
import numpy as np
import pytest

from neurofm.electrodes import template_positions
from neurofm.preprocessing.bad_channels import FindBadChannels, Limits
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.steps import BandPass
from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities, Event, Recording

SFREQ = 128.0
CAP = [
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC1", "FC2", "T7", "C3", "Cz", "C4", "T8", "CP1",
    "CP2", "P7", "P3", "Pz", "P4", "P8", "O1", "Oz", "O2",
]  # fmt: skip


def brain(names=CAP, duration_s=60.0, seed=0):
    """Pink sources on a sphere, mixed by distance, and a little noise of each electrode."""
    rng = np.random.default_rng(seed)
    n = int(duration_s * SFREQ)
    spectrum = np.fft.rfft(rng.standard_normal((12, n)), axis=1)
    spectrum /= np.maximum(np.fft.rfftfreq(n, 1 / SFREQ), 1.0)
    sources = np.fft.irfft(spectrum, n, axis=1)
    at = np.array([template_positions()[name] for name in names])
    where = 0.7 * at[rng.choice(len(at), 12, replace=False)]
    gain = 1 / (0.02 + np.linalg.norm(at[:, None] - where[None], axis=2)) ** 2
    mixed = gain @ sources
    mixed += 0.1 * mixed.std() * rng.standard_normal(mixed.shape)
    return 20e-6 * mixed / mixed.std()


def recording_of(signal, names=CAP, kind="eeg", **changes):
    sensors = sensors_from_info(mne.create_info(list(names), SFREQ, kind))
    return Recording(
        signal=signal.astype(np.float32), sfreq=SFREQ, sensors=sensors,
        entities=Entities(dataset="made", subject="1"), **changes,
    )  # fmt: skip


CORRELATION_OFF = FindBadChannels(eeg=Limits(correlation=None))


def found(recording, finder=None):
    return {bad.name: bad for bad in (finder or FindBadChannels()).find(recording)}


def row(name):
    return CAP.index(name)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("duration_s", [9.0, 60.0])
def test_healthy_channels_are_left_alone(seed, duration_s):
    assert not found(recording_of(brain(duration_s=duration_s, seed=seed)))


@pytest.mark.parametrize("n", [2, 4, 8, 64])
def test_noise_without_anything_in_common_is_left_alone(n):
    names = [f"X{i}" for i in range(n)]
    signal = 20e-6 * np.random.default_rng(n).standard_normal((n, 6000))
    assert not found(recording_of(signal, names))


def test_a_flat_channel_is_found():
    signal = brain()
    signal[row("C3")] = 1e-6
    bad = found(recording_of(signal))
    assert list(bad) == ["C3"]
    assert bad["C3"].criterion == "flat"
    assert "flat for 100.0% of the time" in bad["C3"].why


def test_a_saturated_channel_is_found_from_what_reading_counted():
    history = ({"step": "read", "at_limits": {"Fz": 0.4, "Cz": 0.1}},)
    bad = found(recording_of(brain(), history=history))
    assert list(bad) == ["Fz"]
    assert bad["Fz"].why == "at its limits for 40.0% of the time (limit 20%)"
    assert bad["Fz"].to_dict() == {
        "name": "Fz", "criterion": "saturated", "value": 0.4, "limit": 0.2
    }  # fmt: skip


@pytest.mark.parametrize(("factor", "said"), [(1e4, "amplitude"), (1e-4, "1/")])
def test_a_channel_in_another_unit_is_found(factor, said):
    signal = brain()
    signal[row("Pz")] *= factor
    bad = found(recording_of(signal))
    assert list(bad) == ["Pz"]
    assert bad["Pz"].criterion == "amplitude"
    assert said in bad["Pz"].why


@pytest.mark.parametrize(
    ("factor", "told"),
    [(1e3, "(limit 200), as if mV had been taken for V"),
     (2e6, "(limit 200), as if uV had been taken for V"),
     (1e-3, "(limit 200), as if scaled to V once more than the others"),
     (3e4, "(limit 200)")],
)  # fmt: skip
def test_a_power_of_1000_is_named(factor, told):
    signal = brain()
    signal[row("Pz")] *= factor
    assert found(recording_of(signal))["Pz"].why.endswith(told)


def test_a_channel_whose_spectrum_is_another_is_found():
    signal = brain()
    signal[row("T7")] += 300e-6 * np.random.default_rng(1).standard_normal(signal.shape[1])
    bad = found(recording_of(signal))
    assert list(bad) == ["T7"]
    assert bad["T7"].criterion == "spectrum"
    assert bad["T7"].value > bad["T7"].limit == 1.5


def test_a_channel_that_follows_no_neighbour_is_found():
    signal = brain()
    signal[row("P4")] = signal[row("P4")][::-1]  # the right spectrum, at the wrong time
    bad = found(recording_of(signal))
    assert list(bad) == ["P4"]
    assert bad["P4"].criterion == "correlation"


def test_contacts_in_the_head_need_not_follow_their_neighbours():
    signal = brain()
    signal[row("P4")] = signal[row("P4")][::-1]
    assert not found(recording_of(signal, kind="seeg"))
    assert found(recording_of(signal, kind="eeg"))


@pytest.mark.parametrize("criterion", ["spectrum", "correlation"])
def test_a_criterion_can_be_switched_off(criterion):
    signal = brain()
    if criterion == "spectrum":
        signal[row("T7")] += 300e-6 * np.random.default_rng(1).standard_normal(signal.shape[1])
    else:
        signal[row("P4")] = signal[row("P4")][::-1]
    off = Limits(spectrum_iqr=None, correlation=None)
    assert found(recording_of(signal))
    assert not found(recording_of(signal), FindBadChannels(eeg=off))


def between(low_hz, high_hz, sd, n, seed=5):
    white = np.random.default_rng(seed).standard_normal(n)
    out = mne.filter.filter_data(white, SFREQ, low_hz, high_hz, verbose="error")
    return sd * out / out.std()


def test_frequencies_that_were_filtered_away_say_nothing_about_a_channel():
    signal = brain()
    made = BandPass(low_hz=1.0, high_hz=20.0)(recording_of(signal))
    rest = made.signal.copy()
    rest[0] += between(26, 60, 1e-6, signal.shape[1])
    assert not found(made.evolve(signal=rest.astype(np.float32)))
    assert found(recording_of(rest)), "were they in the band, they would"


def test_what_is_left_in_a_notch_says_nothing_about_a_channel():
    signal = brain()
    signal[0] += between(20, 60, 2e-4, signal.shape[1])
    assert found(recording_of(signal))
    notch = {"step": "notch", "freqs_hz": list(range(20, 64, 5))}
    assert not found(recording_of(signal, history=(notch,)), CORRELATION_OFF)


def test_stretches_marked_bad_do_not_make_a_channel_bad():
    signal = brain()
    fell = slice(0, int(30 * SFREQ))
    rng = np.random.default_rng(1)
    signal[row("O1"), fell] += 2e-3 * rng.standard_normal(int(30 * SFREQ))
    marked = (Event(onset_s=0.0, duration_s=30.0, description="BAD_electrode_off"),)
    assert "O1" in found(recording_of(signal))
    assert not found(recording_of(signal, events=marked))


def test_one_bad_channel_does_not_hide_behind_another():
    signal = brain()
    signal[row("Cz")] *= 1e5
    signal[row("P4")] = signal[row("P4")][::-1]
    assert {n: b.criterion for n, b in found(recording_of(signal)).items()} == {
        "Cz": "amplitude",
        "P4": "correlation",
    }


def test_kinds_are_compared_among_themselves():
    names = [*CAP, *(f"M{i}" for i in range(24))]
    signal = np.concatenate([brain(), 1e-8 * brain(seed=1)])
    kinds = ["eeg"] * 24 + ["mag"] * 24
    assert not found(recording_of(signal, names, kinds))
    signal[30] *= 1e4
    assert list(found(recording_of(signal, names, kinds))) == ["M6"]


def test_no_channel_of_real_recordings_is_called_bad_that_is_not(test_data):
    files = [f"eegmmidb/S00{s}/S00{s}R01.edf" for s in (1, 2, 3, 5)]
    files += ["formats/eeglab/eeglab_data.set"]
    for name in files:
        raw = mne.io.read_raw(test_data / name, verbose="error")
        recording = recording_from_raw(raw, Entities(dataset="real", subject="1"))
        clean = BandPass(low_hz=0.5, high_hz=45.0)(recording)
        assert not found(clean), name


def test_the_dead_coil_of_a_real_helmet_is_found(test_data):
    path = test_data / "meg/neuromag/141027_cropped_90Hz_raw.fif"
    raw = mne.io.read_raw(path, verbose="error")
    recording = recording_from_raw(raw, Entities(dataset="real", subject="1"))
    assert "MEG0413" in found(BandPass(low_hz=0.5, high_hz=40.0)(recording))

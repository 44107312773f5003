import numpy as np
import pytest
from scipy.signal import welch

from neurofm.errors import SignalError
from neurofm.preprocessing.harmonise import harmonise, notes_of
from neurofm.preprocessing.mains import find_mains, harmonics
from neurofm.preprocessing.reference import Rereference
from neurofm.preprocessing.steps import BandPass, Notch, Resample
from neurofm.signals import Event


def sine(freq, sfreq=256.0, duration_s=20.0, n_channels=1, amplitude=20e-6):
    t = np.arange(int(duration_s * sfreq)) / sfreq
    return np.tile(amplitude * np.sin(2 * np.pi * freq * t), (n_channels, 1))


def gain(before, after, sfreq=256.0):
    """Standard deviation after over before, away from the ends."""
    edge = int(4 * sfreq)
    return after[:, edge:-edge].std() / before[:, edge:-edge].std()


@pytest.mark.parametrize(
    ("freq", "low", "high"),
    [(0.1, 0, 0.1), (2, 0.98, 1.02), (10, 0.99, 1.01), (40, 0.98, 1.02), (60, 0, 0.01)],
)
def test_a_band_pass_takes_what_is_outside_and_leaves_what_is_inside(
    make_recording, freq, low, high
):
    signal = sine(freq)
    after = BandPass(low_hz=0.5, high_hz=45)(make_recording(signal, names=["Cz"])).signal
    assert low <= gain(signal, after) <= high


@pytest.mark.parametrize(("freq", "low", "high"), [(50, 0, 0.03), (45, 0.97, 1.03)])
def test_a_notch_takes_its_frequency_alone(make_recording, freq, low, high):
    signal = sine(freq)
    after = Notch(freqs_hz=(50.0,))(make_recording(signal, names=["Cz"])).signal
    assert low <= gain(signal, after) <= high


def test_filters_do_not_shift_phases(make_recording):
    signal = sine(10)
    recording = make_recording(signal, names=["Cz"])
    after = Notch(freqs_hz=(50.0,))(BandPass(low_hz=0.5, high_hz=45)(recording)).signal
    middle = slice(1024, -1024)
    assert np.corrcoef(signal[0, middle], after[0, middle])[0, 1] > 0.9999


def test_a_large_offset_does_not_cost_precision(make_recording):
    signal = sine(10) + 0.1
    after = BandPass(low_hz=0.5, high_hz=45)(make_recording(signal, names=["Cz"])).signal
    # float32 holds 0.1 V to 7 nV, the pass band is flat to 0.2 %: nothing is lost beyond that
    np.testing.assert_allclose(after[0, 1024:-1024], sine(10)[0, 1024:-1024], atol=6e-8)


@pytest.mark.parametrize("description", ["BAD boundary", "EDGE boundary", "BAD_ACQ_SKIP"])
def test_no_filter_runs_across_a_boundary(make_recording, description):
    signal = sine(10, duration_s=40)
    cut = signal.shape[1] // 2
    other = signal.copy()
    other[:, cut:] += 1e-3  # a step that would ring far into the first half
    events = [Event(onset_s=cut / 256, duration_s=0.0, description=description)]
    steps = (Notch(freqs_hz=(50.0,)), BandPass(low_hz=0.5, high_hz=45), Resample(sfreq=100))
    halves = []
    for samples in (signal, other):
        recording = make_recording(samples, names=["Cz"], events=events)
        for step in steps:
            recording = step(recording)
        halves.append(recording.signal[:, : round(cut / 256 * 100)])
    np.testing.assert_array_equal(*halves)


def test_without_a_boundary_a_step_does_ring(make_recording):
    signal = sine(10, duration_s=40)
    other = signal.copy()
    other[:, signal.shape[1] // 2 :] += 1e-3
    a, b = (
        BandPass(low_hz=0.5, high_hz=45)(make_recording(x, names=["Cz"])).signal
        for x in (signal, other)
    )
    assert np.abs(a - b)[:, : signal.shape[1] // 2].max() > 1e-5


@pytest.mark.parametrize("sfreq", [90.0, 128.0, 160.0, 250.0, 256.0, 300.3074951171875, 1000.0])
def test_resampling_keeps_shape_length_and_time(make_recording, sfreq):
    recording = make_recording(sine(8, sfreq), sfreq=sfreq, names=["Cz"])
    after = Resample(sfreq=128)(recording)
    assert after.sfreq == 128
    assert after.duration_s == pytest.approx(recording.duration_s, abs=1 / 128)
    t = np.arange(after.n_times) / 128
    expected = 20e-6 * np.sin(2 * np.pi * 8 * t)
    np.testing.assert_allclose(after.signal[0, 200:-200], expected[200:-200], atol=2e-7)


def test_resampling_does_not_fold_high_frequencies_down(make_recording):
    recording = make_recording(sine(100), names=["Cz"])
    assert Resample(sfreq=128)(recording).signal[:, 200:-200].std() < 1e-3 * 20e-6


def test_resampled_pieces_add_up_to_the_whole(make_recording):
    events = [Event(onset_s=s, duration_s=0.0, description="EDGE") for s in (1.013, 2.5, 7.77)]
    recording = make_recording(events=events, sfreq=250.0)
    whole = make_recording(sfreq=250.0)
    assert Resample(sfreq=128)(recording).n_times == Resample(sfreq=128)(whole).n_times


def test_an_average_reference_is_within_a_kind(make_recording):
    recording = make_recording(
        names=("Fp1", "Cz", "Oz", "S1", "S2"), types=["eeg"] * 3 + ["seeg"] * 2
    )
    after = Rereference(reference={"eeg": "average", "seeg": "as_recorded"})(recording).signal
    np.testing.assert_allclose(after[:3].mean(axis=0), 0, atol=1e-11)
    np.testing.assert_array_equal(after[3:], recording.signal[3:])


def test_an_average_of_one_channel_is_refused(make_recording):
    with pytest.raises(SignalError, match=r"a single eeg channel \(Cz\) leaves nothing"):
        Rereference(reference={"eeg": "average"})(make_recording(names=["Cz"]))


def test_every_step_is_in_the_history_with_its_parameters(make_recording):
    recording = make_recording()
    steps = (
        Notch(freqs_hz=(50.0, 100.0)),
        BandPass(low_hz=1, high_hz=40),
        Resample(sfreq=128),
        Rereference(reference={"eeg": "average"}),
    )
    for step in steps:
        recording = step(recording)
    assert recording.history == (
        {"step": "notch", "freqs_hz": [50.0, 100.0]},
        {"step": "band_pass", "low_hz": 1.0, "high_hz": 40.0},
        {"step": "resample", "from_hz": 256.0, "to_hz": 128.0},
        {"step": "rereference", "average": ["eeg"]},
    )


def test_a_high_pass_longer_than_the_recording_is_told(make_recording):
    recording = BandPass(low_hz=0.5, high_hz=45)(make_recording(duration_s=3))
    assert recording.history[-1]["notes"] == [
        "high-pass of 6.6 s on a stretch of 3 s: slow drifts stay"
    ]


# ---------------------------------------------------------------------------------------
# Mains


def brownish(duration_s, sfreq=256.0, n_channels=8, seed=0):
    noise = np.random.default_rng(seed).standard_normal((n_channels, int(duration_s * sfreq)))
    spectrum = np.fft.rfft(noise)
    freqs = np.fft.rfftfreq(noise.shape[1], 1 / sfreq)
    signal = np.fft.irfft(spectrum / np.maximum(freqs, 0.5), noise.shape[1])
    return 20e-6 * signal / signal.std()


@pytest.mark.parametrize("duration_s", [8, 60])
@pytest.mark.parametrize("line", [50.0, 60.0])
def test_mains_are_found(make_recording, line, duration_s):
    signal = brownish(duration_s) + sine(line, duration_s=duration_s, amplitude=2e-6)
    assert find_mains(make_recording(signal))[0] == line


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("duration_s", [2, 8, 60])
def test_no_mains_are_found_where_there_are_none(make_recording, duration_s, seed):
    assert find_mains(make_recording(brownish(duration_s, seed=seed)))[0] is None


def test_the_stronger_of_both_is_taken(make_recording):
    signal = brownish(60) + sine(50, duration_s=60, amplitude=2e-6)
    signal += sine(60, duration_s=60, amplitude=8e-6)
    assert find_mains(make_recording(signal))[0] == 60


def test_mains_that_stay_beside_the_stronger_are_told(make_recording, contract):
    signal = brownish(60) + sine(50, duration_s=60, amplitude=8e-6)
    one = harmonise(make_recording(signal), contract)
    signal = signal + sine(60, duration_s=60, amplitude=20e-6)
    both = harmonise(make_recording(signal), contract)
    assert not any("beside" in note for note in notes_of(one))
    assert "50 Hz stands out of the spectrum beside 60 Hz, and stays" in notes_of(both)


def test_mains_above_nyquist_are_not_looked_for(make_recording):
    assert find_mains(make_recording(sfreq=90.0)) == (None, {})


def test_harmonics_end_below_the_limit():
    assert harmonics(50, 200) == (50, 100, 150)
    assert harmonics(60, 58) == ()


def test_the_american_recordings_have_60_hz(test_data):
    import mne

    from neurofm.preprocessing.from_mne import recording_from_raw
    from neurofm.signals import Entities

    raw = mne.io.read_raw(test_data / "eegmmidb" / "S001" / "S001R05.edf", verbose="error")
    recording = recording_from_raw(raw, Entities(dataset="d", subject="1"))
    assert find_mains(recording)[0] == 60
    freqs, before = welch(recording.signal, 160, nperseg=640)
    _, after = welch(Notch(freqs_hz=(60.0,))(recording).signal, 160, nperseg=640)
    at = np.argmin(np.abs(freqs - 60))
    assert np.median(after[:, at] / before[:, at]) < 0.05

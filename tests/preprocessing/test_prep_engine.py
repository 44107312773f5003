import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurofm.preprocessing import engine
from neurofm.preprocessing.engine import Operator, run
from neurofm.preprocessing.steps import BandPass, Notch, Resample, fused
from neurofm.signals import Event

LINE = (50.0,)


def noise(n_channels, n_times, sfreq, seed=0):
    """Pink noise of 20 uV with mains in it, float64, shape (C, T)."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((n_channels, n_times)))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(n_times, 1 / sfreq), 0.05))
    signal = np.fft.irfft(spectrum, n_times)
    signal *= 20e-6 / signal.std()
    return signal + 5e-6 * np.sin(2 * np.pi * 50 * np.arange(n_times) / sfreq)


def mne_chain(signal, sfreq, to_hz, low, high, npad=100):
    out = mne.filter.notch_filter(signal, sfreq, np.array(LINE), verbose="error")
    out = mne.filter.filter_data(out, sfreq, low, high, verbose="error")
    if to_hz == sfreq:
        return out
    return mne.filter.resample(out, to_hz, sfreq, npad=npad, verbose="error")


def operator(sfreq, to_hz, low, high):
    steps = (Notch(freqs_hz=LINE), BandPass(low_hz=low, high_hz=high), Resample(sfreq=to_hz))
    return fused(steps, sfreq)


def filtered(signal, op, pieces=None, dtype=np.float64):
    out = np.full((len(signal), op.n_times_out(signal.shape[1])), np.nan, np.float32)

    def sink(start, block):
        out[:, start : start + block.shape[1]] = block

    pieces = pieces or [(0, signal.shape[1])]
    run(op, lambda a, b: signal[:, a:b], len(signal), pieces, sink, dtype)
    return out


def difference(ours, theirs, of=None):
    """Root mean square of the difference over that of `of`."""
    return np.sqrt(np.mean((ours - theirs) ** 2) / np.mean((theirs if of is None else of) ** 2))


CASES = [
    (500.0, 200.0, 0.1, 75.0, 300_000),
    (500.0, 500.0, 0.1, 75.0, 100_000),
    (256.0, 128.0, 0.5, 45.0, 60_000),
    (250.0, 200.0, 0.5, 45.0, 50_000),
    (1000.0, 250.0, 0.1, 100.0, 200_000),
    (128.0, 256.0, 0.5, 60.0, 40_000),
    (1000.0, 200.0, 1.0, 75.0, 60_000),
]


@pytest.mark.parametrize(("sfreq", "to_hz", "low", "high", "n_times"), CASES)
def test_one_pass_is_the_chain_of_mne_ends_included(sfreq, to_hz, low, high, n_times):
    signal = noise(3, n_times, sfreq)
    theirs = mne_chain(signal, sfreq, to_hz, low, high)
    ours = filtered(signal, operator(sfreq, to_hz, low, high))
    assert ours.shape == theirs.shape
    assert difference(ours, theirs) < 1e-3
    middle, ends = slice(int(5 * to_hz), -int(5 * to_hz)), int(2 * to_hz)
    assert difference(ours[:, middle], theirs[:, middle]) < 4e-4
    # MNE's resampling takes a recording for a circle, 100 samples after its ends: it rings there
    theirs = mne_chain(signal, sfreq, to_hz, low, high, npad=int(8 * sfreq))
    assert difference(ours[:, :ends], theirs[:, :ends]) < 1e-3
    assert difference(ours[:, -ends:], theirs[:, -ends:]) < 1e-3


@pytest.mark.parametrize("n_times", [3000, 15_000, 21_000])
def test_a_recording_shorter_than_its_filters_is_padded_as_mne_pads_it(n_times):
    signal = noise(2, n_times, 500.0)
    theirs = mne_chain(signal, 500.0, 200.0, 0.1, 75.0)
    assert difference(filtered(signal, operator(500.0, 200.0, 0.1, 75.0)), theirs) < 1e-3


@pytest.mark.parametrize(
    "drift",
    [
        lambda t: np.full_like(t, 0.05),
        lambda t: 2 * t,
        lambda t: 2 * t + 0.3 * np.sin(9 * t),
        lambda t: 2 * t**3,
    ],
    ids=["offset", "line", "swing", "curve"],
)
def test_a_drift_a_hundred_thousand_times_the_signal_costs_no_digits(drift):
    still = noise(2, 300_000, 500.0)
    signal = still + drift(np.linspace(0, 1, still.shape[1]))
    op = operator(500.0, 200.0, 0.1, 75.0)
    theirs = mne_chain(signal, 500.0, 200.0, 0.1, 75.0)
    middle = slice(4000, -4000)  # at its ends MNE's own resampling rings, 100 samples after a cut
    ours = filtered(signal, op)
    found = difference(ours[:, middle], theirs[:, middle], of=filtered(still, op)[:, middle])
    assert found < 1e-3


def test_blocks_of_any_length_give_the_same(monkeypatch):
    signal = noise(2, 150_000, 500.0)
    op = operator(500.0, 200.0, 0.5, 75.0)
    found = []
    for longest in (20_000, 100_000, 400_000):
        monkeypatch.setattr(engine, "_LONGEST", longest)
        found.append(filtered(signal, op))
    assert difference(found[1], found[0]) < 3e-6
    assert difference(found[2], found[0]) < 3e-6


@settings(max_examples=60)
@given(
    sfreq=st.sampled_from([100.0, 128.0, 250.0, 256.0, 300.3074951171875, 512.0, 1000.0]),
    to_hz=st.sampled_from([100.0, 128.0, 200.0, 250.0]),
    n_times=st.integers(1, 30_000),
    cuts=st.lists(st.integers(1, 30_000), max_size=4),
)
def test_every_sample_comes_out_once_and_in_order(sfreq, to_hz, n_times, cuts):
    op = fused((BandPass(low_hz=1, high_hz=40), Resample(sfreq=to_hz)), sfreq)
    edges = sorted({0, n_times, *(c for c in cuts if c < n_times)})
    pieces = list(zip(edges[:-1], edges[1:], strict=True))
    asked, came = [], []

    def read(start, stop):
        asked.append((start, stop))
        return np.ones((1, stop - start))

    run(op, read, 1, pieces, lambda start, block: came.append((start, block.shape[1])))
    assert [start for start, _ in asked] == [0, *(stop for _, stop in asked[:-1])]
    assert asked[-1][1] == n_times
    ends = [start + n for start, n in came]
    assert [start for start, _ in came] == [0, *ends[:-1]]
    assert ends[-1] == op.n_times_out(n_times) == max(1, round(n_times * to_hz / sfreq))


def test_nothing_runs_across_a_cut():
    op = operator(500.0, 200.0, 0.5, 75.0)
    signal = noise(2, 60_000, 500.0)
    other = signal.copy()
    other[:, 25_000:] += 1e-3
    pieces = [(0, 25_000), (25_000, 60_000)]
    a, b = (filtered(x, op, pieces) for x in (signal, other))
    np.testing.assert_array_equal(a[:, :10_000], b[:, :10_000])
    np.testing.assert_allclose(a[:, :10_000], filtered(signal[:, :25_000], op), atol=1e-10)


def test_after_a_cut_between_two_new_samples_time_goes_on():
    sfreq, to_hz, n = 250.0, 128.0, 20_000
    signal = 20e-6 * np.sin(2 * np.pi * 8 * np.arange(n) / sfreq)[None]
    op = fused((Resample(sfreq=to_hz),), sfreq)
    out = filtered(signal, op, [(0, 7_001), (7_001, n)])
    expected = 20e-6 * np.sin(2 * np.pi * 8 * np.arange(out.shape[1]) / to_hz)
    away = slice(4_000, -500)
    np.testing.assert_allclose(out[0, away], expected[away], atol=1e-7)


def test_a_channel_of_nan_spoils_no_other():
    op = operator(256.0, 128.0, 0.5, 45.0)
    signal = noise(6, 20_000, 256.0)
    alone = filtered(signal[[0, 1, 3, 4, 5]], op)
    signal[2, 500] = np.nan
    out = filtered(signal, op)
    np.testing.assert_allclose(np.delete(out, 2, axis=0), alone, atol=1e-10)
    assert np.isnan(out[2]).any()


def test_samples_that_float32_holds_may_stay_in_it():
    op = operator(500.0, 200.0, 0.1, 75.0)
    counts = np.rint(noise(2, 100_000, 500.0) / 1e-7) + 30_000
    narrow = filtered(counts.astype(np.float32), op, dtype=np.float32)
    np.testing.assert_allclose(narrow, filtered(counts, op), atol=2e-6 * counts.std())


def test_a_straight_line_is_left_as_the_filters_leave_it():
    op = Operator(250.0, 100.0)
    line = np.linspace(1.0, 3.0, 40_000)[None]
    np.testing.assert_allclose(filtered(line, op)[0], np.interp(
        np.arange(16_000) * 2.5, np.arange(40_000), line[0]), rtol=1e-6)  # fmt: skip


def test_mains_and_their_harmonics_go(make_recording):
    sfreq, n = 512.0, 40_960
    t = np.arange(n) / sfreq
    signal = sum(np.sin(2 * np.pi * f * t) for f in (50, 100, 30))[None] * 1e-5
    after = Notch(freqs_hz=(50.0, 100.0))(make_recording(signal, sfreq=sfreq, names=["Cz"]))
    np.testing.assert_allclose(
        after.signal[0, 4096:-4096], 1e-5 * np.sin(2 * np.pi * 30 * t)[4096:-4096], atol=5e-8
    )


def test_fusing_steps_is_applying_them_one_by_one(make_recording):
    signal = noise(2, 40_000, 250.0)
    events = [Event(onset_s=60.0, duration_s=0.0, description="EDGE")]
    recording = make_recording(signal, sfreq=250.0, names=["C3", "C4"], events=events)
    steps = (Notch(freqs_hz=LINE), BandPass(low_hz=0.5, high_hz=45), Resample(sfreq=125))
    one_by_one = recording
    for step in steps:
        one_by_one = step(one_by_one)
    together = filtered(recording.signal, fused(steps, 250.0), [(0, 15_000), (15_000, 40_000)])
    assert difference(together, one_by_one.signal) < 1e-4


def test_resampling_alone_rings_across_no_block(monkeypatch):
    signal = np.random.default_rng(0).standard_normal((2, 60_000))
    op = fused((Resample(sfreq=128.0),), 256.0)
    found = []
    for longest in (10_000, 100_000):
        monkeypatch.setattr(engine, "_LONGEST", longest)
        found.append(filtered(signal, op))
    assert difference(found[1], found[0]) < 5e-4

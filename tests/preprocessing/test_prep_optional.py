"""Cleaners of other libraries: what they find is what was put in; without them, the extra is named."""

import sys

import mne
import numpy as np
import pytest

from neurofm.electrodes import template_positions
from neurofm.errors import ConfigError
from neurofm.preprocessing.artefacts import MarkArtefacts
from neurofm.preprocessing.cleaning import BadChannels, CleaningConfig
from neurofm.preprocessing.history import marked_bad
from neurofm.preprocessing.optional import AutoReject, Ica, Ransac
from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities, Recording

SFREQ = 128.0
CAP = [
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz",
    "P4", "P8", "O1", "Oz", "O2",
]  # fmt: skip
AT = np.array([template_positions()[name] for name in CAP])


def brain(duration_s=40.0, seed=0):
    rng = np.random.default_rng(seed)
    where = 0.7 * AT[rng.choice(len(AT), 10, replace=False)]
    gain = 1 / (0.03 + np.linalg.norm(AT[:, None] - where[None], axis=2)) ** 2
    waves = mne.filter.filter_data(
        rng.standard_normal((10, int(duration_s * SFREQ))), SFREQ, 2, 30, verbose="error"
    )
    # rhythms that wax and wane, each in its own time
    slow = mne.filter.filter_data(
        rng.standard_normal(waves.shape), SFREQ, None, 0.5, verbose="error"
    )
    waves *= np.exp(1.5 * slow / slow.std())
    mixed = gain @ waves
    return 15e-6 * mixed / mixed.std()


def recording_of(signal, **changes):
    noise = 5e-7 * np.random.default_rng(9).standard_normal(signal.shape)
    sensors = sensors_from_info(mne.create_info(CAP, SFREQ, "eeg"))
    return Recording(
        signal=(signal + noise).astype(np.float32), sfreq=SFREQ, sensors=sensors,
        entities=Entities(dataset="made", subject="1"),
        history=({"step": "band_pass", "low_hz": 1.0, "high_hz": 45.0},), **changes,
    )  # fmt: skip


def blinks(duration_s=40.0, every_s=3.0):
    """A blink every few seconds, and what it does on the scalp."""
    wave = np.zeros(int(duration_s * SFREQ))
    hump = np.hanning(int(0.35 * SFREQ))
    for start in np.arange(1.0, duration_s - 1, every_s):
        at = int(start * SFREQ)
        wave[at : at + len(hump)] += hump
    eyes = np.array([0.0, 0.1, 0.0])
    gain = 1 / (0.01 + np.linalg.norm(AT - eyes, axis=1)) ** 2
    return 150e-6 * gain / gain.max(), wave


def test_ica_takes_blinks_out_and_leaves_the_brain():
    truth = brain()
    gain, wave = blinks()
    recording = recording_of(truth + gain[:, None] * wave)
    operator = Ica().operator(recording)
    made = operator(recording)
    seen = [abs(np.corrcoef(made.signal[i], wave)[0, 1]) for i in (0, 1)]
    before = [abs(np.corrcoef(recording.signal[i], wave)[0, 1]) for i in (0, 1)]
    assert min(before) > 0.8
    assert max(seen) < 0.2
    back = [np.corrcoef(made.signal[i], truth[i])[0, 1] for i in range(12, 20)]
    assert min(back) > 0.9
    removed = operator.step["removed"]["eeg"]
    assert {found["like"] for found in removed} == {"eyes"}
    assert operator.step["notes"] == [f"independent components removed: {len(removed)} of eeg"]


def test_ica_is_the_same_matrix_every_time():
    gain, wave = blinks()
    recording = recording_of(brain() + gain[:, None] * wave)
    a, b = (Ica().operator(recording).matrix for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_the_matrix_does_what_mne_does():
    gain, wave = blinks()
    recording = recording_of(brain() + gain[:, None] * wave)
    made = Ica()(recording)
    info = mne.create_info(CAP, SFREQ, "eeg")
    raw = mne.io.RawArray(recording.signal.astype(float), info, verbose="error")
    ica = mne.preprocessing.ICA(0.999, random_state=0, max_iter=500, verbose="error")
    ica.fit(raw, verbose="error")
    ica.exclude = [c["component"] for c in made.history[-1]["removed"]["eeg"]]
    expected = ica.apply(raw, verbose="error").get_data()
    # MNE keeps the offset of what it takes out; behind a high-pass there is none to keep
    ours = made.signal - made.signal.mean(axis=1, keepdims=True)
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, expected, atol=2e-3 * expected.std())


def test_ica_that_finds_nothing_changes_nothing():
    recording = recording_of(brain())
    assert Ica(eog=()).operator(recording) is None
    assert Ica(eog=("E1",))(recording) is recording


def test_ica_says_where_there_is_nothing_to_decompose():
    short = Ica()(recording_of(brain(10.0)))
    assert short.history[-1]["notes"] == ["10 s of eeg are too short for independent components"]
    np.testing.assert_allclose(short.signal, recording_of(brain(10.0)).signal)
    one = np.tile(brain()[:1], (20, 1))  # all channels alike: one component
    made = Ica()(recording_of(100 * one))
    assert made.history[-1]["notes"][0].startswith("no independent components of eeg: ")


def test_ransac_finds_what_others_do_not_predict():
    signal = brain()
    signal[CAP.index("Pz")] = 15e-6 * np.random.default_rng(3).standard_normal(signal.shape[1])
    recording = recording_of(signal)
    bad = {b.name: b for b in Ransac().find(recording, {})}
    assert "Pz" in bad
    assert "not predicted by other channels: correlation below 0.75" in bad["Pz"].why
    assert [b.name for b in Ransac().find(recording, {})] == list(bad)
    assert "Pz" not in {b.name for b in Ransac().find(recording, {"Pz": "known"})}


def test_what_ransac_finds_follows_the_policy():
    signal = brain()
    signal[CAP.index("Pz")] = 15e-6 * np.random.default_rng(3).standard_normal(signal.shape[1])
    made = BadChannels(policy="mark", ransac=Ransac(correlation=0.5))(recording_of(signal))
    assert "Pz" in marked_bad(made)
    criteria = {found["name"]: found["criterion"] for found in made.history[-1]["found"]}
    assert criteria["Pz"] in ("ransac", "correlation", "spectrum")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_autoreject_marks_windows_that_are_not_like_the_others():
    signal = brain()
    loud = slice(int(20 * SFREQ), int(22 * SFREQ))
    signal[:, loud] += 3e-4 * np.random.default_rng(1).standard_normal((20, 256))
    made = AutoReject(n_interpolate=(1, 4))(recording_of(signal))
    bad = [(e.onset_s, e.duration_s) for e in made.events if e.description == "BAD_autoreject"]
    assert (20.0, 2.0) in bad
    assert made.history[-1]["share"] <= 0.25
    np.testing.assert_array_equal(made.signal, recording_of(signal).signal)
    again = AutoReject(n_interpolate=(1, 4))(recording_of(signal))
    assert again.events == made.events


def test_autoreject_says_when_there_is_too_little_to_judge():
    made = AutoReject()(recording_of(brain(10.0)))
    assert not made.events
    assert made.history[-1]["notes"] == [
        "autoreject has not looked at 20 channels, 5 windows: too few"
    ]


@pytest.mark.parametrize(
    ("package", "module", "use"),
    [
        ("pyprep", "pyprep.ransac", lambda r: Ransac().find(r, {})),
        ("autoreject", "autoreject", lambda r: AutoReject()(r)),
    ],
)
def test_a_library_that_is_missing_names_the_extra(monkeypatch, package, module, use):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ConfigError,
        match=rf"(?s)needs {package}, which is not installed.*pip install 'neurofm\[clean\]'",
    ):
        use(recording_of(brain(10.0)))


def test_everything_together_leaves_its_marks_in_history():
    gain, wave = blinks()
    signal = brain() + gain[:, None] * wave
    signal[CAP.index("T8")] *= 1e4
    cleaning = CleaningConfig(ica=Ica(), artefacts=MarkArtefacts())
    made = cleaning.moments(cleaning.channels(recording_of(signal)))
    assert [s["step"] for s in made.history[1:]] == ["bad_channels", "ica", "mark_artefacts"]
    assert "T8" not in made.sensors.ch_names

"""What a tokenizer is measured by, on one that gives back exactly what it was shown."""

import mne
import numpy as np
import pytest
import torch
from stores import recording_of, write_store
from torch import nn

from neurofm.contract import SignalContract
from neurofm.nn.codebook import Quantised
from neurofm.sensors import sensors_from_info
from neurofm.signals import Event
from neurofm.store.reader import open_store
from neurofm.tokenizers.brain_parts import Reconstruction, cut
from neurofm.tokenizers.quality import QualityConfig, measure
from neurofm.tokenizers.spline import spline_matrix

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
CAP = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz",
    "P4", "P8", "O1", "O2", "Oz",
)  # fmt: skip
SEED = 4


class Echo(nn.Module):
    """Gives back what it sees, `gain` times as large, and silence for what it does not."""

    withholds, n_levels, n_codes = True, 2, 8

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain, self.shown = gain, []

    def rebuild(self, batch, seen):
        self.shown.append(seen)
        target = cut(batch.signal, 32)
        signal = self.gain * target * seen[..., None, None]
        codes = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 3]])
        quantised = Quantised(content=target, codes=codes, loss=target.new_zeros(()))
        return Reconstruction(signal=signal, target=target, quantised=quantised)

    def looks(self, batch):
        return torch.eye(batch.signal.shape[1])


def field(sensors, n_times, seed):
    """Potentials of a few dipoles below the scalp, in volts: smooth over the head."""
    draw = np.random.default_rng(seed)
    sources = 0.05 * draw.normal(size=(6, 3)) / 2 + [0, 0, 0.04]
    apart = np.linalg.norm(sensors.position[:, None] - sources, axis=-1)
    return 1e-8 * (1 / apart**2) @ draw.normal(size=(6, n_times)) * 1.5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    sensors = sensors_from_info(mne.create_info(list(CAP), 64.0, "eeg"))
    # nothing of the third is good for as long as a window
    bad = Event(onset_s=1.0, duration_s=18.0, description="BAD")
    recordings = (
        recording_of(
            field(sensors, 64 * 20, int(subject)), CAP,
            subject=subject, events=(bad,) * (subject == "3"),
        )
        for subject in "123"
    )  # fmt: skip
    return open_store(write_store(tmp_path_factory.mktemp("data") / "store", CONTRACT, *recordings))


def measured(store, coder, **config):
    return measure(QualityConfig(**config), coder, {str(store.path): store}, store.index, seed=SEED)


def test_what_was_shown_and_what_was_withheld_are_scored_apart(store):
    coder = Echo()
    table = measured(store, coder, withhold=0.25).by_kind().set_index("channels")
    assert [seen.sum(1).unique().tolist() for seen in coder.shown] == [[15], [15]]
    shown, withheld = table.loc["seen"], table.loc["withheld"]
    assert shown["recordings"] == 2
    assert [shown[k] for k in ("mae", "spectral")] == pytest.approx([0, 0], abs=1e-5)
    assert [shown[k] for k in ("pearson", "explained")] == pytest.approx([1, 1], abs=1e-5)
    # silence: as far off as the signal is large, in its spectrum too, and it explains nothing
    assert [withheld[k] for k in ("pearson", "explained")] == pytest.approx([0, 0], abs=0.1)
    assert withheld["spectral"] == pytest.approx(1.0, abs=0.05)
    assert withheld["mae"] == pytest.approx(0.8, abs=0.1)


def test_errors_are_in_deviations_of_a_patch_and_shares_of_its_spectrum(store):
    shown = measured(store, Echo(gain=1.5)).by_kind().set_index("channels").loc["seen"]
    assert shown["pearson"] == pytest.approx(1.0, abs=1e-5)
    assert shown["explained"] == pytest.approx(0.75, abs=0.05)  # off by half a deviation
    assert shown["spectral"] == pytest.approx(0.5, abs=0.05)


def test_splines_see_volts_of_the_same_channels_and_are_scored_beside(store):
    coder = Echo()
    both = measured(store, coder).scores.query("on == 'both'").set_index(["method", "recording_id"])
    for number, name in enumerate(("toy_sub-1", "toy_sub-2")):
        seen = coder.shown[number][0].numpy()
        targets, matrix = spline_matrix(store.sensors(name), seen)
        assert set(targets) == set(np.flatnonzero(~seen))
        volts = store.recording(name).signal
        volts = volts[:, : volts.shape[1] // 32 * 32]
        found, wanted = (x.reshape(len(targets), -1, 32) for x in (matrix @ volts, volts[targets]))
        r = np.mean(
            [
                np.corrcoef(a, b)[0, 1]
                for a, b in zip(found.reshape(-1, 32), wanted.reshape(-1, 32), strict=True)
            ]
        )
        assert both.loc[("spline", name), "pearson"] == pytest.approx(r, abs=0.02)
        assert both.loc[("tokenizer", name), "pearson"] == pytest.approx(0.0, abs=0.05)
        assert r > 0.8


def test_codes_are_counted_by_level_and_what_was_skipped_is_told(store):
    quality = measured(store, Echo())
    assert quality.skipped == ["toy_sub-3"]
    codes = quality.codes().set_index("level")
    assert codes.loc[1, "used"] == pytest.approx(1 / 8)
    assert codes.loc[1, "perplexity"] == pytest.approx(1.0)
    assert codes.loc[2, "used"] == pytest.approx(3 / 8)
    assert codes.loc[2, "perplexity"] == pytest.approx(2**1.5)


def test_a_picture_shows_channels_that_were_seen_and_then_some_that_were_not(store):
    coder = Echo()
    (picture,) = measured(store, coder).pictures
    at = [CAP.index(name) for name in picture.ch_names]
    assert picture.seen.tolist() == [True] * 3 + [False] * 3
    assert coder.shown[0][0, at].tolist() == picture.seen.tolist()
    np.testing.assert_allclose(picture.signal[:3], picture.target[:3], atol=1e-5)
    assert np.abs(picture.signal[3:] - picture.target[3:]).max() > 0.5
    assert picture.looks.shape == (20, 20)


def test_the_summary_says_who_is_ahead_and_by_how_much(store):
    quality = measured(store, Echo())
    both = quality.against_spline().set_index("method")["pearson"]
    gap = both["tokenizer"] - both["spline"]
    assert gap < -0.5
    assert f"({gap:+.3f})" in quality.summary()

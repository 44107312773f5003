"""Cleaning: one policy for channels however they were found to be bad, from file to store."""

import json

import mne
import numpy as np
import pytest

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.electrodes import template_positions
from neurofm.errors import ConfigError, SignalError, SourceError
from neurofm.preprocessing.artefacts import MarkArtefacts
from neurofm.preprocessing.cleaning import BadChannels, CleaningConfig
from neurofm.preprocessing.from_mne import RawReader, recording_from_raw
from neurofm.preprocessing.harmonise import dropped_channels, harmonise, harmonise_file, notes_of
from neurofm.preprocessing.history import marked_bad
from neurofm.preprocessing.quality import measure_quality
from neurofm.preprocessing.run import PreprocessConfig, run
from neurofm.preprocessing.spatial import Spatial
from neurofm.signals import Entities
from neurofm.store.reader import open_store

SFREQ = 256.0
CAP = [
    "Fp1", "Fp2", "F3", "F4", "Fz", "C3", "C4", "Cz", "P3", "P4", "Pz", "O1", "O2", "T7", "T8",
    "Oz",
]  # fmt: skip
CONTRACT = SignalContract(
    sfreq=128, band_hz=(0.5, 45.0), window_s=2.0, line_hz="none", reference={"eeg": "average"}
)
WHO = Entities(dataset="made", subject="1")


def potentials(duration_s=20.0, seed=0):
    """Sources seen by all of a cap, in volts, and a little noise of each electrode."""
    rng = np.random.default_rng(seed)
    at = np.array([template_positions()[name] for name in CAP])
    waves = rng.standard_normal((3, int(duration_s * SFREQ)))
    seen = at @ waves / 0.1
    return 20e-6 * (seen + 0.1 * rng.standard_normal(seen.shape))


def raw_of(signal, bads=(), names=CAP, types="eeg"):
    raw = mne.io.RawArray(signal, mne.create_info(list(names), SFREQ, types), verbose="error")
    raw.info["bads"] = list(bads)
    return raw


def broken():
    """Fp1 is marked in the file, Cz flat, O1 NaN, Pz in another unit; the rest is fine."""
    signal = potentials()
    signal[CAP.index("Cz")] = 3e-6
    signal[CAP.index("O1"), 100] = np.nan
    signal[CAP.index("Pz")] *= 1e4
    return raw_of(signal, bads=["Fp1"])


def policy(name, **more):
    return CleaningConfig(bad_channels=BadChannels(policy=name, **more))


def both_ways(raw, cleaning, contract=CONTRACT):
    """Harmonise in memory, and block by block."""
    how = cleaning.bad_channels.policy
    in_memory = harmonise(recording_from_raw(raw, WHO, bad_channels=how), contract, cleaning)
    streamed = harmonise_file(RawReader(raw, WHO, bad_channels=how), contract, None, cleaning)
    return in_memory, streamed


def signal_of(recording, name):
    return np.asarray(recording.signal)[recording.sensors.ch_names.index(name)]


def test_bad_channels_are_dropped_with_their_reasons():
    made = harmonise(recording_from_raw(broken(), WHO), CONTRACT)
    dropped = dropped_channels(made)
    assert set(dropped) == {"Fp1", "Cz", "O1", "Pz"}
    assert dropped["Fp1"] == "marked bad in the file"
    assert dropped["Cz"].startswith("constant at")
    assert "NaN" in dropped["O1"]
    assert "times the median channel of its kind" in dropped["Pz"]
    assert len(made.sensors) == 12


def test_every_bad_channel_can_be_interpolated_whatever_was_wrong_with_it():
    whole, _ = both_ways(raw_of(potentials()), CleaningConfig())
    made, _ = both_ways(broken(), policy("interpolate"))
    assert made.sensors == whole.sensors
    assert not dropped_channels(made)
    assert not marked_bad(made)
    for name in ("Fp1", "Cz", "O1", "Pz"):
        assert np.corrcoef(signal_of(made, name), signal_of(whole, name))[0, 1] > 0.8
    (note,) = notes_of(made)
    assert note.startswith("interpolated ")
    assert "Fp1 (marked bad in the file)" in note
    assert "Cz (constant at" in note


def test_marked_channels_stay_and_have_no_part_in_the_average():
    made, _ = both_ways(broken(), policy("mark"))
    assert set(marked_bad(made)) == {"Fp1", "Pz"}
    assert {"Fp1", "Pz"} <= set(made.sensors.ch_names)
    assert set(dropped_channels(made)) == {"Cz", "O1"}, "without a signal there is nothing to mark"
    good = [i for i, name in enumerate(made.sensors.ch_names) if name not in ("Fp1", "Pz")]
    np.testing.assert_allclose(np.asarray(made.signal)[good].mean(axis=0), 0, atol=1e-10)
    assert set(measure_quality(made)["bad"]) == {"Fp1", "Pz"}


def test_keep_looks_for_nothing_but_knows_what_the_file_says():
    # in a unit that is still plausible, so that only the search for bad channels would see it
    raw = raw_of(potentials(), bads=["Fp1"])
    raw._data[CAP.index("Pz")] *= 500
    made, _ = both_ways(raw, policy("keep"))
    assert set(marked_bad(made)) == {"Fp1"}
    assert notes_of(made) == ["bad, and kept: Fp1 (marked bad in the file)"]
    assert "Pz" in made.sensors.ch_names


@pytest.mark.parametrize("name", ["drop", "interpolate", "mark", "keep"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_blocks_and_memory_give_the_same(name):
    raw = broken() if name != "keep" else raw_of(potentials(), bads=["Fp1"])
    cleaning = policy(name).model_copy(update={"artefacts": MarkArtefacts()})
    a, b = both_ways(raw, cleaning)
    assert a.sensors == b.sensors
    assert a.events == b.events
    assert [step["step"] for step in a.history] == [step["step"] for step in b.history]
    np.testing.assert_allclose(np.asarray(b.signal), a.signal, atol=2e-4 * a.signal.std())


def test_a_healthy_recording_goes_through_untouched():
    made, _ = both_ways(raw_of(potentials()), CleaningConfig())
    assert len(made.sensors) == 16
    assert "bad_channels" not in {step["step"] for step in made.history}
    assert "mark_artefacts" not in {step["step"] for step in made.history}


def test_bad_channels_do_not_spoil_the_average():
    signal = potentials()
    healthy, _ = both_ways(raw_of(signal[:15], names=CAP[:15]), CleaningConfig())
    signal[15] *= 1e4
    made, _ = both_ways(raw_of(signal), CleaningConfig())
    np.testing.assert_allclose(made.signal, healthy.signal, atol=1e-10)


def test_channels_beside_a_marked_contact_are_not_derived_from_it():
    names = [f"LA{i}" for i in range(1, 9)]
    signal = 1e-4 * np.random.default_rng(0).standard_normal((8, 5120))
    contract = CONTRACT.model_copy(update={"reference": {"seeg": "bipolar"}})
    raw = raw_of(signal, bads=["LA4"], names=names, types="seeg")
    recording = recording_from_raw(raw, WHO, bad_channels="mark", allow_unlocated=True)
    made = harmonise(recording, contract, policy("mark"))
    assert not any("LA4" in name for name in made.sensors.ch_names)
    assert dropped_channels(made)["LA4"].startswith("marked bad in the file; its neighbours")


def test_a_limit_can_be_set_for_one_sort_of_sensor():
    signal = potentials()
    signal[3] *= 4
    strict = parse_config(
        CleaningConfig, {"bad_channels": {"eeg": {"amplitude_ratio": 3.0}}}, where="test"
    )
    assert not CleaningConfig().find_bad(recording_from_raw(raw_of(signal), WHO))
    (bad,) = strict.find_bad(recording_from_raw(raw_of(signal), WHO))
    assert (bad.name, bad.criterion, bad.limit) == (CAP[3], "amplitude", 3.0)


def test_an_operator_says_what_would_be_done():
    recording = recording_from_raw(broken(), WHO)
    operator = CleaningConfig().spatial(recording)
    assert isinstance(operator, Spatial)
    assert operator.step["policy"] == "drop"
    assert [found["name"] for found in operator.step["found"]] == ["Pz"]
    json.dumps(operator.step)
    assert CleaningConfig().spatial(recording_from_raw(raw_of(potentials()), WHO)) is None


def test_a_recording_of_bad_channels_only_is_refused():
    raw = raw_of(potentials(), bads=CAP)
    reader = RawReader(raw, WHO, bad_channels="interpolate")
    with pytest.raises(SignalError, match="every channel is bad: Fp1 .marked bad in the file.*and 12 more"):  # fmt: skip
        harmonise_file(reader, CONTRACT, None, policy("interpolate"))


def test_moments_at_the_limits_are_marked_though_filters_hide_them():
    signal = potentials()
    at = slice(int(8 * SFREQ), int(8.2 * SFREQ))
    signal[4, at] = 9e-5
    signal[4, int(12 * SFREQ) : int(12.1 * SFREQ)] = 9e-5
    signal = np.minimum(signal, 9e-5)
    cleaning = CleaningConfig(artefacts=MarkArtefacts(amplitude=None, jump_sd=None, muscle_z=None))
    for made in both_ways(raw_of(signal), cleaning):
        spans = [(e.onset_s, e.onset_s + e.duration_s) for e in made.events]
        assert {e.description for e in made.events} == {"BAD_clipping"}
        for start, stop in ((8.0, 8.2), (12.0, 12.1)):
            assert any(a <= start and stop <= b for a, b in spans)
        assert made.history[-1]["share"] < 0.2


def test_a_saturated_channel_goes_and_takes_no_moments_with_it():
    signal = potentials()
    signal[4] = np.clip(signal[4], -5e-6, 5e-6)
    cleaning = CleaningConfig(artefacts=MarkArtefacts())
    for made in both_ways(raw_of(signal), cleaning):
        assert "at its limits for" in dropped_channels(made)["Fz"]
        assert not made.events


def test_group_normalisation_is_brainomnis():
    contract = CONTRACT.model_copy(update={"reference": {}, "normalisation": "group"})
    made, _ = both_ways(raw_of(potentials()), CleaningConfig(), contract)
    divisor = contract.divisor(made.signal, made.sensors.kind)
    standard = made.signal / divisor[:, None]
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std(), 1, rtol=1e-4)
    assert standard.std(axis=1).max() > 1.2 * standard.std(axis=1).min()


# ---------------------------------------------------------------------------------------
# From file to store


def config(tmp_path, **changes):
    values = {
        "dataset": "made",
        "root": str(tmp_path / "in"),
        "store": str(tmp_path / "store"),
        "contract": CONTRACT.to_dict(),
        "sources": [{"pattern": "{subject}.fif"}],
        "workers": 0,
    }
    return parse_config(PreprocessConfig, values | changes, where="test")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    broken().save(tmp_path / "in" / "1_raw.fif", verbose="error")
    (tmp_path / "in" / "1_raw.fif").rename(tmp_path / "in" / "1.fif")
    return tmp_path


@pytest.mark.parametrize(("name", "n"), [("drop", 12), ("interpolate", 16), ("mark", 14)])
@pytest.mark.filterwarnings("ignore:.*does not conform:RuntimeWarning")
def test_a_store_holds_what_the_policy_says(folder, name, n):
    result = run(config(folder, cleaning={"bad_channels": {"policy": name}}))
    assert list(result.report["status"]) == ["kept"]
    store = open_store(folder / "store")
    (recording_id,) = store.index["recording_id"]
    assert len(store.sensors(recording_id)) == n
    provenance = store.provenance(recording_id)
    assert provenance["cleaning"]["bad_channels"]["policy"] == name
    report = result.report.iloc[0]
    assert "Pz" in (report["notes"] if name == "interpolate" else report["dropped"] + str(
        provenance))  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not conform:RuntimeWarning")
def test_another_cleaning_is_not_taken_for_the_same(folder):
    run(config(folder))
    again = run(config(folder))
    assert list(again.report["status"]) == ["skipped"]
    with pytest.raises(SourceError, match="made with other settings: cleaning"):
        run(config(folder, cleaning={"bad_channels": {"policy": "mark"}}))


def test_an_unknown_key_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown key 'cleaning\.bad_channels\.polcy'"):
        config(tmp_path, cleaning={"bad_channels": {"polcy": "drop"}})

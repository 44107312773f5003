import numpy as np
import pytest
from pydantic import ValidationError

from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import SignalError
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.harmonise import harmonise
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.reference import Rereference
from neurofm.preprocessing.run import CONFIG, run
from neurofm.sensors import Knowledge, SensorKind
from neurofm.signals import Entities
from neurofm.store.reader import open_store

ME = Entities(dataset="d", subject="1")


def on_shafts(make_recording, names, positions=None, kind="seeg", **changes):
    recording = make_recording(names=names, types=kind, duration_s=1.0)
    if positions is not None:
        changes["position"] = np.asarray(positions, np.float32)
        changes["known"] = np.full(len(names), Knowledge.MEASURED, np.int8)
    return recording.evolve(sensors=recording.sensors.evolve(**changes))


def line(n, step=(0.0035, 0, 0)):
    return np.arange(n)[:, None] * np.array(step)


def test_bipolar_is_the_difference_of_neighbours_midway_between_them(make_recording):
    names = ["LA1", "LA2", "LA3", "RB1", "RB2"]
    places = np.concatenate([line(3), line(2) + 0.05])
    recording = on_shafts(make_recording, names, places)
    after = Rereference(reference={"seeg": "bipolar"})(recording)
    assert after.sensors.ch_names == ("LA1-LA2", "LA2-LA3", "RB1-RB2")
    assert after.sensors.reference == ("LA2", "LA3", "RB2")
    assert after.sensors.bipolar.all()
    x = recording.signal
    np.testing.assert_allclose(after.signal, [x[0] - x[1], x[1] - x[2], x[3] - x[4]], atol=1e-10)
    np.testing.assert_allclose(after.sensors.position[0], [0.00175, 0, 0], atol=1e-8)
    np.testing.assert_allclose(after.sensors.position[2], [0.05175, 0.05, 0.05], atol=1e-8)
    assert after.history[-1] == {"step": "rereference", "bipolar": ["seeg"]}


def test_bipolar_pairs_numbers_and_not_the_order_in_the_file(make_recording):
    recording = on_shafts(make_recording, ["L'2", "L'10", "L'9", "L'1"])
    after = Rereference(reference={"seeg": "bipolar"})(recording)
    assert after.sensors.ch_names == ("L'9-L'10", "L'1-L'2")
    np.testing.assert_allclose(after.signal[1], recording.signal[3] - recording.signal[0])
    assert not after.sensors.located.any()


def test_a_missing_contact_has_no_neighbours_across_the_gap(make_recording):
    recording = on_shafts(make_recording, ["A1", "A2", "A4", "A5", "B1"])
    after = Rereference(reference={"seeg": "bipolar"})(recording)
    assert after.sensors.ch_names == ("A1-A2", "A4-A5")
    assert after.history[-1]["dropped"] == {"B1": "no neighbour on its shaft"}


def test_contacts_whose_places_are_far_apart_are_no_neighbours(make_recording):
    places = line(5)
    places[3:] += [0.02, 0, 0]  # the shaft was cut and goes on elsewhere
    recording = on_shafts(make_recording, [f"A{i}" for i in range(1, 6)], places)
    after = Rereference(reference={"seeg": "bipolar"})(recording)
    assert after.sensors.ch_names == ("A1-A2", "A2-A3", "A4-A5")


def test_what_is_common_to_neighbours_is_gone_and_other_kinds_stay(make_recording):
    names = ["A1", "A2", "A3", "Cz", "Pz"]
    recording = make_recording(names=names, types=["seeg"] * 3 + ["eeg"] * 2, duration_s=1.0)
    common = np.zeros_like(recording.signal)
    common[:3] = np.random.default_rng(1).standard_normal(recording.n_times)
    noisy = recording.evolve(signal=recording.signal + common)
    for how in ("bipolar", "laplacian"):
        step = Rereference(reference={"seeg": how})
        after, noisy_after = step(recording), step(noisy)
        np.testing.assert_allclose(after.signal, noisy_after.signal, atol=1e-6)
        assert after.sensors.ch_names[-2:] == ("Cz", "Pz")
        np.testing.assert_array_equal(after.signal[-2:], recording.signal[-2:])


def test_laplacian_takes_the_mean_of_both_neighbours_and_drops_ends(make_recording):
    recording = on_shafts(make_recording, ["A1", "A2", "A3", "A4"], line(4))
    after = Rereference(reference={"seeg": "laplacian"})(recording)
    x = recording.signal
    assert after.sensors.ch_names == ("A2", "A3")
    assert after.sensors.reference == ("laplacian", "laplacian")
    np.testing.assert_allclose(after.signal[0], x[1] - (x[0] + x[2]) / 2, atol=1e-10)
    np.testing.assert_array_equal(after.sensors.position, recording.sensors.position[1:3])
    dropped = dict.fromkeys(("A1", "A4"), "at the end of its shaft")
    assert after.history[-1]["dropped"] == dropped


def grid(make_recording, located=True):
    places = np.array([(0.01 * x, 0.01 * y, 0) for x in range(5) for y in range(6)])
    names = [f"G{i}" for i in range(1, 31)]
    return on_shafts(make_recording, names, places if located else None, kind="ecog")


def test_on_a_grid_the_laplacian_takes_all_that_lie_beside(make_recording):
    recording = grid(make_recording)
    after = Rereference(reference={"ecog": "laplacian"})(recording)
    assert len(after.sensors) == 30
    row, x = after.sensors.ch_names.index("G8"), recording.signal  # second row, second column
    np.testing.assert_allclose(after.signal[row], x[7] - x[[1, 13, 6, 8]].mean(0), atol=1e-9)


def test_a_grid_has_no_pairs_across_the_end_of_a_row(make_recording):
    after = Rereference(reference={"ecog": "bipolar"})(grid(make_recording))
    assert "G6-G7" not in after.sensors.ch_names
    assert len(after.sensors) == 25


def test_a_grid_without_positions_is_refused(make_recording):
    with pytest.raises(
        SignalError, match="bipolar reference leaves nothing of 30 ecog.*30 contacts of a grid"
    ):
        Rereference(reference={"ecog": "bipolar"})(grid(make_recording, located=False))


def test_names_that_are_no_contacts_are_refused_with_what_to_do(make_recording):
    recording = on_shafts(make_recording, ["left", "right"])
    with pytest.raises(SignalError, match=r"left: its name is not that of a contact.*\n.*LA1, LA2"):
        Rereference(reference={"seeg": "laplacian"})(recording)


def test_what_is_bipolar_already_stays_and_has_no_laplacian(make_recording):
    recording = on_shafts(make_recording, ["A1", "A2", "B1-B2"], reference=(None, None, "B2"))
    after = Rereference(reference={"seeg": "bipolar"})(recording)
    assert after.sensors.ch_names == ("A1-A2", "B1-B2")
    np.testing.assert_array_equal(after.signal[1], recording.signal[2])
    for how in ("laplacian", "average"):
        with pytest.raises(
            SignalError, match=rf"{how} reference of 3 seeg .* 1 are bipolar .*B1-B2"
        ):
            Rereference(reference={"seeg": how})(recording)


def test_an_average_is_remembered_by_its_channels(make_recording):
    recording = make_recording(names=["Fz", "Cz", "L1"], types=["eeg", "eeg", "seeg"])
    after = Rereference(reference={"eeg": "average"})(recording)
    assert after.sensors.reference == ("average", "average", None)
    np.testing.assert_allclose(after.signal[:2].sum(axis=0), 0, atol=1e-10)
    np.testing.assert_array_equal(after.signal[2], recording.signal[2])


def test_an_average_of_derivations_leaves_them_derivations(make_recording):
    recording = make_recording(names=["Fp1-F7", "F7-T7"])
    after = Rereference(reference={"eeg": "average"})(recording)
    assert after.sensors.reference == ("F7", "T7")


def test_nothing_to_reference_is_no_step(make_recording):
    recording = make_recording()
    step = Rereference(reference={"seeg": "bipolar", "eeg": "as_recorded"})
    assert step.operator(recording) is None
    assert step(recording) is recording


@pytest.mark.parametrize("how", ["bipolar", "laplacian"])
def test_caps_and_helmets_have_no_shafts(how):
    with pytest.raises(ValidationError, match=f"reference.eeg is {how}, which is for contacts"):
        SignalContract(sfreq=128, band_hz=(0.5, 45), window_s=2, reference={"eeg": how})


def test_the_contacts_of_a_real_implantation_are_paired(test_data):
    raw, facts = open_raw(test_data / "ieeg" / "seeg" / "sample_seeg.edf")
    recording = recording_from_raw(
        raw, ME, channels={"?'*": "seeg"}, allow_unlocated=True, facts=facts
    )
    after = Rereference(reference={"seeg": "bipolar"})(recording)
    # shafts of 14, 12, 14, 16, 16, 16 contacts: one pair fewer each
    assert len(recording.sensors) == 88
    assert len(after.sensors) == 88 - 6
    assert {"L'8-L'9", "N'7-N'8", "F'8-F'9"} <= set(after.sensors.ch_names)


def test_a_real_grid_strips_and_shafts_are_told_apart(test_data):
    raw, facts = open_raw(test_data / "ieeg" / "ecog" / "sample_ecog_ieeg.fif")
    recording = recording_from_raw(raw, ME, facts=facts)
    after = Rereference(reference={"ecog": "laplacian", "seeg": "bipolar"})(recording)
    ecog = after.sensors.select(after.sensors.of_kind(SensorKind.ECOG))
    assert 250 < len(ecog) <= 320
    pairs = after.sensors.select(after.sensors.of_kind(SensorKind.SEEG))
    assert "AD1-AD2" in pairs.ch_names and pairs.located.all()
    assert np.linalg.norm(pairs.position, axis=1).max() < 0.12


def test_a_contract_makes_pairs_of_contacts_on_the_way_to_the_store(tmp_path, test_data):
    folder = test_data / "ieeg" / "seeg"
    asked = {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2, "reference": {"seeg": "bipolar"}}
    channels = {"?'*": "seeg"}
    values = {
        "dataset": "d",
        "root": str(folder),
        "store": str(tmp_path / "store"),
        "contract": asked,
        "sources": [{"subject": "1", "channels": channels, "allow_unlocated": True}],
        "workers": 0,
    }
    run(parse_config(CONFIG, values, where="test"))
    stored = open_store(tmp_path / "store").recording("d_sub-1")
    raw, facts = open_raw(folder / "sample_seeg.edf")
    whole = recording_from_raw(raw, ME, channels=channels, allow_unlocated=True, facts=facts)
    here = harmonise(whole, SignalContract(**asked))
    assert stored.sensors == here.sensors
    assert stored.sensors.bipolar.all() and stored.sensors.reference[0] == "L'2"
    # quantised to sixteen bits
    error = (stored.signal - here.signal).std(axis=1) / here.signal.std(axis=1)
    assert error.max() < 1e-2


def test_a_source_says_what_potentials_are_taken_against(tmp_path, write_edf):
    write_edf(tmp_path / "raw" / "1.edf", names=("Fz", "C3-A2", "Pz"))
    values = {
        "dataset": "d",
        "root": str(tmp_path / "raw"),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2},
        "sources": [{"subject": "1", "reference": "FCz"}],
        "workers": 0,
    }
    run(parse_config(CONFIG, values, where="test"))
    sensors = open_store(tmp_path / "store").recording("d_sub-1").sensors
    assert (sensors.ch_names, sensors.reference) == (("Fz", "C3", "Pz"), ("FCz", "A2", "FCz"))

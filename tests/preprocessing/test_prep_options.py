"""What a source and a contract ask for reaches what does it, channel by channel."""

import mne
import numpy as np
import pytest

from neurofm.contract import SignalContract
from neurofm.electrodes import montage_positions
from neurofm.preprocessing import make
from neurofm.preprocessing.bad_channels import FindBadChannels, Limits
from neurofm.preprocessing.cleaning import BadChannels, CleaningConfig
from neurofm.preprocessing.events import EventsConfig
from neurofm.preprocessing.from_mne import RawReader, recording_from_raw
from neurofm.preprocessing.harmonise import harmonise, harmonise_file
from neurofm.preprocessing.ieeg import bipolar
from neurofm.preprocessing.optional import Ransac
from neurofm.preprocessing.reference import Rereference
from neurofm.preprocessing.sources import SourceConfig
from neurofm.preprocessing.sss import SssConfig
from neurofm.preprocessing.steps import BandPass, told
from neurofm.preprocessing.task import Task, hash_of, stat_of
from neurofm.sensors import SensorKind
from neurofm.signals import Entities
from neurofm.store.writer import create_store

ME = Entities(dataset="made", subject="1")
CONTRACT = SignalContract(sfreq=128, band_hz=(0.5, 45.0), window_s=2.0, ctf_grade=2)
NAMES = ("Fp1", "Fz", "C3", "Cz", "C4", "Pz", "O1", "O2")
# which files there are and what they are called, or told with the recording's own place
FOUND_BY = {
    "root", "dataset", "include", "exclude", "pattern", "subject", "session", "task", "run",
}  # fmt: skip


def test_every_option_of_a_source_reaches_what_acts_on_it(tmp_path, write_edf, monkeypatch):
    path = write_edf(tmp_path / "a.edf")
    mne.write_events(tmp_path / "a-eve.fif", np.array([[256, 0, 7]]), verbose="error")
    values = {
        "unit_scale": 2.0, "units": "trust", "reference": "A1", "frame": "scan", "sss": SssConfig(frame="meg"),
        "rename": {"Fp1": "F7"}, "montage": "biosemi16", "channels": {"O1": "drop"},
        "events": EventsConfig(companion="{stem}-eve.fif"), "allow_unlocated": True,
    }  # fmt: skip
    source = SourceConfig(**values)
    assert set(values) | FOUND_BY | {"reader"} == set(SourceConfig.model_fields)
    cleaning = CleaningConfig(bad_channels=BadChannels(policy="mark"))
    asked = {}

    def opened(path, reader, sss):
        asked.update(reader=reader, sss=sss)
        return open_raw(path, reader, None)

    def renamed(raw, rename, where):
        asked.update(rename=rename)

    def read(raw, entities, **reading):
        asked.update(reading)
        return RawReader(raw, entities, **reading)

    def harmonised(reader, contract, folder, cleaning, *, units):
        asked.update(contract=contract, cleaning=cleaning, units=units)
        return harmonise_file(reader, contract, folder, cleaning, units=units)

    open_raw = make.open_raw
    for name, spy in (("open_raw", opened), ("rename_channels", renamed), ("RawReader", read),
                      ("harmonise_file", harmonised)):  # fmt: skip
        monkeypatch.setattr(make, name, spy)
    create_store(tmp_path / "store", CONTRACT)
    outcome = make.preprocess_one(
        Task(
            path=path, relative="a.edf", entities=ME, source=source, contract=CONTRACT,
            cleaning=cleaning, store=tmp_path / "store",
        )
    )  # fmt: skip
    assert outcome.error is None
    facts = asked.pop("facts")
    assert (facts.reference, facts.frame) == ("A1", "scan")
    assert facts.template == montage_positions("biosemi16")
    assert asked == {
        "reader": source.reader, "sss": values["sss"], "rename": values["rename"],
        "channels": values["channels"], "events": values["events"],
        "companion": tmp_path / "a-eve.fif", "unit_scale": 2.0, "allow_unlocated": True,
        "ctf_grade": 2, "bad_channels": "mark", "contract": CONTRACT, "cleaning": cleaning,
        "units": "trust",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reader", {"name": "bids"}), ("unit_scale", 2.0), ("units", "trust"),
        ("reference", "A1"), ("frame", "scan"), ("sss", {}), ("rename", {"Fp1": "F7"}), ("montage", "biosemi16"),
        ("channels", {"O1": "drop"}), ("events", {"rename": {"a": "b"}}),
        ("events", {"classes": {"a": "b"}}), ("allow_unlocated", True),
    ],
)  # fmt: skip
def test_a_recording_in_the_store_was_made_with_the_same_settings_or_is_refused(key, value):
    assert SourceConfig.model_validate({key: value}).reading() != SourceConfig().reading()


def test_where_a_file_lies_and_what_it_is_called_is_no_setting():
    elsewhere = {
        "root": "a", "dataset": "d", "include": ("*.edf",), "exclude": ("b*",), "subject": "1",
        "pattern": "{subject}.edf", "session": "1", "task": "1", "run": "1",
    }  # fmt: skip
    assert set(elsewhere) == FOUND_BY
    assert SourceConfig(**elsewhere).reading() == SourceConfig().reading()


def test_files_that_are_read_beside_a_recording_are_its_files(tmp_path):
    beside = SourceConfig(events=EventsConfig(companion="{stem}-eve.fif"))
    assert beside.files(tmp_path / "a.edf") == [tmp_path / "a.edf", tmp_path / "a-eve.fif"]
    (tmp_path / "b.set").touch()
    (tmp_path / "b.fdt").touch()
    assert SourceConfig().files(tmp_path / "b.set") == [tmp_path / "b.set", tmp_path / "b.fdt"]


def test_a_recording_is_as_large_as_its_files_together_and_as_new_as_the_newest(tmp_path):
    files = [tmp_path / name for name in "abc"]
    for number, file in enumerate(files):
        file.write_bytes(file.name.encode() * 10**number)
    size, changed = stat_of(files)
    assert size == 111
    assert changed == max(file.stat().st_mtime_ns for file in files)
    hashes = {hash_of(files), hash_of(files[::-1]), hash_of(files[1:]), hash_of(files, "part")}
    assert len(hashes) == 4


# ---------------------------------------------------------------------------------------
# Rows of what is kept


@pytest.mark.parametrize("direct", [False, True])
def test_rows_of_kinds_that_are_not_kept_are_nobody_elses(tmp_path, write_edf, direct):
    """The first channels go; every channel of the file has a resolution of its own."""
    signal = 2e-5 * np.random.default_rng(0).standard_normal((8, 2560))
    if direct:
        import pybv

        pybv.write_brainvision(
            data=signal, sfreq=256.0, ch_names=list(NAMES), fname_base="a", folder_out=tmp_path,
            resolution=[0.01 * (1 + i) for i in range(8)], unit="µV", fmt="binary_int16",
        )  # fmt: skip
        path = tmp_path / "a.vhdr"
    else:
        path = write_edf(tmp_path / "a.edf", signal=signal)
    raw = mne.io.read_raw(path, verbose="error")
    kinds = SignalContract(sfreq=128, band_hz=(0.5, 45.0), window_s=2.0, kinds=("eeg",))
    reading = {"channels": {"Fp1": "seeg", "C3": "ecog"}, "allow_unlocated": True}
    reader = RawReader(raw, ME, **reading)
    assert (reader.direct is not None) == direct
    by_blocks = harmonise_file(reader, kinds, tmp_path)
    whole = harmonise(recording_from_raw(raw, ME, **reading), kinds)
    assert by_blocks.sensors.ch_names == ("Fz", "Cz", "C4", "Pz", "O1", "O2")
    np.testing.assert_allclose(by_blocks.signal[:, :], whole.signal, atol=1e-9)
    for name, row in zip(by_blocks.sensors.ch_names, whole.signal, strict=True):
        own = signal[NAMES.index(name)]
        kept = mne.filter.resample(own, down=2, verbose="error")
        assert np.corrcoef(kept[100:-100], row[100:-100])[0, 1] > 0.5


# ---------------------------------------------------------------------------------------
# Kinds apart


def test_contacts_of_two_regions_are_in_none_between_them(make_recording):
    recording = make_recording(names=("LA1", "LA2", "LA3"), types="seeg")
    sensors = recording.sensors.evolve(region=("hippocampus", "hippocampus", "amygdala"))
    made = bipolar(sensors, SensorKind.SEEG)
    assert made.sensors.region == ("hippocampus", None)


@pytest.mark.parametrize("how", ["bipolar", "laplacian"])
def test_nothing_is_derived_from_a_contact_that_is_marked(make_recording, how):
    names = tuple(f"LA{i}" for i in range(1, 8))
    recording = make_recording(names=names, types="seeg")
    marked = recording.evolve({"step": "read", "bad": {"LA4": "marked bad in the file"}})
    made = Rereference(reference={"seeg": how}).operator(marked)
    assert not made.matrix[:, 3].any()
    assert len(made.sensors) == (4 if how == "bipolar" else 2)
    assert not any("LA4" in name for name in made.sensors.ch_names)


def test_each_sort_of_sensor_has_limits_of_its_own(make_recording, make_signal):
    signal = make_signal()
    signal[2, : signal.shape[1] * 4 // 10] = 0.0  # flat for four tenths of the time
    loose, strict = (Limits(flat_share=share, spectrum_iqr=None) for share in (0.9, 0.3))
    sorts = {"eeg": "eeg", "meg": "mag", "ieeg": "seeg"}
    for sort, kind in sorts.items():
        recording = make_recording(signal=signal, types=kind)
        its_own = {name: strict if name == sort else loose for name in sorts}
        others = {name: loose if name == sort else strict for name in sorts}
        assert [bad.name for bad in FindBadChannels(**its_own).find(recording)] == ["C3"]
        assert FindBadChannels(**others).find(recording) == ()


def test_channels_without_places_are_nobodys_neighbour_but_others(make_recording):
    common = np.random.default_rng(0).standard_normal(2560)
    signal = 1e-5 * (common + 0.5 * np.random.default_rng(1).standard_normal((8, 2560)))
    signal[5] = 1e-5 * np.random.default_rng(2).standard_normal(2560)
    names = tuple(f"X{i}" for i in range(8))
    found = FindBadChannels(eeg=Limits(correlation=0.3)).find(
        make_recording(signal=signal, names=names)
    )
    assert [bad.name for bad in found] == ["X5"]


def test_a_channel_that_is_mostly_flat_is_quieter_than_any_unit_explains(
    make_recording, make_signal
):
    signal = make_signal()
    signal[2, : signal.shape[1] * 6 // 10] = 0.0
    (bad,) = FindBadChannels().find(make_recording(signal=signal))
    assert (bad.name, bad.criterion, bad.value) == ("C3", "amplitude", 0.0)
    assert "scaled" not in bad.why


def test_ransac_is_asked_where_it_is_wanted(make_recording, monkeypatch):
    from neurofm.preprocessing.bad_channels import BadChannel

    bad = BadChannel(name="Cz", criterion="ransac", value=0.1, limit=0.5, why="not predicted")
    monkeypatch.setattr(Ransac, "find", lambda self, recording, known: (bad,))
    recording = make_recording()
    assert BadChannels().find(recording) == ()
    assert BadChannels(ransac=Ransac()).find(recording) == (bad,)


def test_a_high_pass_is_told_of_by_the_shortest_stretch():
    step = BandPass(low_hz=0.5, high_hz=40.0)
    (plain,) = told([step], 100.0, [(0, 10_000)])
    (short,) = told([step], 100.0, [(0, 10_000), (10_000, 10_100)])
    assert "notes" not in plain
    assert "on a stretch of 1 s" in short["notes"][0]

"""BIDS datasets: what the tables say reaches the recording."""

import json

import mne
import numpy as np
import pytest

from neurofm.errors import SourceError
from neurofm.preprocessing.bids import BidsReader, dataset_root, sidecars
from neurofm.preprocessing.from_mne import recording_from_raw
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.sources import SourceConfig, discover
from neurofm.signals import Entities

READER = BidsReader(name="bids")
ME = Entities(dataset="d", subject="1")
LANDMARKS = {"NAS": [0.0, 0.1, 0.0], "LPA": [-0.08, 0.0, 0.0], "RPA": [0.08, 0.0, 0.0]}
WHERE = {"Fp1": (-0.03, 0.09, 0.03), "Cz": (0.0, 0.0, 0.1), "O1": (-0.03, -0.08, 0.04)}


def write_json(path, values):
    path.write_text(json.dumps(values))


@pytest.fixture
def dataset(tmp_path, write_edf):
    """A dataset of one EEG run whose tables say more than its file."""
    root = tmp_path / "ds"
    folder = root / "sub-1" / "eeg"
    path = write_edf(folder / "sub-1_task-x_eeg.edf", names=("Fp1", "Cz", "O1", "heart"))
    write_json(root / "dataset_description.json", {"Name": "ds", "BIDSVersion": "1.9.0"})
    (root / "participants.tsv").write_text("participant_id\tage\nsub-1\t30\n")
    write_json(folder / "sub-1_task-x_eeg.json", {"PowerLineFrequency": 50, "EEGReference": "FCz"})
    (folder / "sub-1_task-x_channels.tsv").write_text(
        "name\ttype\tunits\tstatus\nFp1\tEEG\tuV\tgood\nCz\tEEG\tuV\tgood\n"
        "O1\tEEG\tuV\tbad\nheart\tECG\tuV\tgood\n"
    )
    (folder / "sub-1_task-x_events.tsv").write_text(
        "onset\tduration\ttrial_type\n1.5\t0.5\tleft hand\n3.0\t0.5\tright hand\n"
    )
    write_positions(folder / "sub-1", WHERE, LANDMARKS)
    return path


def write_positions(stem, where, landmarks, frame="Other", unit="m", **more):
    kind = "iEEG" if stem.parent.name == "ieeg" else "EEG"
    rows = [f"{name}\t" + "\t".join(f"{v:.6f}" for v in xyz) for name, xyz in where.items()]
    path = stem.with_name(f"{stem.name}_electrodes.tsv")
    path.write_text("name\tx\ty\tz\n" + "\n".join(rows) + "\n")
    told = {f"{kind}CoordinateSystem": frame, f"{kind}CoordinateUnits": unit, **more}
    if landmarks:
        told |= {"AnatomicalLandmarkCoordinates": landmarks,
                 "AnatomicalLandmarkCoordinateUnits": unit}  # fmt: skip
    write_json(stem.with_name(f"{stem.name}_coordsystem.json"), told)


def read(path):
    raw, facts = open_raw(path, READER)
    return recording_from_raw(raw, ME, facts=facts)


def test_types_status_events_and_reference_come_from_the_tables(dataset):
    recording = read(dataset)
    assert recording.sensors.ch_names == ("Fp1", "Cz")
    assert recording.history[0]["dropped"] == {"O1": "marked bad in the file"}
    assert [(e.onset_s, e.duration_s, e.description) for e in recording.events] == [
        (1.5, 0.5, "left hand"), (3.0, 0.5, "right hand")
    ]  # fmt: skip
    assert open_raw(dataset, READER)[1].reference == "FCz"


@pytest.mark.parametrize("unit", ["m", "cm", "mm"])
def test_positions_do_not_depend_on_the_frame_they_are_told_in(dataset, unit):
    expected = read(dataset).sensors.position
    np.testing.assert_allclose(expected, [WHERE["Fp1"], WHERE["Cz"]], atol=1e-6)
    turn = mne.transforms.rotation(0.3, -0.2, 0.9)[:3, :3]
    scale = {"m": 1.0, "cm": 100.0, "mm": 1000.0}[unit]

    def moved(points):
        return {k: (scale * (turn @ v + [0.01, 0.02, -0.03])).tolist() for k, v in points.items()}

    write_positions(dataset.parent / "sub-1", moved(WHERE), moved(LANDMARKS), unit=unit)
    np.testing.assert_allclose(read(dataset).sensors.position, expected, atol=1e-6)


def test_scalp_positions_without_landmarks_in_a_frame_of_their_own_are_told_and_not_used(dataset):
    write_positions(dataset.parent / "sub-1", {"Fp1": (0.5, 0.5, 0.5)}, None)
    recording = read(dataset)
    assert any("frame 'Other' without landmarks: not used" in n for n in notes_of(recording))
    assert np.linalg.norm(recording.sensors.position[0]) < 0.2


def notes_of(recording):
    return recording.history[0]["notes"]


def test_electrodes_that_are_no_channels_are_told(dataset):
    write_positions(dataset.parent / "sub-1", WHERE | {"FT99": (0.0, 0.0, 0.1)}, LANDMARKS)
    assert any(
        "names 1 electrodes that are no channels: FT99" in n for n in notes_of(read(dataset))
    )


def test_a_unit_that_differs_from_the_header_is_told(dataset):
    table = dataset.with_name("sub-1_task-x_channels.tsv")
    table.write_text(table.read_text().replace("Cz\tEEG\tuV", "Cz\tEEG\tmV"))
    assert any("unit of 1 channels; the header was believed: Cz (mV against uV)" in n
               for n in notes_of(read(dataset)))  # fmt: skip


def test_a_length_or_rate_that_differs_from_the_files_is_told(dataset):
    assert not any("sidecar" in n for n in notes_of(read(dataset)))
    told = {"SamplingFrequency": 250, "RecordingDuration": 10.0, "PowerLineFrequency": 50}
    write_json(dataset.with_suffix(".json"), told)
    notes = notes_of(read(dataset))
    assert "the sidecar's SamplingFrequency is 250 Hz, the file's 256 Hz" in notes
    write_json(dataset.with_suffix(".json"), told | {"RecordingDuration": 60})
    assert "the sidecar's RecordingDuration is 60 s, the file's 10 s" in notes_of(read(dataset))


def test_contacts_keep_the_frame_and_the_region_their_table_gives(tmp_path, write_edf):
    root = tmp_path / "ds"
    folder = root / "sub-1" / "ieeg"
    path = write_edf(folder / "sub-1_task-x_ieeg.edf", names=("LA1", "LA2", "LA3"))
    write_json(root / "dataset_description.json", {"Name": "ds", "BIDSVersion": "1.9.0"})
    (root / "participants.tsv").write_text("participant_id\nsub-1\n")
    write_json(
        folder / "sub-1_task-x_ieeg.json", {"PowerLineFrequency": 50, "iEEGReference": "n/a"}
    )
    (folder / "sub-1_task-x_channels.tsv").write_text(
        "name\ttype\tunits\nLA1\tSEEG\tuV\nLA2\tSEEG\tuV\nLA3\tSEEG\tuV\n"
    )
    where = {"LA1": (-20.0, -5.0, -15.0), "LA2": (-25.0, -5.0, -15.0), "LA3": (-30.0, -5.0, -15.0)}
    write_positions(folder / "sub-1", where, None, frame="MNI152NLin2009bAsym", unit="mm")
    table = folder / "sub-1_electrodes.tsv"
    regions = ["region", "amygdala", "amygdala", "n/a"]
    lines = table.read_text().strip().split("\n")
    table.write_text("\n".join(f"{a}\t{b}" for a, b in zip(lines, regions, strict=True)) + "\n")
    raw, facts = open_raw(path, READER)
    assert (facts.frame, facts.reference) == ("mni", "")
    assert facts.regions == {"LA1": "amygdala", "LA2": "amygdala"}
    loc = np.array([ch["loc"][:3] for ch in raw.info["chs"]])
    np.testing.assert_allclose(loc, np.array(list(where.values())) / 1000)
    assert recording_from_raw(raw, ME, facts=facts).sensors.kinds == ("seeg",)


def test_a_table_further_up_holds_for_all_recordings_below_it(dataset):
    root = dataset.parents[2]
    dataset.with_name("sub-1_task-x_events.tsv").unlink()
    (root / "task-x_events.tsv").write_text("onset\tduration\ttrial_type\n2.0\t0.0\tshared\n")
    (root / "task-y_events.tsv").write_text("onset\tduration\ttrial_type\n2.0\t0.0\tother\n")
    assert root / "task-x_events.tsv" in sidecars(dataset)
    assert root / "task-y_events.tsv" not in sidecars(dataset)
    assert [e.description for e in read(dataset).events] == ["shared"]


def test_only_recordings_of_the_dataset_itself_are_found(dataset, write_edf):
    root = dataset.parents[2]
    write_edf(root / "derivatives" / "clean" / "sub-1" / "eeg" / "sub-1_task-x_eeg.edf")
    write_edf(root / "sourcedata" / "first.edf")
    found = discover(root, "d", [SourceConfig(reader=READER)])
    assert [f.relative for f in found] == ["sub-1/eeg/sub-1_task-x_eeg.edf"]
    assert found[0].entities.recording_id == "d_sub-1_task-x"


def test_recordings_that_differ_in_acquisition_only_are_told_apart(dataset, write_edf):
    for name in ("acq-lo", "acq-hi_run-2"):
        write_edf(dataset.with_name(f"sub-1_task-x_{name}_eeg.edf"))
    found = discover(dataset.parents[2], "d", [SourceConfig(reader=READER)])
    assert all(f.problem is None for f in found)
    assert {f.entities.run for f in found} == {"", "acq-lo", "acq-hi+2"}


def test_a_file_outside_any_dataset_is_refused(tmp_path, write_edf):
    path = write_edf(tmp_path / "sub-1_task-x_eeg.edf")
    with pytest.raises(SourceError, match=r"no folder above it holds a dataset_description\.json"):
        dataset_root(path)
    with pytest.raises(SourceError, match="no BIDS dataset"):
        open_raw(path, READER)


def test_a_damaged_table_is_refused_by_name(dataset):
    dataset.with_name("sub-1_coordsystem.json").write_text("{not json")
    with pytest.raises(SourceError, match=r"sub-1_coordsystem\.json: not JSON"):
        open_raw(dataset, READER)


def test_electrodes_told_twice_are_placed(test_data):
    path = test_data / "bids" / "tiny_bids" / "sub-01" / "ses-eeg" / "eeg"
    # its samples are refused: see test_prep_brainvision
    raw = READER.raw(path / "sub-01_ses-eeg_task-rest_eeg.vhdr", Facts())
    first = raw.info["chs"][raw.ch_names.index("Fp1")]["loc"][:3]
    np.testing.assert_allclose(first, [-0.0374127, 0.1110214, 0.0498709], atol=1e-6)


def test_names_in_another_order_are_the_same_names(dataset):
    table = dataset.with_name("sub-1_task-x_channels.tsv")
    before = read(dataset)
    first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([first, *reversed(rows)]) + "\n")
    recording = read(dataset)
    assert recording.history[0]["dropped"] == {"O1": "marked bad in the file"}
    assert sorted(recording.sensors.ch_names) == ["Cz", "Fp1"]
    rows = [recording.sensors.ch_names.index(name) for name in before.sensors.ch_names]
    np.testing.assert_array_equal(recording.signal[rows], before.signal)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("Cz\t", "Pz\t", "names 1 channels otherwise than the file: 'Pz' for the file's 'Cz'"),
     ("Cz\t", "Fp1\t", "has a name more than once: Fp1")],
)  # fmt: skip
def test_other_names_than_the_files_are_refused_unless_the_table_counts(dataset, old, new, told):
    before = read(dataset)
    table = dataset.with_name("sub-1_task-x_channels.tsv")
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(SourceError, match=f"{told}\n.*ch_names: table"):
        open_raw(dataset, READER)
    raw, facts = open_raw(dataset, BidsReader(name="bids", ch_names="table"))
    assert raw.ch_names[1] in ("Pz", "Fp1-1")
    np.testing.assert_allclose(raw.get_data(picks=[1])[0], before.signal[1], rtol=1e-5)
    assert any(told in note and "named by the table" in note for note in facts.notes)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("sub-1_task-x_channels.tsv", "name\tunits\nFp1\tuV\n", "lacks the column 'type'"),
        ("sub-1_task-x_events.tsv", "onset,duration\n1,2\n", "lacks the column 'onset', 'dur"),
        ("sub-1_task-x_events.tsv", "", "not a table"),
        ("sub-1_electrodes.tsv", "name\tx\ty\nFp1\t0\t0\n", "lacks the column 'z'"),
        ("sub-1_coordsystem.json", '{"EEGCoordinateSystem": "Other"}',
         "lacks the key 'EEGCoordinateUnits', which BIDS requires; found EEGCoordinateSystem"),
        ("sub-1_coordsystem.json", json.dumps({"EEGCoordinateSystem": "Other",
         "EEGCoordinateUnits": "m", "FiducialsCoordinates": {"NAS": "n/a"}}),
         "FiducialsCoordinates has 'n/a' for NAS, not three numbers"),
        ("../../participants.tsv", "subject\tage\n1\t30\n", "lacks the column 'participant_id'"),
    ],
)  # fmt: skip
def test_a_table_that_lacks_what_bids_requires_is_named(dataset, name, text, told):
    (dataset.parent / name).write_text(text)
    with pytest.raises(SourceError, match=rf"{name.rpartition('/')[2]}: {told}"):
        open_raw(dataset, READER)


def test_events_keep_their_names_and_rows_left_out_are_told(dataset):
    dataset.with_name("sub-1_task-x_events.tsv").write_text(
        "onset\tduration\ttrial_type\tvalue\n"
        "1\t0.5\tgo\t1\n2\tn/a\tgo\t2\n3\t0\tgo/no\tn/a\nn/a\t0\tgo\t1\n4\t0\tn/a\t9\n"
    )
    recording = read(dataset)
    assert [(e.onset_s, e.description) for e in recording.events] == [
        (1.0, "go"), (2.0, "go"), (3.0, "go/no")
    ]  # fmt: skip
    for what in ("onset", "trial_type"):
        told = f"1 of 5 rows of sub-1_task-x_events.tsv have no {what}: left out"
        assert told in notes_of(recording)


def test_what_is_known_of_the_person_goes_with_the_recording(dataset):
    assert read(dataset).history[0]["participant"] == {"age": "30"}
    people = dataset.parents[2] / "participants.tsv"
    people.write_text("participant_id\tage\tgroup\nsub-2\t7\tx\nsub-1\tn/a\tpatient\n")
    assert read(dataset).history[0]["participant"] == {"group": "patient"}
    people.unlink()
    assert "participant" not in read(dataset).history[0]

"""One small file of every format reaches a store."""

import glob
import shutil

import mne
import numpy as np
import pytest
from scipy.signal import resample

from neurofm.config import parse_config
from neurofm.errors import SourceError
from neurofm.preprocessing.read import AutoReader
from neurofm.preprocessing.run import CONFIG, run
from neurofm.preprocessing.verify import companions, verify
from neurofm.sensors import Knowledge
from neurofm.store.reader import open_store

EEG = ("eeg",)
HFO = "ieeg/hfo_bids/sub-01/ses-interictalsleep/ieeg"
REAL = {
    # name: (path, kinds, channels, an event that must be there)
    "EDF": ("eegmmidb/S001/S001R01.edf", EEG, 64, "T0"),
    "BDF": ("formats/bdf/test.bdf", EEG, 16, "255"),
    "GDF": ("ssvep_exo/subject02/record-[2012.07.19-17.41.14].gdf", EEG, 8, "32779"),
    "BrainVision": ("formats/brainvision/test.vhdr", EEG, 26, "Stimulus/S255"),
    "EEGLAB": ("formats/eeglab/eeglab_data.set", EEG, 30, "square"),
    "CTF": ("meg/ctf/testdata_ctf_short_discontinuous.ds", ("eeg", "grad_axial"), 280, None),
    "Neuromag": ("meg/neuromag/sample_audvis_trunc_raw_sss.fif", None, 366, None),
    "OPM": ("meg/opm/opm_cerca_noise_raw.fif", ("opm",), 128, None),
    "KIT": ("meg/kit/test.sqd", ("grad_axial",), 157, "255"),
    "sEEG": ("ieeg/seeg/sample_seeg.edf", ("seeg",), 88, "test mark"),
    "ECoG": ("ieeg/ecog/sample_ecog_ieeg.fif", ("seeg", "ecog"), 394, None),
    "BIDS": (f"{HFO}/sub-01_ses-interictalsleep_run-01_ieeg.vhdr", ("seeg",), 50, "Stimulus/S 17"),
}
EXTRA = {
    "BDF": {"allow_unlocated": True},  # inputs of the amplifier, A1 to A16
    "GDF": {"unit_scale": 1000.0},
    "BIDS": {"channels": {"*": "seeg"}, "allow_unlocated": True},
    "sEEG": {"channels": {"?'*": "seeg", "??'*": "seeg"}, "allow_unlocated": True},
}


def preprocess(tmp_path, source, window_s=0.5):
    values = {
        "dataset": "real",
        "root": str(tmp_path / "raw"),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": window_s},
        "sources": [{"subject": "1"} | source],
        "workers": 0,
    }
    return run(parse_config(CONFIG, values, where="test"))


def copy_with_companions(path, folder):
    folder.mkdir()
    if path.is_dir():
        shutil.copytree(path, folder / path.name)
        return
    for companion in path.parent.glob(f"{glob.escape(path.stem)}.*"):
        shutil.copy(companion, folder / companion.name)


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_of_each_format_reaches_the_store(tmp_path, test_data, name):
    path, kinds, n_channels, event = REAL[name]
    copy_with_companions(test_data / path, tmp_path / "raw")
    result = preprocess(tmp_path, EXTRA.get(name, {}))
    store = open_store(result.store)
    (recording_id,) = store.index["recording_id"]
    recording = store.recording(recording_id)
    assert n_channels is None or len(recording.sensors) == n_channels
    assert kinds is None or recording.sensors.kinds == kinds
    assert event is None or event in {e.description for e in recording.events}
    assert np.isfinite(recording.signal).all() and (recording.signal.std(axis=1) > 0).all()


def test_eeglab_events_and_positions_arrive(tmp_path, test_data):
    copy_with_companions(test_data / "formats" / "eeglab" / "eeglab_data.set", tmp_path / "raw")
    recording = open_store(preprocess(tmp_path, {}).store).recording("real_sub-1")
    names = [e.description for e in recording.events]
    assert (names.count("square"), names.count("rt")) == (80, 74)
    assert recording.sensors.located.all()


def test_reference_magnetometers_go_and_compensated_coils_stay(tmp_path, test_data):
    path = test_data / "meg" / "ctf" / "testdata_ctf_short_discontinuous.ds"
    copy_with_companions(path, tmp_path / "raw")
    result = preprocess(tmp_path, {})
    dropped = result.report["dropped"].item()
    assert dropped.count("of a kind the contract does not keep") == 28
    recording = open_store(result.store).recording("real_sub-1")
    meg = recording.sensors.kind == 3
    assert recording.sensors.oriented[meg].all() and meg.sum() == 273


@pytest.mark.parametrize("fmt", ["fif", "fif.gz", "edf", "vhdr"])
def test_what_mne_writes_is_read_back_alike(tmp_path, make_raw, fmt):
    (tmp_path / "raw").mkdir()
    raw = make_raw(sfreq=250.0)
    raw.set_annotations(mne.Annotations([2.0, 5.0], [0.0, 1.0], ["left", "BAD_move"]))
    if fmt.startswith("fif"):
        raw.save(tmp_path / "raw" / f"x_raw.{fmt}", verbose="error")
    else:
        mne.export.export_raw(tmp_path / "raw" / f"x.{fmt}", raw, verbose="error")
    store = open_store(preprocess(tmp_path, {}).store)
    recording = store.recording("real_sub-1")
    assert recording.sensors.ch_names == tuple(raw.ch_names)
    found = {(round(e.onset_s, 2), e.description.split("/")[-1]) for e in recording.events}
    assert {(2.0, "left"), (5.0, "BAD_move")} <= found
    # scipy's, as MNE's own resampling by FFT moves this signal by half a sample
    expected = resample(raw.copy().filter(0.5, 45, verbose="error").get_data(), 1280, axis=1)
    middle = slice(256, 1000)
    for ours, theirs in zip(recording.signal, expected, strict=True):
        assert np.corrcoef(ours[middle], theirs[middle])[0, 1] > 0.999


def test_bci2000_is_read_although_curry_has_its_extension(tmp_path, make_signal):
    (tmp_path / "raw").mkdir()
    counts = (make_signal(4, 10.0) * 1e6).astype("<i2")
    lines = "[ Parameter Definition ] \r\nSource int SamplingRate= 256Hz 256 1 % // rate\r\n"
    first = "BCI2000V= 1.1 HeaderLen= {:>5} SourceCh= 4 StatevectorLen= 1 DataFormat= int16\r\n"
    text = first.format(len(first.format(0)) + len(lines)) + lines
    frames = [row.tobytes() + b"\0" for row in counts.T]
    (tmp_path / "raw" / "a.dat").write_bytes(text.encode() + b"".join(frames))
    source = {"include": ["*.dat"], "unit_scale": 1e-6, "allow_unlocated": True}
    store = open_store(preprocess(tmp_path, source).store)
    assert store.sensors("real_sub-1").ch_names == ("EEG1", "EEG2", "EEG3", "EEG4")
    assert store.index["duration_s"][0] == pytest.approx(10.0)


def test_samples_without_their_header_are_refused_and_nihon_kohden_is_not(tmp_path):
    path = tmp_path / "a.eeg"
    path.write_bytes(b"EEG-1100C V01.00" + bytes(2000))
    (tmp_path / "a.PNT").write_bytes(b"EEG-1100C V01.00")
    assert verify(path).notes == [] and companions(path) == [tmp_path / "a.PNT"]
    path.write_bytes(bytes(2000))
    with pytest.raises(SourceError, match=r"no BrainVision header of its name.*\n.*\.vhdr"):
        verify(path)
    assert AutoReader().claims("sub-1/a.eeg")


def test_the_source_says_which_frame_contacts_are_in(tmp_path, make_raw):
    where = {f"LA{i}": np.array([0.02 + 0.004 * i, 0.01, 0.03]) for i in range(1, 5)}
    montage = mne.channels.make_dig_montage(where, coord_frame="mni_tal")
    raw = make_raw(names=where, types="seeg").set_montage(montage, verbose="error")
    (tmp_path / "raw").mkdir()
    raw.save(tmp_path / "raw" / "a_raw.fif", verbose="error")
    result = preprocess(tmp_path, {"frame": "mni"})
    assert set(open_store(result.store).sensors("real_sub-1").known) == {Knowledge.MNI}
    assert "positions are in MNI space" in result.report["notes"][0]

"""Every device of the shared recordings: kinds, places, axes, units."""

import mne
import numpy as np
import pytest
from mne._fiff.constants import FIFF
from pydantic import ValidationError

from neurofm.config import parse_config
from neurofm.electrodes import montage_positions
from neurofm.errors import SensorError
from neurofm.preprocessing.channels import rename_channels
from neurofm.preprocessing.from_mne import RawReader
from neurofm.preprocessing.harmonise import notes_of
from neurofm.preprocessing.magic import Facts
from neurofm.preprocessing.run import CONFIG, run
from neurofm.preprocessing.sources import SourceConfig
from neurofm.sensors import Knowledge, SensorKind, sensors_from_info
from neurofm.signals import Entities
from neurofm.store.reader import open_store

ME = Entities(dataset="d", subject="1")
K = SensorKind


def kit(folder, **digitised):
    files = {key: folder / name for key, name in digitised.items()}
    return mne.io.read_raw_kit(folder / "test.sqd", **files, verbose="error")


def bti(folder, shape=None, **how):
    paths = [folder / "test_pdf_solaris", folder / "test_config_solaris"]
    return mne.io.read_raw_bti(*paths, shape and folder / shape, verbose="error", **how)


def by_name(path):
    def opened(folder):
        return mne.io.read_raw(folder / path, verbose="error")

    return opened


def meg(name, **how):
    reader = {"kit": kit, "bti": bti}[name]

    def opened(folder):
        return reader(folder / "meg" / name, **how)

    return opened


KIT_HEAD = {"mrk": "test_mrk.sqd", "elp": "test_elp.txt", "hsp": "test_hsp.txt"}
HFO = "ieeg/hfo_bids/sub-01/ses-interictalsleep/ieeg/sub-01_ses-interictalsleep_run-01_ieeg.vhdr"
# how it is opened, how many of each kind, how the places of brain sensors are known
DEVICES = {
    "CTF 275": (
        by_name("meg/ctf/testdata_ctf_short_discontinuous.ds"),
        {K.GRAD_AXIAL: 273, K.REF_MEG: 28, K.EEG: 8},
        Knowledge.MEASURED,
    ),
    "4D Magnes 3600": (
        meg("bti", shape="test_hs_solaris"),
        {K.MAG: 248, K.REF_MEG: 23},
        Knowledge.MEASURED,
    ),
    "4D Magnes, no head": (meg("bti"), {K.MAG: 248, K.REF_MEG: 23}, Knowledge.DEVICE),
    "KIT 157": (meg("kit", **KIT_HEAD), {K.GRAD_AXIAL: 157, K.REF_MEG: 3}, Knowledge.MEASURED),
    "KIT 157, no head": (meg("kit"), {K.GRAD_AXIAL: 157, K.REF_MEG: 3}, Knowledge.DEVICE),
    "Vectorview": (
        by_name("meg/neuromag/sample_audvis_trunc_raw_sss.fif"),
        {K.MAG: 102, K.GRAD_PLANAR: 204, K.EEG: 60},
        Knowledge.MEASURED,
    ),
    "Vectorview, no head": (
        by_name("meg/neuromag/141027_cropped_90Hz_raw.fif"),
        {K.MAG: 102, K.GRAD_PLANAR: 204},
        Knowledge.DEVICE,
    ),
    "OPM": (by_name("meg/opm/opm_cerca_noise_raw.fif"), {K.OPM: 128}, Knowledge.DEVICE),
    "ECoG": (
        by_name("ieeg/ecog/sample_ecog_ieeg.fif"),
        {K.ECOG: 320, K.SEEG: 74},
        Knowledge.MEASURED,
    ),
}
HELMETS = [name for name in DEVICES if name != "ECoG"]


@pytest.fixture
def opened(test_data):
    def by_device(name):
        raw = DEVICES[name][0](test_data)
        return raw, sensors_from_info(raw.info)

    return by_device


@pytest.mark.parametrize("name", DEVICES)
def test_kinds_are_those_of_the_vendor(opened, name):
    _, sensors = opened(name)
    codes, counts = np.unique(sensors.kind, return_counts=True)
    assert {K(c): int(n) for c, n in zip(codes, counts, strict=True)} == DEVICES[name][1]


@pytest.mark.parametrize("name", DEVICES)
def test_brain_sensors_lie_around_the_head_and_it_is_said_how_that_is_known(opened, name):
    _, sensors = opened(name)
    brain = sensors.select(np.flatnonzero((sensors.kind != K.REF_MEG) & (sensors.kind != K.EEG)))
    assert set(brain.known) == {DEVICES[name][2]}
    extent = brain.position.max(axis=0) - brain.position.min(axis=0)
    assert (extent > 0.05).all() and (extent < 0.30).all()
    assert np.linalg.norm(brain.position, axis=1).max() < 0.2
    in_helmet = name in HELMETS
    # a helmet is wider than 20 cm from ear to ear, is symmetric, and covers the top of the head
    if in_helmet:
        left, right = brain.position[:, 0].min(), brain.position[:, 0].max()
        assert 0.17 < right - left < 0.26 and abs(left + right) < 0.03
        assert brain.position[:, 2].max() > 0.08


@pytest.mark.parametrize("name", [n for n in HELMETS if n != "OPM"])
def test_coils_look_out_of_the_helmet_and_planar_ones_along_it(opened, name):
    _, sensors = opened(name)
    brain = sensors.select(np.flatnonzero((sensors.kind != K.REF_MEG) & (sensors.kind != K.EEG)))
    assert brain.oriented.all()
    np.testing.assert_allclose(np.linalg.norm(brain.orientation, axis=1), 1, atol=1e-4)
    outwards = brain.position - brain.position.mean(axis=0)
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    cosine = (outwards * brain.orientation).sum(axis=1)
    planar = brain.kind == K.GRAD_PLANAR
    assert (cosine[~planar] > 0.6).all()
    assert (np.abs(cosine[planar]) < 0.7).all()


@pytest.mark.parametrize("name", ["Vectorview", "Vectorview, no head"])
def test_the_three_coils_of_a_site_are_told_apart(opened, name):
    raw, sensors = opened(name)
    sites: dict[str, list[int]] = {}
    for i, ch_name in enumerate(sensors.ch_names):
        if sensors.kind[i] != K.EEG:
            sites.setdefault(ch_name[:-1], []).append(i)
    assert len(sites) == 102
    for rows in sites.values():
        site = sensors.select(rows)
        assert np.ptp(site.position, axis=0).max() < 1e-3
        axes = site.orientation
        # two directions in the plane and the normal of the magnetometer: a right-angled frame
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=0.02)
    units = {int(raw.info["chs"][raw.ch_names.index(n)]["unit"]) for n in raw.ch_names[:3]}
    assert units == {FIFF.FIFF_UNIT_T, FIFF.FIFF_UNIT_T_M}


def test_axes_of_an_opm_pair_differ_where_its_place_does_not(opened):
    _, sensors = opened("OPM")
    pairs: dict[str, list[int]] = {}
    for i, name in enumerate(sensors.ch_names):
        pairs.setdefault(name.rpartition("-")[0], []).append(i)
    assert {len(rows) for rows in pairs.values()} == {2}
    for rows in pairs.values():
        np.testing.assert_array_equal(*sensors.position[rows])
        assert abs(np.dot(*sensors.orientation[rows])) < 0.05


@pytest.mark.parametrize("name", ["CTF 275", "4D Magnes 3600", "KIT 157"])
def test_digitised_helmets_are_moved_to_the_head_and_the_others_not(opened, name):
    raw, sensors = opened(name)
    brain = np.flatnonzero(sensors.kind != K.EEG)
    rows = [i for i in brain if sensors.kind[i] != K.REF_MEG]
    ch_names = [sensors.ch_names[i] for i in rows]
    loc = np.array([raw.info["chs"][raw.ch_names.index(n)]["loc"] for n in ch_names])
    moved = mne.transforms.apply_trans(raw.info["dev_head_t"], loc[:, :3])
    turned = mne.transforms.apply_trans(raw.info["dev_head_t"], loc[:, 9:12], move=False)
    np.testing.assert_allclose(sensors.position[rows], moved, atol=1e-6)
    np.testing.assert_allclose(sensors.orientation[rows], turned, atol=1e-3)
    assert np.abs(sensors.position[rows] - loc[:, :3]).max() > 0.02


def test_a_vendors_own_head_frame_is_not_taken_for_ours(test_data):
    raw = bti(test_data / "meg" / "bti", convert=False)
    recording = RawReader(raw, ME).recording()
    assert set(recording.sensors.known) == {Knowledge.SCAN}
    assert "no transform to the head is known" in notes_of(recording)[0]


def test_reference_coils_are_far_from_the_head_and_no_magnetometers_of_the_brain(opened):
    for name in ("CTF 275", "4D Magnes 3600"):
        _, sensors = opened(name)
        references = sensors.position[sensors.of_kind(K.REF_MEG)]
        assert np.linalg.norm(references, axis=1).min() > 0.2
    _, sensors = opened("KIT 157")
    assert not sensors.located[sensors.of_kind(K.REF_MEG)].any()  # KIT does not give them


def test_eeg_within_a_helmet_has_its_own_digitisation(opened):
    for name, n in (("CTF 275", 8), ("Vectorview", 60)):
        _, sensors = opened(name)
        eeg = sensors.select(sensors.of_kind(K.EEG))
        assert len(eeg) == n and set(eeg.known) == {Knowledge.MEASURED}
        assert not eeg.oriented.any()
        radius = np.linalg.norm(eeg.position - [0, 0, 0.04], axis=1)
        assert (radius > 0.06).all() and (radius < 0.14).all()


def test_depth_electrodes_without_a_montage_have_names_and_no_places(test_data):
    raw = mne.io.read_raw(test_data / "ieeg" / "seeg" / "sample_seeg.edf", verbose="error")
    channels = {"?'*": "seeg", "??'*": "seeg"}
    reader = RawReader(raw, ME, channels=channels, allow_unlocated=True)
    assert reader.sensors.kinds == ("seeg",) and len(reader.sensors) == 88
    assert not reader.sensors.located.any()


def test_strips_written_by_bids_have_names_and_no_places(test_data):
    raw = mne.io.read_raw(test_data / HFO, verbose="error")
    reader = RawReader(raw, ME, channels={"*": "ecog"}, allow_unlocated=True)
    assert (reader.sensors.kinds, len(reader.sensors)) == (("ecog",), 50)
    assert reader.sensors.ch_names[0] == "IAR1"


def test_inputs_of_an_amplifier_are_named_by_the_source(tmp_path, test_data):
    cap = [
        "Fp1", "F3", "F7", "C3", "T7", "P3", "P7", "O1", "Fp2", "F4", "F8", "C4", "T8", "P4", "P8",
        "O2",
    ]  # fmt: skip
    values = {
        "dataset": "d",
        "root": str(test_data / "formats" / "bdf"),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2},
        "sources": [{"subject": "1", "rename": {f"A{i + 1}": name for i, name in enumerate(cap)}}],
        "workers": 0,
    }
    run(parse_config(CONFIG, values, where="test"))
    sensors = open_store(tmp_path / "store").recording("d_sub-1").sensors
    assert sensors.ch_names == tuple(cap)
    assert set(sensors.known) == {Knowledge.TEMPLATE}


def test_names_that_are_not_there_or_would_be_there_twice_are_refused(make_raw):
    with pytest.raises(SensorError, match=r"x: the config's `rename` names 'A9', which is not in"):
        rename_channels(make_raw(), {"A9": "Fz"}, "x")
    with pytest.raises(SensorError, match="makes channels of one name: Fz"):
        rename_channels(make_raw(), {"Cz": "Fz"}, "x")
    swapped = make_raw()
    rename_channels(swapped, {"Cz": "Fz", "Fz": "Cz"}, "x")
    assert swapped.ch_names[:4] == ["Fp1", "Cz", "C3", "Fz"]


def test_naming_is_remembered_and_naming_nothing_is_not():
    assert SourceConfig(rename={"A1": "Fp1"}).reading()["rename"] == {"A1": "Fp1"}
    assert "rename" not in SourceConfig().reading()


def test_a_cap_gives_places_to_what_nobody_has_measured(make_raw):
    raw = make_raw(names=("A1", "A2", "C3", "Fz", "L1"), types=["eeg"] * 4 + ["seeg"])
    raw.info["chs"][1]["loc"][:3] = [0.01, 0.02, 0.09]
    raw.info["chs"][1]["coord_frame"] = FIFF.FIFFV_COORD_HEAD
    cap = montage_positions("biosemi128")
    sensors = RawReader(raw, ME, facts=Facts(template=cap)).sensors
    T, M, A = Knowledge.TEMPLATE, Knowledge.MEASURED, Knowledge.ABSENT
    assert list(sensors.known) == [T, M, T, T, A]
    np.testing.assert_allclose(sensors.position[[0, 2]], [cap["A1"], cap["C3"]], rtol=1e-6)
    np.testing.assert_allclose(sensors.position[1], [0.01, 0.02, 0.09], rtol=1e-6)
    assert "Fz" not in cap and sensors.located[3]  # the 10-05 system's, as ever


def test_the_cap_of_a_source_reaches_the_store(tmp_path, test_data):
    values = {
        "dataset": "d",
        "root": str(test_data / "formats" / "bdf"),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2},
        "sources": [{"subject": "1", "montage": "biosemi128"}],
        "workers": 0,
    }
    run(parse_config(CONFIG, values, where="test"))
    sensors = open_store(tmp_path / "store").recording("d_sub-1").sensors
    assert set(sensors.known) == {Knowledge.TEMPLATE}
    np.testing.assert_allclose(
        sensors.position[0], montage_positions("biosemi128")["A1"], rtol=1e-5
    )


def test_a_cap_that_mne_does_not_know_is_refused_with_the_nearest_name():
    with pytest.raises(ValidationError, match=r"unknown montage 'biosemi129'(?s:.*)'biosemi128'"):
        SourceConfig(montage="biosemi129")

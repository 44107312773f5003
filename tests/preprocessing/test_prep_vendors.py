"""Formats that need more than a path."""

import shutil

import mne
import numpy as np
import pytest

from neurofm.errors import SourceError
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.vendors import BtiReader, KitReader, NicoletReader

BTI = BtiReader(name="bti", config_file="test_config_solaris", head_shape="test_hs_solaris")
KIT = KitReader(name="kit", markers=("{stem}_mrk.sqd",), elp="{stem}_elp.txt", hsp="{stem}_hsp.txt")


def test_magnes_data_find_their_configuration_and_head(test_data):
    folder = test_data / "meg" / "bti"
    raw, _ = open_raw(folder / "test_pdf_solaris", BTI)
    assert raw.info["dev_head_t"] is not None
    assert len(mne.pick_types(raw.info, meg="mag")) == 248
    with pytest.raises(SourceError, match="companion file 'config' is missing"):
        open_raw(folder / "test_pdf_solaris", BtiReader(name="bti"))


def test_kit_data_get_their_head_from_marker_and_shape_files(tmp_path, test_data):
    folder = test_data / "meg" / "kit"
    raw, _ = open_raw(folder / "test.sqd", KIT)
    bare, _ = open_raw(folder / "test.sqd", KitReader(name="kit"))
    assert not np.allclose(raw.info["dev_head_t"]["trans"], np.eye(4))
    assert bare.info["dev_head_t"] is None or np.allclose(
        bare.info["dev_head_t"]["trans"], np.eye(4)
    )
    assert [p.name for p in KIT.companions(folder / "test.sqd")] == [
        "test_mrk.sqd", "test_elp.txt", "test_hsp.txt"
    ]  # fmt: skip
    shutil.copy(folder / "test.sqd", tmp_path / "test.sqd")
    with pytest.raises(SourceError, match=r"companion file 'test_mrk\.sqd' is missing"):
        open_raw(tmp_path / "test.sqd", KIT)


def test_nicolet_data_are_of_the_kind_the_config_says(tmp_path, test_data):
    path = test_data / "formats" / "nicolet" / "test_nicolet_raw.data"
    raw, _ = open_raw(path, NicoletReader(name="nicolet", ch_type="seeg"))
    assert "seeg" in raw.get_channel_types()
    shutil.copy(path, tmp_path / path.name)
    with pytest.raises(SourceError, match=r"companion file 'test_nicolet_raw\.head' is missing"):
        open_raw(tmp_path / path.name, NicoletReader(name="nicolet"))

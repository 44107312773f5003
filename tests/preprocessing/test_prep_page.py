import re
import shutil

import pandas as pd
import pytest

from neurofm.config import parse_config
from neurofm.preprocessing import page as page_module
from neurofm.preprocessing.page import totals, write_page
from neurofm.preprocessing.run import CONFIG, run


@pytest.fixture
def store(tmp_path, write_edf, test_data):
    """Three recordings, of which one has mains, and one file that is refused."""
    for n in (1, 2, 3):
        write_edf(tmp_path / "raw" / f"sub-{n}_eeg.edf", seed=n)
    names = ("Fp1", "Cz", "<b>bold</b>", "O2")
    write_edf(tmp_path / "raw" / "sub-4_eeg.edf", names=names, seed=4)
    shutil.copy(test_data / "broken" / "zero_byte.edf", tmp_path / "raw" / "sub-9_eeg.edf")
    values = {
        "dataset": "made",
        "root": str(tmp_path / "raw"),
        "store": str(tmp_path / "store"),
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2.0},
        "sources": [{}],
        "workers": 0,
    }
    return run(parse_config(CONFIG, values, where="test")).store


def text_of(store):
    return (store / "report.html").read_text()


def section(html, heading):
    return html.split(f"<h2>{heading}</h2>")[1].split("<h2>")[0]


def test_every_run_leaves_a_page(store):
    html = text_of(store)
    assert "5 files: 4 kept, 1 refused. 4 recordings, 0.01 hours" in html
    assert "zero_byte" not in html and "sub-9_eeg.edf" in section(html, "Refused")
    assert "the file is empty" in section(html, "Refused")
    repaired = section(html, "Kept, with channels left out or something to know")
    assert "1 channels without a position" in repaired and "sub-4_eeg.edf" in repaired


def test_each_recording_says_what_was_read_and_shows_it(store):
    folded = re.findall(r"<details>.*?</details>", text_of(store), re.S)
    assert len(folded) == 4
    assert "sub-1_eeg.edf: 10 s; 256 Hz, now 128 Hz; 8 channels" in folded[0]
    (size,) = re.findall(r"8 channels, robust SD ([\d.e-]+) V", folded[0])
    assert float(size) == pytest.approx(20e-6 * (45 / 128) ** 0.5, rel=0.1)  # noise up to 45 Hz
    assert folded[0].count("<polyline") == 2  # before and after
    (mark,) = re.findall(r'href="#(montage-\d+)"', folded[0])
    assert f'<svg id="{mark}"' in text_of(store)


def test_names_in_files_are_text_and_not_markup(store):
    assert "<b>bold" not in text_of(store)


def test_totals_count_hours_by_data_set_and_kind():
    index = pd.DataFrame(
        {
            "dataset": ["a", "a", "b"],
            "subject": ["1", "1", "1"],
            "kinds": ["eeg", "eeg,mag", "mag"],
            "duration_s": [3600.0, 1800.0, 3600.0],
        }
    )
    table = totals(index).set_index(["dataset", "kind"])
    assert table["hours"].to_dict() == {
        ("a", "eeg"): 1.5, ("a", "mag"): 0.5, ("b", "mag"): 1.0, ("all", "all"): 2.5,
    }  # fmt: skip
    assert table.loc[("a", "eeg"), "recordings"] == 2
    assert table.loc[("all", "all"), "subjects"] == 2


def test_the_page_of_many_recordings_stays_small(store, monkeypatch):
    monkeypatch.setattr(page_module, "_SHOWN", 2)
    monkeypatch.setattr(page_module, "_MONTAGES", 1)
    write_page(store)
    html = text_of(store)
    assert html.count("<details>") == 2
    assert "2 of 4 recordings are shown" in html and "1 more montages are not shown" in html


def test_stores_of_before_spectra_were_kept_have_a_page(store, monkeypatch):
    monkeypatch.setattr(page_module, "_spectrum", lambda *_: None)
    write_page(store)
    assert "<polyline" not in text_of(store) and text_of(store).count("<details>") == 4

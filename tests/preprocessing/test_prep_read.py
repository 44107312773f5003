import gzip
import re
import shutil
import struct

import mne
import numpy as np
import pytest

from neurofm.errors import SourceError
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.verify import companions
from neurofm.preprocessing.xdf import XdfReader

REFUSED = {
    "truncated_mid_record.edf": "cut short: the header promises 61 records, 4 are there and a part",
    "header_only.edf": "no complete data record: 0 bytes of data after the header",
    "zero_byte.edf": r"the file is empty \(0 bytes\)",
    "git_lfs_pointer.edf": "a git-lfs pointer, not the recording itself\n.*git lfs pull",
    "annex_symlink_text.edf": "a git-annex link, not the recording itself\n.*git annex get",
    "bdf_named_edf.edf": r"named \.edf but its content is BDF, not EDF\n.*rename it to \.bdf",
    "truncated_raw.fif": "cut short: the FIF file ends inside its data",
    "set_without_fdt.set": r"a companion file is missing: .*\.fdt",
    "missing_eeg_file.vhdr": r"companion file 'not_there\.eeg' is missing",
    "events_out_of_range-eve.fif": "MNE cannot read it: ValueError",
    "muse_gap_and_garbage.csv": r"MNE cannot read it: ValueError: Unsupported file type \(\.csv\)",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_file_is_refused_by_name_and_reason(test_data, name):
    with pytest.raises(SourceError, match=REFUSED[name]) as caught:
        open_raw(test_data / "broken" / name)
    assert name.split("/")[-1] in str(caught.value)


def test_an_unknown_number_of_records_is_counted_and_told(test_data):
    raw, facts = open_raw(test_data / "broken" / "nrecords_minus1.edf")
    assert raw.n_times / raw.info["sfreq"] == 8
    assert any("does not say how many records there are; found 8" in n for n in facts.notes)


def test_a_part_of_a_record_is_told_where_the_header_says_no_number(tmp_path, test_data):
    path = tmp_path / "x.edf"
    path.write_bytes((test_data / "broken" / "nrecords_minus1.edf").read_bytes()[:-100])
    _, facts = open_raw(path)
    assert any("found 7 and a part of one more, which was left out" in n for n in facts.notes)


def test_a_channel_without_physical_range_is_told(test_data):
    _, facts = open_raw(test_data / "broken" / "physmin_eq_physmax.edf")
    assert facts.unusable == {"Fcz.": "physical minimum and maximum are both 0"}


@pytest.mark.parametrize("ending", ["dap", "dat"])
def test_a_rate_of_zero_is_repaired_by_the_time_between_samples(test_data, ending):
    raw, facts = open_raw(test_data / "broken" / "curry_sfreq_0" / f"test_sfreq_0.{ending}")
    assert raw.info["sfreq"] == 500
    assert any("header is 0 Hz; 500 Hz follow from the 2000 micros" in n for n in facts.notes)


@pytest.mark.parametrize("said", ["-", "+e", "1.2.3", "nan", "two"])
@pytest.mark.parametrize("key", ["SampleFreqHz", "SampleTimeUsec"])
def test_a_rate_that_is_no_number_is_refused(tmp_path, test_data, key, said):
    for part in (test_data / "broken" / "curry_sfreq_0").iterdir():
        shutil.copy(part, tmp_path / part.name)
    header = tmp_path / "test_sfreq_0.dap"
    text = header.read_text(encoding="latin-1")
    header.chmod(0o644)
    header.write_text(re.sub(rf"({key}\s*=).*", rf"\g<1>  {said}", text), encoding="latin-1")
    told = rf"{key} in 'test_sfreq_0\.dap' is '{re.escape(said)}', which is not a number\n.*true"
    with pytest.raises(SourceError, match=told):
        open_raw(header)


@pytest.mark.parametrize(("place", "said"), [(184, b"0       "), (184, b"-512    "), (688, b"-1")])
def test_sizes_below_zero_in_an_edf_header_are_refused(tmp_path, write_edf, place, said):
    path = write_edf(tmp_path / "a.edf", names=["Cz", "Pz"])
    data = bytearray(path.read_bytes())
    data[place : place + len(said)] = said
    path.write_bytes(data)
    with pytest.raises(
        SourceError, match=r"a\.edf: the EDF header is damaged: .* bytes of headers"
    ):
        open_raw(path)


def test_a_rate_of_zero_that_nothing_else_tells_is_refused(tmp_path, test_data):
    for part in (test_data / "broken" / "curry_sfreq_0").iterdir():
        shutil.copy(part, tmp_path / part.name)
    header = tmp_path / "test_sfreq_0.dap"
    text = header.read_text(encoding="latin-1").replace("=  2000", "=  0")
    header.chmod(0o644)
    header.write_text(text, encoding="latin-1")
    with pytest.raises(SourceError, match=r"the sampling rate in 'test_sfreq_0\.dap' is 0 Hz"):
        open_raw(header)


def test_duplicate_labels_are_told(test_data):
    _, facts = open_raw(test_data / "formats" / "edf_edge" / "duplicate_channel_labels.edf")
    assert facts.duplicates == {"EEG F1-Ref"}


def test_unequal_rates_are_told(test_data):
    _, facts = open_raw(test_data / "formats" / "edf_edge" / "test_uneven_samp.edf")
    assert any("the slower were upsampled" in note for note in facts.notes)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"\xffBIOSEMI" + b" " * 600, "x.edf", "named .edf but its content is BDF, not EDF"),
        (b"0       " + b" " * 600, "x.bdf", "named .bdf but its content is EDF, not BDF"),
        (b"0       " + b" " * 600, "x.gdf", "named .gdf but its content is EDF, not GDF"),
        (b"GDF 2.20" + b" " * 600, "x.fif", "named .fif but its content is GDF, not FIF"),
        (b"GDF 2.20" + b" " * 600, "x.vhdr", "content is GDF, not a BrainVision header"),
        (b"PK\x03\x04" + b"\0" * 600, "x.set", "content is a zip archive, not a MATLAB file"),
        (b"<!DOCTYPE html><html>", "x.edf", "content is a web page or XML, not EDF"),
        (b"one,two\n1,2\n", "x.gdf", "content is text, not GDF"),
        (b"\x01\x02\x03\x04" * 9, "x.gdf", "content is something else"),
        (b"plain", "x.fif.gz", "content is text, not gzip-compressed FIF"),
        (gzip.compress(b"plain", mtime=0), "x.fif.gz", "a gzip archive, but not of a FIF file"),
        (b"0       " + b"?" * 600, "x.edf", "the EDF header is damaged"),
    ],
)
def test_content_that_is_not_what_the_name_says_is_refused(tmp_path, content, name, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_raw(tmp_path / name)


def test_a_broken_link_is_refused(tmp_path):
    (tmp_path / "x.edf").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"x\.edf: the file is a broken link"):
        open_raw(tmp_path / "x.edf")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_a_fif_cut_anywhere_is_refused(tmp_path, make_raw, share):
    whole = tmp_path / "whole_raw.fif"
    make_raw().save(whole, verbose="error")
    data = whole.read_bytes()
    cut = tmp_path / "cut_raw.fif"
    cut.write_bytes(data[: int(share * len(data))])
    open_raw(whole)
    with pytest.raises(SourceError, match="cut short: the FIF file ends inside its data"):
        open_raw(cut)


def test_a_fif_cut_between_two_tags_is_refused(tmp_path, make_raw):
    whole = tmp_path / "whole_raw.fif"
    make_raw().save(whole, verbose="error")
    data = whole.read_bytes()
    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        _, _, size, following = struct.unpack(">iiii", data[at : at + 16])
        if following == -1:
            break
        at = following or at + 16 + size
    for keep in (len(starts) // 2, len(starts) - 3):
        cut = tmp_path / f"cut{keep}_raw.fif"
        cut.write_bytes(data[: starts[keep]])
        with pytest.raises(SourceError, match="cut short: the FIF file ends inside its data"):
            open_raw(cut)


def test_a_compressed_fif_is_read_and_a_cut_one_refused(tmp_path, make_raw):
    whole = tmp_path / "whole_raw.fif.gz"
    make_raw().save(whole, verbose="error")
    open_raw(whole)
    cut = tmp_path / "cut_raw.fif.gz"
    cut.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(SourceError, match="cut short: the archive is damaged"):
        open_raw(cut)


def test_an_edf_cut_at_a_record_is_refused(tmp_path, write_edf):
    path = write_edf(tmp_path / "x.edf")
    data = path.read_bytes()
    path.write_bytes(data[: -8 * 256 * 2])
    with pytest.raises(SourceError, match="promises 10 records, 9 are there\n"):
        open_raw(path)


def test_an_edf_with_more_records_than_promised_is_read_whole_and_told(tmp_path, write_edf):
    path = write_edf(tmp_path / "x.edf")
    data = bytearray(path.read_bytes())
    data[236:244] = b"7       "
    path.write_bytes(data)
    raw, facts = open_raw(path)
    assert raw.n_times == 10 * 256
    assert any("promises 7 records, 10 are there and were read" in n for n in facts.notes)


def discontinuous(path, jump_s):
    """Declare an EDF+ discontinuous, and let its later half start `jump_s` later."""
    data = bytearray(path.read_bytes())
    data[192:197] = b"EDF+D"
    n_records = int(data[236:244])
    for record in reversed(range(n_records // 2, n_records)):
        old, new = f"+{record}\x14\x14".encode(), f"+{record + jump_s:g}\x14\x14".encode()
        at = data.index(old)
        data[at : at + len(new)] = new
    path.write_bytes(data)


def test_a_recording_with_a_gap_is_refused_where_the_gap_is(tmp_path, write_edf):
    path = write_edf(tmp_path / "x.edf", events=[(1.0, 0.0, "here")])
    discontinuous(path, 3)
    with pytest.raises(SourceError, match="record 5 starts at 8 s, 3 s later than its place"):
        open_raw(path)


def test_a_recording_that_is_discontinuous_by_name_only_is_read(tmp_path, write_edf):
    path = write_edf(tmp_path / "x.edf", events=[(1.0, 0.0, "here")])
    discontinuous(path, 0)
    raw, _ = open_raw(path)
    assert raw.n_times == 10 * 256


def test_a_record_of_no_length_is_refused(tmp_path, write_edf):
    path = write_edf(tmp_path / "x.edf")
    data = bytearray(path.read_bytes())
    data[244:252] = b"0       "
    path.write_bytes(data)
    with pytest.raises(SourceError, match="lasts 0 s: the sampling rate is not known"):
        open_raw(path)


def test_all_files_of_a_recording_are_known(tmp_path, test_data, make_raw):
    vhdr = test_data / "formats" / "brainvision" / "test.vhdr"
    assert {p.suffix for p in companions(vhdr)} == {".eeg", ".vmrk"}
    eeglab = test_data / "formats" / "eeglab" / "eeglab_data.set"
    assert [p.suffix for p in companions(eeglab)] == [".fdt"]
    ctf = test_data / "meg" / "ctf" / "testdata_ctf_short_discontinuous.ds"
    assert any(p.suffix == ".meg4" for p in companions(ctf))
    big = make_raw(signal=np.ones((8, 400_000)), sfreq=100.0)
    big.save(tmp_path / "big_raw.fif", split_size="10MB", verbose="error")
    assert [p.name for p in companions(tmp_path / "big_raw.fif")] == ["big_raw-1.fif"]


def test_a_split_fif_whose_later_part_is_missing_is_refused(tmp_path, make_raw):
    big = make_raw(signal=np.ones((8, 400_000)), sfreq=100.0)
    big.save(tmp_path / "big_raw.fif", split_size="10MB", verbose="error")
    (tmp_path / "big_raw-1.fif").unlink()
    with pytest.raises(SourceError, match=r"MNE cannot read it|companion"):
        open_raw(tmp_path / "big_raw.fif")


def test_opening_reads_no_samples(tmp_path, test_data):
    shutil.copy(test_data / "eegmat" / "Subject00_1.edf", tmp_path / "x.edf")
    raw, _ = open_raw(tmp_path / "x.edf")
    assert isinstance(raw, mne.io.BaseRaw) and not raw.preload


def test_what_a_library_logs_is_told_and_not_on_the_screen(test_data, tmp_path, capfd):
    _, facts = open_raw(test_data / "broken" / "curry_sfreq_0" / "test_sfreq_0.dap")
    assert any("MNE: Sample distance" in note for note in facts.notes)
    data = (test_data / "formats" / "xdf" / "test.xdf").read_bytes()
    (tmp_path / "a.xdf").write_bytes(data[:200_000])
    with pytest.raises(SourceError, match="found likely XDF file corruption"):
        open_raw(tmp_path / "a.xdf", XdfReader(unit="uV"))
    told = capfd.readouterr().err
    assert "corruption" not in told and "Sample distance" not in told

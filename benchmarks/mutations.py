"""Small recordings of every format, and damaged copies of them. See `faults.py`.

Nothing here measures; the same seed makes the same files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mne
import numpy as np

Rng = np.random.Generator
MAIN_LIMIT = 8192  # where headers are: most damage that a reader believes lies there


@dataclass(frozen=True)
class Base:
    """A recording to be damaged.

    Attributes
    ----------
    name : str
        Of the format.
    main : str
        The file, or folder, that is the recording.
    files : dict
        Name -> content, the main one's companions included.
    source : dict
        What the config says about reading it.
    """

    name: str
    main: str
    files: dict[str, bytes]
    source: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, files: dict[str, bytes] | None = None) -> None:
        """Write it, or a damaged version of its files."""
        for name, content in (files or self.files).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def bases(data: Path, scratch: Path) -> list[Base]:
    """Cut small recordings of every format out of the real ones under `data`."""
    f, meg = data / "formats", data / "meg"
    muse = {"name": "table", "time": "timestamps", "sfreq": 256, "unit": "uV"}
    muse |= {"ch_names": ["TP9", "AF7", "AF8", "TP10"], "markers": ["Marker0"]}
    array = {"name": "array", "axes": ["channel", "time"], "sfreq": 256, "unit": "uV"}
    array |= {"ch_names": [f"E{n}" for n in range(23)]}
    anywhere = {"allow_unlocated": True}
    table = next((data / "muse" / "N170").rglob("*.csv"))
    window = next((data / "chbmit_windows").rglob("*_ictal.npy"))
    ctf = meg / "ctf" / "testdata_ctf_short_discontinuous.ds"
    bti = {"name": "bti", "config_file": "test_config_solaris", "head_shape": "test_hs_solaris"}
    kit = {"name": "kit", "markers": ["test_mrk.sqd"], "elp": "test_elp.txt", "hsp": "test_hsp.txt"}
    eeg = data / "eegmmidb"
    return [
        Base("edf", "a.edf", {"a.edf": cut_edf(next(eeg.rglob("S001R05.edf")), 6)}),
        Base("edf_uneven", "a.edf", _only(f / "edf_edge/test_uneven_samp.edf", "a.edf"),
             anywhere | {"unit_scale": 1e-6, "channels": {"0.2Hz*": "drop"}}),
        Base("edf_twice", "a.edf", _only(f / "edf_edge/duplicate_channel_labels.edf", "a.edf"),
             anywhere | {"channels": {"EEG F1-*": "drop"}}),
        Base("edf_utf8", "a.edf", _only(f / "edf_edge/test_utf8_annotations.edf", "a.edf"),
             anywhere),
        Base("bdf", "a.bdf", {"a.bdf": cut_edf(f / "bdf/test.bdf", 6, n_bytes=3)}, anywhere),
        Base("gdf", "a.gdf", {"a.gdf": cut_gdf(next((data / "ssvep_exo").rglob("*.gdf")), 6.0)},
             {"unit_scale": 1000.0}),
        Base("fif_eeg", "a_raw.fif",
             cut_fif(next((data / "ssvep_exo").rglob("*_raw.fif")), scratch, 6.0, "a_raw.fif"),
             {"unit_scale": 0.001}),
        Base("fif_meg", "a_raw.fif",
             cut_fif(meg / "neuromag/sample_audvis_trunc_raw_sss.fif", scratch, 1.0, "a_raw.fif",
                     every=12)),
        Base("fif_opm", "a_raw.fif",
             cut_fif(meg / "opm/opm_cerca_noise_raw.fif", scratch, 1.0, "a_raw.fif", every=8)),
        Base("fif_ecog", "a_ieeg.fif",
             cut_fif(data / "ieeg/ecog/sample_ecog_ieeg.fif", scratch, 0.7, "a_ieeg.fif",
                     every=10)),
        Base("brainvision", "test.vhdr", _folder(f / "brainvision")),
        Base("eeglab", "a.set", cut_eeglab(f / "eeglab/eeglab_data.set", scratch, 10.0)),
        Base("nicolet", "test_nicolet_raw.data", _folder(f / "nicolet"),
             {"reader": {"name": "nicolet", "ch_type": "eeg"}}),
        Base("xdf", "test.xdf", _folder(f / "xdf"),
             anywhere | {"reader": {"name": "xdf", "unit": "uV"}}),
        Base("table", "a.csv", {"a.csv": b"".join(table.open("rb").readlines()[:1600])},
             {"reader": muse}),
        Base("array", "a.npy", _only(window, "a.npy"), anywhere | {"reader": array}),
        Base("ctf", ctf.name, {f"{ctf.name}/{p.name}": p.read_bytes() for p in ctf.iterdir()
                             if p.is_file()}),
        Base("bti", "test_pdf_solaris", _folder(meg / "bti"), {"reader": bti}),
        Base("kit", "test.sqd", _folder(meg / "kit"), {"reader": kit}),
        Base("curry", "test_sfreq_0.dap", _folder(data / "broken/curry_sfreq_0")),
    ]  # fmt: skip


def _only(path: Path, name: str) -> dict[str, bytes]:
    return {name: path.read_bytes()}


def _folder(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


# ---------------------------------------------------------------------------------------
# Cutting


def cut_edf(path: Path, n_records: int, n_bytes: int = 2) -> bytes:
    """Return the first records of an EDF (2 bytes a sample) or BDF (3)."""
    data = path.read_bytes()
    n_header, n_signals = int(data[184:192]), int(data[252:256])
    lengths = data[256 + 216 * n_signals :][: 8 * n_signals]
    per_record = sum(int(lengths[8 * i : 8 * i + 8]) for i in range(n_signals)) * n_bytes
    head = data[:236] + f"{n_records:<8d}".encode() + data[244:n_header]
    return head + data[n_header : n_header + n_records * per_record]


def cut_gdf(path: Path, duration_s: float) -> bytes:
    """Return the beginning of a GDF, its event table behind it."""
    data = path.read_bytes()
    extra = mne.io.read_raw_gdf(path, verbose="error")._raw_extras[0]
    seconds, of = extra["record_length"]  # a fraction
    per_record = int(extra["bytes_tot"])
    n = round(duration_s * of / seconds)
    first = extra["data_offset"]
    events = data[first + extra["n_records"] * per_record :]
    head = data[:236] + int(n).to_bytes(8, "little") + data[244:first]
    return head + data[first : first + n * per_record] + events


def cut_fif(
    path: Path, scratch: Path, duration_s: float, name: str, every: int = 1
) -> dict[str, bytes]:
    """Return the beginning of a FIF, of every so many channels."""
    raw = mne.io.read_raw_fif(path, verbose="error")
    with raw.info._unlock():
        raw.info["proc_history"] = []  # of SSS: megabytes
    raw.pick(raw.ch_names[::every]).crop(0, min(duration_s, raw.times[-1]))
    scratch.mkdir(parents=True, exist_ok=True)
    raw.save(scratch / name, overwrite=True, verbose="error")
    return _only(scratch / name, name)


def cut_eeglab(path: Path, scratch: Path, duration_s: float) -> dict[str, bytes]:
    """Return the beginning of an EEGLAB set with its samples beside it."""
    import scipy.io

    eeg = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)["EEG"]
    n = round(duration_s * eeg.srate)
    samples = np.fromfile(path.with_suffix(".fdt"), "<f4").reshape(eeg.pnts, -1)[:n]
    eeg.pnts, eeg.xmax, eeg.times, eeg.data = n, (n - 1) / eeg.srate, np.arange(n), "a.fdt"
    eeg.datfile = "a.fdt"
    eeg.event = eeg.event[[e.latency < n for e in eeg.event]]
    eeg.urevent = np.array([])
    names = [name for name in dir(eeg) if not name.startswith("_")]
    scratch.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(scratch / "a.set", {"EEG": {name: getattr(eeg, name) for name in names}})
    return _only(scratch / "a.set", "a.set") | {"a.fdt": samples.tobytes()}


# ---------------------------------------------------------------------------------------
# Damaging


def mutate(base: Base, rng: Rng) -> tuple[dict[str, bytes], str]:
    """Return the files of a recording after one to three accidents, and what those were."""
    files = dict(base.files)
    accidents = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        name = _victim(files, base, rng)
        if name is None:
            break
        how = ACCIDENTS[int(rng.integers(len(ACCIDENTS)))]
        files[name] = how(files[name], rng)
        accidents.append(f"{how.__name__} {name}")
    if len(files) > 1 and rng.random() < 0.02:
        name = str(rng.choice([n for n in files if n != base.main] or [base.main]))
        del files[name]
        accidents.append(f"without {name}")
    return files, ", ".join(accidents)


def _victim(files: dict[str, bytes], base: Base, rng: Rng) -> str | None:
    """Choose a file: the main one half of the time, where it is a file."""
    filled = [name for name, content in files.items() if content]
    if base.main in filled and rng.random() < 0.5:
        return base.main
    return str(rng.choice(filled)) if filled else None


def truncated(data: bytes, rng: Rng) -> bytes:
    """Cut off the end: anywhere, in the header, or the last few bytes."""
    where = (
        rng.integers(len(data)),
        rng.integers(min(len(data), MAIN_LIMIT)),
        len(data) - rng.integers(1, min(len(data), 64) + 1),
    )
    return data[: int(where[int(rng.integers(3))])]


def flipped(data: bytes, rng: Rng) -> bytes:
    """Flip single bits."""
    out = bytearray(data)
    for _ in range(int(rng.choice([1, 2, 8, 64]))):
        out[_place(out, rng)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def overwritten(data: bytes, rng: Rng) -> bytes:
    """Fill a stretch with zeros, ones or noise, as a disk does."""
    out = bytearray(data)
    start = _place(out, rng)
    n = min(int(rng.choice([4, 16, 512, 4096])), len(out) - start)
    fill = (bytes(n), b"\xff" * n, rng.bytes(n))[int(rng.integers(3))]
    out[start : start + n] = fill
    return bytes(out)


def shifted(data: bytes, rng: Rng) -> bytes:
    """Lose a few bytes, or find a few again."""
    start = _place(data, rng)
    n = int(rng.choice([1, 2, 3, 4, 100]))
    if rng.random() < 0.5:
        return data[:start] + data[start + n :]
    return data[:start] + data[max(0, start - n) : start] + data[start:]


_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
WILD = (b"0", b"-1", b"1", b"9" * 12, b"nan", b"inf", b"1e308", b"-0.0", b"abc", b" ", b"65536")


def edited(data: bytes, rng: Rng) -> bytes:
    """Change numbers written in the header, its length kept."""
    found = list(_NUMBER.finditer(data[:MAIN_LIMIT]))
    if not found:
        return numbers(data, rng)
    out = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 3]))):
        at = found[int(rng.integers(len(found)))]
        new = WILD[int(rng.integers(len(WILD)))]
        width = at.end() - at.start()
        out[at.start() : at.end()] = new[:width].ljust(width)
    return bytes(out)


def numbers(data: bytes, rng: Rng) -> bytes:
    """Change binary numbers in the header to extremes."""
    out = bytearray(data)
    kinds = ("<i4", ">i4", "<f4", ">f4", "<f8", ">f8", "<i2")
    for _ in range(int(rng.choice([1, 2, 5]))):
        kind = np.dtype(kinds[int(rng.integers(len(kinds)))])
        if kind.kind == "i":
            values = [0, -1, np.iinfo(kind).max, np.iinfo(kind).min, 1, 1000]
        else:
            values = [0.0, -1.0, np.nan, np.inf, 1e-30, 1e30]
        new = np.array(values[int(rng.integers(len(values)))], kind).tobytes()
        start = _place(out, rng) // 4 * 4
        out[start : start + len(new)] = new
    return bytes(out[: len(data)])


def lines(data: bytes, rng: Rng) -> bytes:
    """Lose, repeat or swap lines of text."""
    parts = data.split(b"\n")
    if len(parts) < 3:
        return flipped(data, rng)
    i, j = (int(v) for v in rng.integers(len(parts), size=2))
    action = int(rng.integers(3))
    if action == 0:
        del parts[i]
    elif action == 1:
        parts.insert(i, parts[j])
    else:
        parts[i], parts[j] = parts[j], parts[i]
    return b"\n".join(parts)


def units(data: bytes, rng: Rng) -> bytes:
    """Write another unit, as some software does."""
    known = (b"uV", b"mV", b"nV", b"\xc2\xb5V", b"V ", b"kV", b"pT", b"  ")
    places = [m for name in known[:4] for m in re.finditer(re.escape(name), data[: 2 * MAIN_LIMIT])]
    if not places:
        return edited(data, rng)
    new = known[int(rng.integers(len(known)))]
    out = data
    for at in places if rng.random() < 0.5 else [places[int(rng.integers(len(places)))]]:
        out = (
            out[: at.start()]
            + new[: at.end() - at.start()].ljust(at.end() - at.start())
            + out[at.end() :]
        )
    return out


def _place(data: bytes | bytearray, rng: Rng) -> int:
    """Choose a position: in the header three times of four."""
    reach = len(data) if rng.random() < 0.25 else min(len(data), MAIN_LIMIT)
    return int(rng.integers(max(1, reach)))


ACCIDENTS: tuple[Callable[[bytes, Rng], bytes], ...] = (
    truncated, flipped, overwritten, shifted, edited, edited, numbers, lines, units,
)  # fmt: skip

"""Recordings behind URLs: fetched when they are needed, checked, and known again."""

import functools
import http.server
import sys
import threading
import uuid

import fsspec
import h5py
import mne
import numpy as np
import pytest

from neurofm.config import parse_config
from neurofm.errors import ConfigError, SourceError
from neurofm.preprocessing import mirror as room
from neurofm.preprocessing.mirror import fetch, mirror, release, size_of
from neurofm.preprocessing.read import open_raw
from neurofm.preprocessing.run import CONFIG, run
from neurofm.store.reader import open_store

URL = "memory://bucket/study"
KEY = "{subject}/eeg"


@pytest.fixture
def memory():
    """An object store in memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    return fs


@pytest.fixture
def study(tmp_path, write_edf, make_raw):
    """Two recordings: an EDF file, and BrainVision in three files."""
    folder = tmp_path / "study"
    write_edf(folder / "sub-1" / "sub-1_eeg.edf", seed=1)
    (folder / "sub-2").mkdir()
    mne.export.export_raw(folder / "sub-2" / "sub-2_eeg.vhdr", make_raw(seed=2), verbose="error")
    (folder / "README.md").write_text("about")
    return folder


@pytest.fixture
def uploaded(memory, study):
    memory.put(str(study), "/bucket/study", recursive=True)
    return memory


@pytest.fixture
def make_config(tmp_path):
    def make(root=URL, **more):
        values = {
            "dataset": "far",
            "root": root,
            "store": str(tmp_path / "store"),
            "cache": str(tmp_path / "cache"),
            "contract": {"sfreq": 128, "band_hz": [0.5, 40], "window_s": 2.0, "line_hz": "none"},
            "sources": [{}],
            "workers": 0,
            **more,
        }
        return parse_config(CONFIG, values, where="test")

    return make


def test_only_headers_are_fetched_until_a_recording_is_needed(tmp_path, uploaded, study):
    root = mirror(URL, tmp_path / "cache")
    sizes = {p.name: p.stat().st_size for p in root.rglob("*.*") if p.name != room.MANIFEST}
    assert sizes.pop("sub-2_eeg.vhdr") > 0
    assert set(sizes.values()) == {0}
    edf = root / "sub-1" / "sub-1_eeg.edf"
    assert size_of(edf) == (study / "sub-1" / "sub-1_eeg.edf").stat().st_size
    with pytest.raises(SourceError, match="the file is empty"):
        open_raw(edf)
    fetch([edf])
    assert edf.read_bytes() == (study / "sub-1" / "sub-1_eeg.edf").read_bytes()


def test_a_run_over_a_url_makes_the_store_of_a_run_over_the_files(
    tmp_path, uploaded, study, make_config
):
    far = run(make_config(every_file=True))
    near = run(make_config(str(study), store=str(tmp_path / "near"), every_file=True))
    columns = ["path", "status", "recording_id", "reason"]
    assert far.report[columns].equals(near.report[columns])
    a, b = open_store(far.store), open_store(near.store)
    assert list(a.index["source_hash"]) == list(b.index["source_hash"])
    for name in a.index["recording_id"]:
        np.testing.assert_array_equal(a.recording(name).signal, b.recording(name).signal)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_in_the_store_is_not_downloaded_again(uploaded, make_config, monkeypatch, keep):
    config = make_config(keep_cache=keep)
    run(config)
    root = mirror(URL, room.Path(config.cache), keep=keep)
    assert ((root / "sub-1" / "sub-1_eeg.edf").stat().st_size > 0) is keep
    monkeypatch.setattr(room, "_download", pytest.fail)
    assert set(run(config).report["reason"]) == {"in the store already"}


def test_a_file_that_changed_behind_the_url_is_told(uploaded, make_config, write_edf, tmp_path):
    config = make_config()
    run(config)
    changed = write_edf(tmp_path / "new.edf", seed=7, duration_s=12)
    uploaded.put_file(str(changed), "/bucket/study/sub-1/sub-1_eeg.edf")
    uploaded.rm("/bucket/study/sub-2", recursive=True)
    with pytest.raises(SourceError, match="the file has changed since"):
        run(config)


def test_a_download_that_is_not_what_was_listed_is_refused(tmp_path, uploaded):
    root = mirror(URL, tmp_path / "cache")
    uploaded.pipe_file("/bucket/study/sub-1/sub-1_eeg.edf", b"short")
    with pytest.raises(SourceError, match=r"sub-1_eeg\.edf: 5 bytes arrived, \d+ were listed"):
        fetch([root / "sub-1" / "sub-1_eeg.edf"])
    uploaded.rm("/bucket/study/sub-1/sub-1_eeg.edf")
    with pytest.raises(SourceError, match="cannot be downloaded: FileNotFoundError"):
        fetch([root / "sub-1" / "sub-1_eeg.edf"])
    assert [p.name for p in (root / "sub-1").iterdir()] == ["sub-1_eeg.edf"]


def test_release_leaves_local_files_alone(tmp_path, study):
    path = study / "sub-1" / "sub-1_eeg.edf"
    before = path.read_bytes()
    release([path])
    fetch([path])
    assert path.read_bytes() == before


def test_recordings_of_one_remote_file_are_found(memory, tmp_path, make_config):
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for subject in "12":
            noise = np.random.default_rng(int(subject)).normal(0, 20, (3, 2560))
            file[f"{subject}/eeg"] = noise
    memory.put_file(str(tmp_path / "all.h5"), "/bucket/study/all.h5")
    reader = {
        "name": "array", "key": KEY, "sfreq": 256, "unit": "uV",
        "ch_names": ["Fz", "Cz", "Pz"],
    }  # fmt: skip
    config = make_config(sources=[{"reader": reader}], keep_cache=False)
    assert run(config).report["status"].tolist() == ["kept", "kept"]


def test_a_folder_that_is_empty_or_cannot_be_listed_is_refused(memory, tmp_path):
    with pytest.raises(
        SourceError, match=r"memory://bucket/none: (no file there|cannot be listed)"
    ):
        mirror("memory://bucket/none", tmp_path)
    with pytest.raises(ConfigError, match="'nothing://x': Protocol not known"):
        mirror("nothing://x", tmp_path)


def test_what_a_protocols_library_raises_is_told(tmp_path, uploaded, monkeypatch):
    class NoCredentials(Exception):
        """As botocore's: no OSError."""

    def refuse(*args, **kwargs):
        raise NoCredentials("Unable to locate credentials")

    root = mirror(URL, tmp_path / "first")
    monkeypatch.setattr(type(uploaded), "get_file", refuse)
    told = r"eeg\.edf: cannot be downloaded: NoCredentials: Unable to locate"
    with pytest.raises(SourceError, match=told):
        fetch(root.rglob("*.edf"))
    monkeypatch.setattr(type(uploaded), "find", refuse)
    told = r"study: cannot be listed: NoCredentials: Unable to locate.*\n.*~/\.config/fsspec"
    with pytest.raises(SourceError, match=told):
        mirror(URL, tmp_path / "second")


def test_without_the_package_of_a_protocol_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"gs://bucket/x cannot be read: .*\n.*neurofm\[cloud\]"):
        mirror("gs://bucket/x", tmp_path)


def test_a_web_server_is_read_by_worker_processes(study, make_config):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(study))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            result = run(make_config(f"http://127.0.0.1:{server.server_port}/", workers=1))
        finally:
            server.shutdown()
            thread.join()
    assert result.report["status"].tolist() == ["kept", "kept"]


def test_a_bucket_is_read(tmp_path, study, make_config, monkeypatch):
    pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    for key, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y",
                       "AWS_DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        name = f"bucket-{uuid.uuid4().hex}"  # moto keeps buckets as long as the process lives
        fs.mkdir(name)
        fs.put(str(study), f"{name}/study", recursive=True)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        result = run(make_config(f"s3://{name}/study"))
    finally:
        server.stop()
    assert result.report["status"].tolist() == ["kept", "kept"]

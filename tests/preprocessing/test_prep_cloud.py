"""Preprocessing into a bucket: the same store as on disk, and resumed as on disk."""

import uuid
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import fsspec
import numpy as np
import pytest

from neurofm.config import parse_config
from neurofm.preprocessing.run import CONFIG, run
from neurofm.store.reader import open_store
from neurofm.store.remote import RemotePath

_servers = Path(__file__).parents[1] / "store/servers.py"
_spec = spec_from_file_location("store_servers", _servers)
servers = module_from_spec(_spec)
_spec.loader.exec_module(servers)


@pytest.fixture
def bucket(monkeypatch):
    """The URL of an empty bucket, told to every process by the environment."""
    with servers.s3_server() as (address, _):
        for key, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
        }.items():
            monkeypatch.setenv(key, value)
        # a filesystem that is remembered asks the server it was made for
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        name = f"lake-{uuid.uuid4().hex}"  # moto keeps buckets as long as the process lives
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
        yield f"s3://{name}"
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def config(tmp_path, write_edf):
    for n in (1, 2, 3):
        write_edf(tmp_path / "raw" / f"sub-{n}" / f"sub-{n}_task-x_eeg.edf", seed=n)

    def make(store, **changes):
        values = {
            "dataset": "made",
            "root": str(tmp_path / "raw"),
            "store": str(store),
            "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2.0},
            "sources": [{}],
            "workers": 0,
        }
        return parse_config(CONFIG, values | changes, where="test")

    return make


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_made_in_a_bucket_is_the_store_made_on_disk(bucket, config, tmp_path, workers):
    here = run(config(tmp_path / "store")).store
    done = run(config(f"{bucket}/store", workers=workers))
    assert done.store == RemotePath(f"{bucket}/store")
    assert (done.report["status"] == "kept").all()
    names = {p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file()}
    assert set(done.store.files()) == names
    same = {n for n in names if (done.store / n).read_bytes() == (here / n).read_bytes()}
    assert names - same <= {"report.html"}
    assert open_store(f"{bucket}/store").verify() == []


def test_what_is_in_the_bucket_is_not_made_again(bucket, config, tmp_path, write_edf):
    run(config(f"{bucket}/store"))
    write_edf(tmp_path / "raw/sub-4/sub-4_task-x_eeg.edf", seed=4)
    report = run(config(f"{bucket}/store")).report.set_index("path")
    assert list(report["status"]) == ["skipped"] * 3 + ["kept"]
    store = open_store(f"{bucket}/store")
    assert len(store) == 4
    assert np.isfinite(store.recording("made_sub-4_task-x").signal).all()

"""Killed without warning in the middle, and run again: the same store as if never killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from neurofm.config import load_config
from neurofm.preprocessing.run import CONFIG, run
from neurofm.store.reader import open_store

N = 8


@pytest.fixture
def command(tmp_path, write_edf):
    """Start the command over `N` recordings; return the process and the store."""
    for n in range(N):
        write_edf(tmp_path / "raw" / f"sub-{n}_eeg.edf", seed=n, duration_s=180)
    values = {
        "dataset": "made",
        "root": str(tmp_path / "raw"),
        "store": "given on the command line",
        "contract": {"sfreq": 128, "band_hz": [0.5, 45], "window_s": 2.0},
        "sources": [{}],
        "workers": 2,
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    started = []

    def start(name):
        store = tmp_path / name
        args = [sys.executable, "-m", "neurofm.cli", "preprocess", str(config), f"store={store}"]
        process = subprocess.Popen(
            args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process, store

    yield start
    for process in started:
        process.kill()  # a test that failed may have left it stopped
        process.wait()


def wait_for(condition, process, timeout_s=600):
    end = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"it ended too early: {process.communicate()}")
        time.sleep(0.002)


def finished(store):
    folder = store / "recordings"
    return [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []


def workers_of(pid):
    """Process ids of the workers."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [
        int(line.split()[0])
        for line in listed.stdout.splitlines()
        if "preprocessing.worker" in line
    ]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def require_dead(pids, timeout_s=600):
    end = time.monotonic() + timeout_s
    while any(is_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in pids), "workers outlived the run"


def compare(store, other):
    a, b = open_store(store), open_store(other)
    assert a.index.astype(str).equals(b.index.astype(str))
    for name in a.index["recording_id"]:
        assert a.recording(name).signal.tobytes() == b.recording(name).signal.tobytes()
        assert a.provenance(name)["source_hash"] == b.provenance(name)["source_hash"]
    assert a.verify() == []
    assert (store / "report.csv").read_text() == (other / "report.csv").read_text()


def test_a_killed_run_continues_to_the_same_store(command, tmp_path):
    process, store = command("killed")
    wait_for(lambda: finished(store), process)
    process.send_signal(signal.SIGSTOP)  # or it may be done before it is killed
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    assert 0 < len(finished(store)) < N
    require_dead(workers)

    process, store = command("killed")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "skipped" in out and "0 refused" in out
    assert not list(store.glob(".tmp-?*/signal")), "half a recording was left behind"

    overrides = [f"store={tmp_path / 'whole'}", "workers=0"]
    compare(store, run(load_config(CONFIG, tmp_path / "config.yaml", overrides)).store)


def test_a_killed_worker_loses_its_recording_alone_or_nothing(command):
    process, store = command("worker")
    wait_for(lambda: finished(store), process)
    for pid in workers_of(process.pid)[:1]:
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert len(open_store(store).index) == N
    assert "0 refused" in out


def test_an_interrupted_run_ends_at_once_and_keeps_what_is_finished(command, tmp_path):
    process, store = command("interrupted")
    wait_for(lambda: finished(store), process)
    workers = workers_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130 and "Traceback" not in err, err
    require_dead(workers)
    overrides = [f"store={store}", "workers=0"]
    result = run(load_config(CONFIG, tmp_path / "config.yaml", overrides))
    counts = result.report["status"].value_counts()
    assert counts["skipped"] >= 1 and counts["skipped"] + counts.get("kept", 0) == N

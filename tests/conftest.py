"""Fixtures that every room shares."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# a machine that does something else meanwhile is no fault of what is tested
settings.register_profile("neurofm", deadline=None)
settings.load_profile("neurofm")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # tiny models: threads that wait for each other cost more than they bring
    import torch

    torch.set_num_threads(1)


def pytest_runtest_setup():
    """Draw the same in every run: what fails once fails again."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def test_data():
    """Folder of real recordings; the test is skipped, with the reason, where there is none."""
    folder = Path(os.environ.get("NEUROFM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if (folder / "MANIFEST.md").exists():
        return folder
    reason = f"no real recordings at {folder}; set NEUROFM_TEST_DATA"
    if os.environ.get("NEUROFM_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


# ---------------------------------------------------------------------------------------
# Runs that are cut off

DIES_IN_A_SNAPSHOT = """
import os, signal, sys
import torch
from neurofm import cli
from neurofm.training.snapshots import SnapshotEvery

torch.set_num_threads(1)
*words, last = sys.argv[1:]
write = SnapshotEvery._write

def die(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)

def write_or_die(self, trainer, step):
    if step == int(last):
        os.fsync = die
    write(self, trainer, step)

SnapshotEvery._write = write_or_die
cli.main(words)
"""


@pytest.fixture
def kill(tmp_path):
    """Run a stage in a process that is killed while it writes the snapshot of a step."""

    def run(stage, config, step):
        file = tmp_path / "killed.yaml"
        file.write_text(config.to_yaml())
        words = [sys.executable, "-c", DIES_IN_A_SNAPSHOT, stage, str(file), str(step)]
        child = subprocess.run(words, stderr=subprocess.PIPE, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr

    return run


@pytest.fixture
def interrupt(monkeypatch):
    """Run something that trains, and interrupt it before a step."""
    from neurofm.training.module import TrainModule

    step = TrainModule.training_step

    def run_until(last, run, config):
        def stop(self, batch, index):
            if self.global_step == last:
                raise KeyboardInterrupt
            return step(self, batch, index)

        with monkeypatch.context() as patched:
            patched.setattr(TrainModule, "training_step", stop)
            with pytest.raises(BaseException):  # noqa: B017 - as Lightning passes an interrupt on
                run(config)

    return run_until

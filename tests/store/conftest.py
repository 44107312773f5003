"""Small stores to merge, empty, verify and serve."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neurofm.contract import SignalContract
from neurofm.sensors import Sensors
from neurofm.signals import Entities, Recording
from neurofm.store.writer import commit, create_store, write_recording

CONTRACT = SignalContract(sfreq=100.0, band_hz=(0.5, 40.0), window_s=1.0)


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes recordings of four channels x 12 s that depend on subject and seed only."""

    contract: SignalContract = CONTRACT

    def recording(self, subject, seed=0, dataset="d"):
        sensors = Sensors(
            ch_names=("Fz", "Cz", "Pz", "Oz"),
            kind=np.zeros(4, np.int8),
            position=np.zeros((4, 3), np.float32),
            orientation=np.zeros((4, 3), np.float32),
            known=np.zeros(4, np.int8),
            oriented=np.zeros(4, bool),
            region=(None,) * 4,
        )
        rng = np.random.default_rng([seed, *subject.encode()])
        return Recording(
            signal=rng.normal(scale=1e-5, size=(4, 1200)).astype(np.float32),
            sfreq=100.0,
            sensors=sensors,
            entities=Entities(dataset=dataset, subject=subject),
        )

    def put(self, path, *subjects, seed=0, dataset="d", provenance=None):
        """Write recordings, and return the rows that `commit` takes."""
        return [
            write_recording(
                path,
                self.recording(subject, seed, dataset),
                quality={},
                provenance=provenance or {"source": f"{subject}.edf"},
            )
            for subject in subjects
        ]

    def store(self, path, *subjects, **kwargs):
        """Make a store, and return where it is."""
        create_store(path, self.contract)
        commit(path, self.put(path, *subjects, **kwargs))
        return path


@pytest.fixture
def maker():
    return Maker()


@pytest.fixture(scope="session")
def dies():
    """Run code in a process that dies at its n-th call of `names`; tell whether it came to it."""
    script = Path(__file__).with_name("deadly.py")
    helper = subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(code, names, n):
        helper.stdin.write(json.dumps([code, names, n]) + "\n")
        helper.stdin.flush()
        status = int(helper.stdout.readline())
        assert status in (0, -signal.SIGKILL)
        return status != 0

    yield run
    helper.stdin.close()
    helper.wait()

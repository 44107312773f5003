"""A small cohort for the tests of this room: rhythms that differ by class and by subject."""

import numpy as np
import pandas as pd
import pytest
import torch

from neurofm import checkpoint
from neurofm.backbones.transformer import TransformerConfig
from neurofm.contract import SignalContract
from neurofm.encoder import EncoderConfig
from neurofm.finetune.cohort import Cohort
from neurofm.finetune.tasks import TaskConfig
from neurofm.finetune.trials import COLUMNS, Trials, find_trials
from neurofm.sensors import Sensors
from neurofm.signals import Entities, Event, Recording
from neurofm.store.writer import commit, create_store, write_recording
from neurofm.tokenizers.patch import LinearPatchConfig

SFREQ = 64.0
CONTRACT = SignalContract(sfreq=SFREQ, band_hz=(0.5, 30.0), window_s=1.0, line_hz="none")
ENCODER = EncoderConfig(
    width=16,
    tokenizer=LinearPatchConfig(patch_s=0.25),
    backbone=TransformerConfig(depth=1, n_heads=2, mlp_ratio=2.0, attention="full"),
)


def make_sensors(n_channels):
    return Sensors(
        ch_names=("Fz", "C3", "C4", "Pz", "Oz")[:n_channels],
        kind=np.zeros(n_channels, np.int8),
        position=np.random.default_rng(0).normal(size=(n_channels, 3)).astype(np.float32) / 20,
        orientation=np.zeros((n_channels, 3), np.float32),
        known=np.ones(n_channels, np.int8),
        oriented=np.zeros(n_channels, bool),
        region=(None,) * n_channels,
    )


def make_recording(subject, run, *, n_trials=6, n_channels=4, bad=()):
    """Two classes in turn, each for a second: 5 Hz at the front or 12 Hz at the back."""
    rng = np.random.default_rng([int(subject), int(run)])
    n_times = int((2 * n_trials + 2) * SFREQ)
    t = np.arange(n_times) / SFREQ
    signal = rng.normal(size=(n_channels, n_times)) * (1 + rng.random((n_channels, 1)))
    events = []
    for i in range(n_trials):
        onset = 1.0 + 2 * i
        now = (t >= onset) & (t < onset + 1)
        if i % 2:
            signal[:2, now] += 3 * np.sin(2 * np.pi * 5 * t[now])
        else:
            signal[2:, now] += 3 * np.sin(2 * np.pi * 12 * t[now])
        events.append(Event(onset_s=onset, duration_s=1.0, description="slow" if i % 2 else "fast"))
    events += [Event(onset_s=on, duration_s=d, description="BAD_move") for on, d in bad]
    return Recording(
        signal=(signal * 1e-5).astype(np.float32),
        sfreq=SFREQ,
        sensors=make_sensors(n_channels),
        entities=Entities(dataset="tiny", subject=subject, task="rhythm", run=run),
        events=tuple(sorted(events, key=lambda e: e.onset_s)),
    )


def write_store(path, recordings, contract=CONTRACT):
    create_store(path, contract)
    rows = [
        write_recording(
            path, r, quality={}, provenance={"source": r.recording_id, "source_hash": "0"}
        )
        for r in recordings
    ]
    commit(path, rows)
    return path


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    """Four subjects, two runs each, six trials a run."""
    recordings = [make_recording(s, r) for s in ("01", "02", "03", "04") for r in ("1", "2")]
    return write_store(tmp_path_factory.mktemp("store") / "tiny", recordings)


@pytest.fixture(scope="session")
def task():
    """Which of the two rhythms it is."""
    return TaskConfig.model_validate(
        {
            "name": "rhythm",
            "classes": ("slow", "fast"),
            "trials": ({"event": "slow", "label": "slow"}, {"event": "fast", "label": "fast"}),
        }
    )


@pytest.fixture(scope="module")
def cohort(tiny_store):
    return Cohort([str(tiny_store)])


@pytest.fixture(scope="module")
def trials(cohort, task):
    return find_trials(cohort, task, sfreq=64.0, window_s=1.0)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """An encoder that says it saw two of the four subjects."""
    torch.manual_seed(0)
    return checkpoint.save(
        tmp_path_factory.mktemp("checkpoint") / "tiny",
        ENCODER.build(CONTRACT),
        contract=CONTRACT,
        provenance={"subjects": {"tiny": ["01", "02"]}, "recordings": []},
        training={"loss": [[0, 1.0], [10, 0.5]]},
    )


@pytest.fixture
def make_store(tmp_path):
    """Write a store of recordings given as (subject, run, keyword arguments)."""

    def write(*recordings, name="store", band_hz=CONTRACT.band_hz):
        made = [make_recording(subject, run, **more) for subject, run, more in recordings]
        contract = CONTRACT.model_copy(update={"band_hz": band_hz})
        return write_store(tmp_path / name, made, contract)

    return write


@pytest.fixture
def make_trials():
    """Trials without any signal: `per_class` of each class for every subject."""

    def make(subjects=("a", "b", "c", "d"), *, per_class=6, classes=("x", "y"), sessions=("",)):
        rows = []
        for subject in subjects:
            for session in sessions:
                for i in range(per_class * len(classes)):
                    label = classes[i % len(classes)]
                    recording = f"d_{subject}{session}"
                    row = {
                        "trial_id": f"{recording}@{i}",
                        "recording_id": recording,
                        "dataset": "d",
                        "subject": subject,
                        "person": f"d/{subject}",
                        "session": session,
                        "run": "",
                        "onset_s": float(i),
                        "start": 100 * i,
                        "n_times": 100,
                        "label": label,
                        "y": classes.index(label),
                    }
                    rows.append(row)
        dropped = pd.DataFrame(columns=["recording_id", "onset_s", "start", "label", "reason"])
        return Trials(pd.DataFrame(rows, columns=list(COLUMNS)), tuple(classes), 100.0, dropped)

    return make

import errno
import math
import os

import pytest
import torch
from torch import nn

from neurofm.errors import TrainingError
from neurofm.files import write_atomically
from neurofm.training.metrics_csv import MetricsCsv, read_metrics
from neurofm.training.optim import OptimConfig
from neurofm.training.run_folder import write_provenance
from neurofm.training.seeding import derived_seed, step_generator
from neurofm.training.snapshots import read_snapshot, snapshots


def test_the_learning_rate_rises_then_falls_along_a_cosine():
    config = OptimConfig(warmup_steps=10, min_lr_ratio=0.1)
    shares = [config.lr_share(step, 110) for step in range(111)]
    assert shares[0] == 0.1
    assert shares[9] == shares[10] == 1.0
    assert shares[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert shares[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(shares[10:], shares[11:], strict=False))


def test_only_matrices_decay_and_frozen_parameters_are_left_out():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module[2].weight.requires_grad_(False)
    optimiser, _ = OptimConfig(weight_decay=0.1).build(module, 10)
    decayed, spared = optimiser.param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert len(spared["params"]) == 4  # two biases, the norm's weight and bias


def test_random_numbers_depend_on_seed_step_and_purpose_alone():
    def draw(*args):
        return torch.rand(3, generator=step_generator(*args)).tolist()

    assert draw(0, 5, "mask") == draw(0, 5, "mask")
    different = [draw(0, 5, "mask"), draw(1, 5, "mask"), draw(0, 6, "mask"), draw(0, 5, "dropout")]
    assert len({tuple(d) for d in different}) == 4
    assert 0 <= derived_seed(0, "a") < 2**63


def test_metrics_survive_a_killed_run(tmp_path):
    path = tmp_path / "metrics.csv"
    log = MetricsCsv(path)
    for step in range(5):
        log.write(step, {"loss": 1 / 3 + step, "lr": 0.1})
    whole = path.read_text()
    path.write_text(whole + "5,0.12")  # the line that was being written when it was killed
    log = MetricsCsv(path, first_step=3)
    assert [row["step"] for row in read_metrics(path)] == [0, 1, 2]
    for step in (3, 4):
        log.write(step, {"loss": 1 / 3 + step, "lr": 0.1})
    assert path.read_text() == whole


def test_metrics_of_a_run_killed_in_its_first_line_start_anew(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,lo")
    MetricsCsv(path).write(0, {"loss": 1.0})
    assert read_metrics(path) == [{"step": 0.0, "loss": 1.0}]


def test_snapshots_are_found_in_order_and_unfinished_ones_are_not(tmp_path):
    for name in (
        "step-000000020.ckpt",
        "step-000000003.ckpt",
        ".step-000000030.ckpt.part",
        "x.ckpt",
    ):
        (tmp_path / name).touch()
    assert [p.name for p in snapshots(tmp_path)] == ["step-000000003.ckpt", "step-000000020.ckpt"]
    assert snapshots(tmp_path / "none") == []


class Stranger:
    """Anything that only unpickling could rebuild."""


def test_a_snapshot_that_holds_objects_or_garbage_is_refused(tmp_path):
    torch.save({"state": Stranger()}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(b"nothing like a snapshot")
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(
            TrainingError, match=rf"{name}: the snapshot cannot be read.*\n.*delete it"
        ):
            read_snapshot(tmp_path / name)


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    write_atomically(tmp_path / "a.json", "old")
    write_atomically(tmp_path / "a.json", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_atomically(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a.json", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_provenance_tells_config_versions_and_seed(tmp_path):
    found = write_provenance(tmp_path, OptimConfig(lr=0.5), seed=3)
    assert found["seed"] == 3
    assert found["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert found["config_digest"] == OptimConfig(lr=0.5).digest()
    assert "lr: 0.5" in (tmp_path / "config.yaml").read_text()
    assert math.isclose(OptimConfig(lr=0.5).lr, 0.5)

"""A run in its folder, on an objective of three numbers."""

from contextlib import nullcontext

import pytest
import torch
from batches import plain_batch
from torch import nn

from neurofm.training.module import Loss
from neurofm.training.run import TrainingRun
from neurofm.training.run_config import RunConfig
from neurofm.training.snapshots import snapshots

IDENTITY = {"config": "c", "data": "d"}


class Steep(nn.Module):
    """A loss with a gradient of norm 50, that takes note of how it is called."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.norms, self.types = [], []

    def forward(self, batch, generator):
        if self.weight.grad is not None:  # what the step before has left
            self.norms.append(float(self.weight.grad.norm()))
        self.types.append((batch.signal[0] @ torch.ones(3, 1)).dtype)
        draw = torch.rand(3, generator=generator)
        return Loss(50 * (self.weight * (batch.signal.sum() + draw)).norm(), {})


def batches(first, last):
    for step in range(first, last):
        yield plain_batch(torch.full((1, 1, 3), 0.1 * step))


def make_config(path, **changes):
    values = {"steps": 7, "snapshot_every": 2, "optim": {"lr": 0.1, "warmup_steps": 2}}
    return RunConfig.model_validate(
        {"stores": ("none",), "folder": str(path), "accelerator": "cpu"} | values | changes
    )


def train(config):
    run, objective = TrainingRun(config, IDENTITY), Steep()
    run.train(objective, batches(run.first_step, config.steps), nullcontext(lambda n: None))
    return run, objective


def test_a_resumed_run_goes_on_with_weights_and_moments_of_its_last_snapshot(tmp_path, interrupt):
    _, straight = train(make_config(tmp_path / "straight"))
    config = make_config(tmp_path / "cut")
    interrupt(5, train, config)
    run, resumed = train(config)
    assert run.first_step == 4
    assert torch.equal(resumed.weight, straight.weight)
    assert [row["step"] for row in run.metrics()] == list(range(7))


def test_the_last_step_has_a_snapshot_and_the_two_newest_stay(tmp_path):
    train(make_config(tmp_path))
    names = [path.name for path in snapshots(tmp_path / "snapshots")]
    assert names == ["step-000000006.ckpt", "step-000000007.ckpt"]


@pytest.mark.parametrize("norm", [0.5, 1e3])
def test_gradients_are_no_longer_than_asked_for(tmp_path, norm):
    _, objective = train(make_config(tmp_path, optim={"clip_norm": norm}))
    longest = max(objective.norms)
    assert longest == pytest.approx(0.5, rel=1e-4) if norm == 0.5 else 10 < longest < 1e3


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", "float32"), ("bf16-mixed", "bfloat16")]
)
def test_an_objective_is_computed_in_the_precision_of_the_config(tmp_path, precision, dtype):
    _, objective = train(make_config(tmp_path, precision=precision, steps=1))
    assert objective.types == [getattr(torch, dtype)]


def test_what_decides_the_weights_is_another_run_and_nothing_else_is(tmp_path):
    first = make_config(tmp_path).deciding()
    others = {
        "optim": {"lr": 0.2}, "steps": 8, "seed": 1, "precision": "bf16-mixed",
    }  # fmt: skip
    same = {
        "stores": ("b",), "folder": "elsewhere", "snapshot_every": 3, "resume": "never",
        "accelerator": "auto", "threads": 1,
    }  # fmt: skip
    assert set(others) | set(same) == set(RunConfig.model_fields)
    for key, value in others.items():
        assert make_config(tmp_path, **{key: value}).deciding() != first, key
    for key, value in same.items():
        assert make_config(tmp_path, **{key: value}).deciding() == first, key

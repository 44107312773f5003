"""Pretraining runs: killed and resumed equals never stopped."""

import json

import numpy as np
import pytest
import torch
from processors import processor_at
from stores import recording_of, write_store

from neurofm.config import load_config, parse_config
from neurofm.contract import SignalContract
from neurofm.errors import ConfigError, ContractError, StoreError, TrainingError
from neurofm.pretrain.run import PretrainConfig, plan, run
from neurofm.store.writer import commit, write_recording
from neurofm.training.run import TrainingRun

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)


def make_recording(subject, ch_names, seconds):
    draw = np.random.default_rng(int(subject))
    signal = 1e-5 * draw.standard_normal((len(ch_names), seconds * 64))
    return recording_of(signal, ch_names, subject=subject)


def make_store(path, subjects=("1", "2", "3"), contract=CONTRACT, dataset_channels=4):
    names = ["Fz", "Cz", "Pz", "Oz", "C3", "C4"]
    recordings = (
        make_recording(subject, names[: dataset_channels + i % 2], 40 + 3 * i)
        for i, subject in enumerate(subjects)
    )
    return write_store(path, contract, *recordings)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def make_config(store, folder, **changes):
    values = {
        "stores": [str(store)],
        "folder": str(folder),
        "encoder": {
            "width": 16,
            "tokenizer": {"name": "linear_patch", "patch_s": 0.5},
            "backbone": {"name": "transformer", "depth": 1, "n_heads": 2, "dropout": 0.1},
        },
        "loader": {"token_budget": 64},
        "optim": {"warmup_steps": 3},
        "steps": 24,
        "snapshot_every": 5,
        "accelerator": "cpu",
    }
    return parse_config(PretrainConfig, values | changes, where="test")


@pytest.fixture(scope="module")
def uninterrupted(store, tmp_path_factory):
    return run(make_config(store, tmp_path_factory.mktemp("runs") / "whole"))


def weights(result):
    return json.loads((result.checkpoint / "config.json").read_text())["weights"]


def test_a_run_has_the_threads_of_its_config_and_keeps_memory(store, tmp_path, monkeypatch):
    config = make_config(store, tmp_path / "run", threads=2)
    with processor_at(monkeypatch, TrainingRun, "train") as found:
        run(config)
    assert found == {"threads": 2, "keeps": True}


def test_a_run_writes_losses_logs_and_a_checkpoint(uninterrupted):
    assert [row["step"] for row in uninterrupted.metrics] == list(range(24))
    assert set(uninterrupted.metrics[0]) == {
        "step", "loss", "signal", "spectrum", "visible", "signal_explained", "hidden_share", "lr",
    }  # fmt: skip
    assert (uninterrupted.checkpoint / "model.safetensors").exists()
    assert list((uninterrupted.folder / "tensorboard").glob("events.*"))
    assert "checkpoint:" in uninterrupted.summary()
    saved = json.loads((uninterrupted.checkpoint / "config.json").read_text())
    assert saved["provenance"]["subjects"] == {"toy": ["1", "2", "3"]}


def test_a_run_killed_and_resumed_equals_one_never_stopped(store, uninterrupted, tmp_path, kill):
    config = make_config(store, tmp_path / "killed")
    kill("pretrain", config, 10)
    resumed = run(config)
    assert resumed.first_step == 5
    assert (resumed.folder / "metrics.csv").read_text() == (
        uninterrupted.folder / "metrics.csv"
    ).read_text()
    assert weights(resumed) == weights(uninterrupted)


def test_a_finished_run_is_returned_and_not_trained_again(store, uninterrupted):
    before = (uninterrupted.checkpoint / "model.safetensors").stat().st_mtime_ns
    again = run(make_config(store, uninterrupted.folder))
    assert again.first_step == 24
    assert (again.checkpoint / "model.safetensors").stat().st_mtime_ns == before


def test_the_seed_decides_the_run(store, uninterrupted, tmp_path):
    other = run(make_config(store, tmp_path / "other", seed=1, steps=3))
    assert other.metrics[0]["loss"] != uninterrupted.metrics[0]["loss"]


def test_a_folder_of_another_config_is_refused_by_key(store, uninterrupted):
    with pytest.raises(
        TrainingError, match=r"holds a run of another config; they differ in steps, seed"
    ):
        run(make_config(store, uninterrupted.folder, seed=7, steps=30))


def test_never_resuming_refuses_a_folder_with_snapshots(store, uninterrupted):
    with pytest.raises(
        TrainingError, match=r"already holds a run with snapshots up to step-000000024"
    ):
        run(make_config(store, uninterrupted.folder, resume="never"))


def test_a_store_that_grew_since_the_snapshot_is_refused(tmp_path):
    store = make_store(tmp_path / "store")
    run(make_config(store, tmp_path / "run", steps=5))
    (tmp_path / "run" / "checkpoint").rename(tmp_path / "away")
    row = write_recording(store, make_recording("9", ["Fz", "Cz"], 30), quality={}, provenance={})
    commit(store, [row])
    with pytest.raises(TrainingError, match=r"the stores have changed since step-000000005"):
        run(make_config(store, tmp_path / "run", steps=5))


def test_a_run_killed_before_its_checkpoint_was_written_writes_it(store, tmp_path):
    config = make_config(store, tmp_path / "run", steps=5)
    first = run(config)
    before = weights(first)
    first.checkpoint.rename(tmp_path / "away")
    assert weights(run(config)) == before


def test_a_finished_run_whose_metrics_are_gone_is_refused(store, tmp_path):
    config = make_config(store, tmp_path / "run", steps=2)
    (run(config).folder / "metrics.csv").unlink()
    with pytest.raises(
        TrainingError, match=r"metrics\.csv: the metrics of a finished run are gone"
    ):
        run(config)


def test_stores_of_different_contracts_are_refused(store, tmp_path):
    other = make_store(tmp_path / "other", contract=CONTRACT.model_copy(update={"clip": 9.0}))
    with pytest.raises(ContractError, match=r"different signal contracts: clip: 15.0 against 9.0"):
        run(make_config(store, tmp_path / "run", stores=[str(store), str(other)]))


def test_a_recording_in_two_stores_is_refused(store, tmp_path):
    twin = make_store(tmp_path / "twin", subjects=("3",))
    with pytest.raises(StoreError, match=r"'toy_sub-3' is in .*twin and in a store before it"):
        run(make_config(store, tmp_path / "run", stores=[str(store), str(twin)]))


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_recordings(
    store, tmp_path, monkeypatch
):
    from neurofm.nn.spectrum import LogPower

    power = LogPower.forward
    monkeypatch.setattr(LogPower, "forward", lambda s, p: power(s, p) / 0)
    with pytest.raises(
        TrainingError, match=r"step 0: the loss is (nan|inf) on recordings toy_sub-"
    ):
        run(make_config(store, tmp_path / "run"))


def test_the_plan_trains_nothing_and_counts_everything(store, tmp_path):
    text = plan(make_config(store, tmp_path / "run"))
    assert "3 recordings" in text
    assert "64 windows of 2 s" in text  # 20 + 21 + 23, of 40, 43 and 46 s
    assert not (tmp_path / "run").exists()


def test_a_window_that_is_no_whole_number_of_patches_is_refused(store, tmp_path):
    encoder = make_config(store, tmp_path).encoder.to_dict()
    encoder["tokenizer"]["patch_s"] = 0.75
    with pytest.raises(ConfigError, match="patch"):
        run(make_config(store, tmp_path / "run", encoder=encoder))


def test_the_shipped_config_is_a_pretrain_config():
    assert load_config(PretrainConfig, "tiny", stage="pretrain").steps > 0


def test_the_logged_learning_rate_is_that_of_the_schedule(store, uninterrupted):
    optim = make_config(store, "x").optim
    rates = [row["lr"] for row in uninterrupted.metrics]
    assert rates == pytest.approx([optim.lr * optim.lr_share(step, 24) for step in range(24)])


def test_masks_and_dropout_are_drawn_anew_every_step(store, tmp_path, monkeypatch):
    from neurofm.pretrain.masked_reconstruction import MaskedReconstruction

    seeds = []
    forward = MaskedReconstruction.forward

    def spy(self, batch, generator):
        seeds.append((generator.initial_seed(), torch.initial_seed()))
        return forward(self, batch, generator)

    monkeypatch.setattr(MaskedReconstruction, "forward", spy)
    run(make_config(store, tmp_path / "run", steps=4))
    masks, dropouts = zip(*seeds, strict=True)
    assert len(set(masks)) == len(set(dropouts)) == 4


def test_gradients_are_clipped(store, tmp_path):
    def losses(clip_norm):
        optim = {"warmup_steps": 0, "lr": 1e-2, "weight_decay": 0.0, "clip_norm": clip_norm}
        folder = tmp_path / f"run{clip_norm}"
        return [r["loss"] for r in run(make_config(store, folder, optim=optim, steps=3)).metrics]

    held, free = losses(1e-14), losses(1.0)
    assert held[0] == free[0]
    assert held[2] != pytest.approx(free[2], rel=1e-3)

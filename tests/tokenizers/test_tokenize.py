"""Runs that train a tokenizer: killed and resumed equals never stopped, and the report is right."""

import json
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from processors import processor_at
from stores import write_store

from neurofm.cli import main
from neurofm.config import parse_config
from neurofm.contract import SignalContract
from neurofm.errors import CheckpointError, ConfigError, ContractError, TrainingError
from neurofm.sensors import sensors_from_info
from neurofm.signals import Entities, Recording
from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.reconstruction import perplexity, shown
from neurofm.tokenizers.run import TokenizeConfig, plan, run
from neurofm.tokenizers.saved import load_tokenizer, put_into, save_tokenizer
from neurofm.tokenizers.spline import spline_matrix
from neurofm.training.run import TrainingRun

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
NAMES = ["Fz", "Cz", "Pz", "Oz", "C3", "C4", "F3", "F4", "P3", "P4"]
TOKENIZER = {
    "name": "brain_tokenizer", "patch_s": 0.5, "ratios": [4, 4], "n_filters": 2, "inner": 8,
    "n_heads": 2, "n_sources": 4, "n_levels": 2, "n_codes": 8,
}  # fmt: skip


def set_places(info):
    # MNE has renamed its standard montages
    names = mne.channels.get_builtin_montages()
    info.set_montage("colin27_1020" if "colin27_1020" in names else "standard_1020")


def make_recording(subject, n_channels):
    draw = np.random.default_rng(int(subject))
    info = mne.create_info(NAMES[:n_channels], 64.0, "eeg")
    set_places(info)
    mixed = draw.standard_normal((n_channels, 3)) @ draw.standard_normal((3, 64 * 41))
    return Recording(
        signal=(1e-5 * mixed).astype(np.float32),
        sfreq=64.0,
        sensors=sensors_from_info(info),
        entities=Entities(dataset="toy", subject=subject),
    )


def make_store(path, contract=CONTRACT):
    recordings = (make_recording(who, n) for who, n in (("1", 10), ("2", 8), ("3", 10)))
    return write_store(path, contract, *recordings)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def make_config(store, folder, **changes):
    values = {
        "stores": [str(store)], "folder": str(folder), "held_out": ["toy_sub-3"],
        "tokenizer": TOKENIZER, "loader": {"token_budget": 80}, "optim": {"warmup_steps": 3},
        "steps": 12, "snapshot_every": 5, "accelerator": "cpu",
    }  # fmt: skip
    return parse_config(TokenizeConfig, values | changes, where="test")


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    return run(make_config(store, tmp_path_factory.mktemp("runs") / "whole"))


def weights(result):
    return json.loads((result.tokenizer / "tokenizer.json").read_text())["weights"]


# ---------------------------------------------------------------------------------------
# Runs


def test_a_run_has_the_threads_of_its_config_and_keeps_memory(store, tmp_path, monkeypatch):
    config = make_config(store, tmp_path / "run", threads=2)
    with processor_at(monkeypatch, TrainingRun, "train") as found:
        run(config)
    assert found == {"threads": 2, "keeps": True}


def test_a_run_writes_losses_a_tokenizer_and_a_report(whole):
    assert [row["step"] for row in whole.metrics] == list(range(12))
    assert {"loss", "correlation", "withheld", "perplexity"} <= set(whole.metrics[0])
    saved = load_tokenizer(whole.tokenizer)
    assert saved.provenance["subjects"] == {"toy": ["1", "2"]}
    assert saved.digest == weights(whole)
    page = (whole.folder / "report.html").read_text()
    for words in (
        "spherical splines",
        "perplexity",
        "Not shown to the encoder: ",
        "latent source looks at",
    ):
        assert words in page
    assert "No recording was held out" not in page
    assert "tokenizer:" in whole.summary()


def test_what_is_held_out_is_what_is_measured(whole):
    scores = whole.quality.scores
    assert set(scores["recording_id"]) == {"toy_sub-3"}
    assert set(scores["channels"]) == {"seen", "withheld"}
    both = whole.quality.against_spline()
    assert set(both["method"]) == {"spline", "tokenizer"}
    n_windows = whole.quality.counts.sum(1) / (4 * 4 * 2)  # sources, patches, moments
    assert set(n_windows) <= set(range(5, 9))  # at most as many as asked for


def test_a_run_killed_and_resumed_equals_one_never_stopped(store, whole, tmp_path, kill):
    config = make_config(store, tmp_path / "killed")
    kill("tokenize", config, 10)
    resumed = run(config)
    assert resumed.first_step == 5
    assert resumed.metrics == whole.metrics
    assert weights(resumed) == weights(whole)


def test_a_finished_run_is_measured_again_and_not_trained(store, whole):
    again = run(make_config(store, whole.folder, quality={"windows": 2}))
    assert again.first_step == 12
    assert weights(again) == weights(whole)
    assert again.quality.counts.sum() < whole.quality.counts.sum()


def test_a_folder_of_another_config_is_refused_by_key(store, whole):
    with pytest.raises(TrainingError, match="another config; they differ in .*steps"):
        run(make_config(store, whole.folder, steps=13))


def test_a_pattern_that_holds_nothing_out_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"no recording is called 'x\*'\n.*toy_sub-1"):
        plan(make_config(store, tmp_path, held_out=["x*"]))
    with pytest.raises(ConfigError, match="every recording is held out"):
        plan(make_config(store, tmp_path, held_out=["*"]))


def test_stores_of_different_contracts_are_refused(store, tmp_path):
    other = make_store(tmp_path / "other", CONTRACT.model_copy(update={"clip": 9.0}))
    with pytest.raises(ContractError, match="clip: 15.0 against 9.0"):
        plan(make_config(store, tmp_path / "run", stores=[str(store), str(other)]))


def test_the_command_prints_its_plan(store, tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(make_config(store, tmp_path / "run").to_yaml())
    assert main(["tokenize", str(file), "--dry-run"]) == 0
    assert "2 recordings" in (text := capsys.readouterr().out)
    assert "1 recordings held out" in text
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------
# Parts


def test_where_windows_are_cut_is_what_the_config_says(store, tmp_path):
    losses = {}
    for cut in ("grid", "anywhere"):
        loader = {"token_budget": 80, "cut": cut}
        run(make_config(store, tmp_path / cut, loader=loader, steps=2))
        losses[cut] = (tmp_path / cut / "metrics.csv").read_text()
    assert losses["grid"] != losses["anywhere"]
    with pytest.raises(TrainingError, match="differ in .*loader"):
        run(make_config(store, tmp_path / "grid", loader={"token_budget": 80, "cut": "anywhere"}))


def test_withholding_leaves_a_channel_and_never_shows_padding():
    present = torch.zeros(50, 7, dtype=torch.bool)
    for i in range(50):
        present[i, : 1 + i % 7] = True
    seen = shown(present, 0.9, torch.Generator().manual_seed(0))
    assert not (seen & ~present).any()
    assert torch.equal(seen.sum(1), present.sum(1) - (0.9 * present.sum(1)).long())
    assert seen.any(1).all()


def test_perplexity_is_the_number_of_codes_of_equal_use():
    assert perplexity(torch.tensor([0, 1, 2, 3]), 8).item() == pytest.approx(4)
    assert perplexity(torch.tensor([5, 5, 5]), 8).item() == pytest.approx(1)


def test_the_spline_matrix_is_what_mne_computes():
    info = mne.create_info(NAMES, 64.0, "eeg")
    set_places(info)
    sensors = sensors_from_info(info)
    seen = np.ones(10, bool)
    seen[[1, 7]] = False
    targets, matrix = spline_matrix(sensors, seen)
    signal = np.random.default_rng(0).standard_normal((10, 30))
    evoked = mne.EvokedArray(signal, info)
    evoked.info["bads"] = [NAMES[1], NAMES[7]]
    expected = evoked.interpolate_bads(origin="auto", verbose="ERROR").data[[1, 7]]
    assert targets.tolist() == [1, 7]
    assert not matrix[:, targets].any()
    # our positions are float32, and MNE keeps fiducials of the montage
    np.testing.assert_allclose(matrix @ signal, expected, atol=0.05)


def test_too_few_or_unplaced_electrodes_are_not_interpolated():
    sensors = sensors_from_info(mne.create_info(NAMES, 64.0, "eeg"))
    few = sensors.select(range(5))
    assert not len(spline_matrix(few, np.array([True] * 4 + [False]))[0])
    assert not len(spline_matrix(sensors, np.ones(10, bool))[0])


# ---------------------------------------------------------------------------------------
# Saved, and in the slot of an encoder


def test_a_slot_takes_over_what_was_learnt(whole):
    saved = load_tokenizer(whole.tokenizer)
    config = BrainTokenizerConfig(**{**TOKENIZER, "discrete": True, "frozen": True})
    slot = config.build(CONTRACT, 16)
    put_into(slot, config, CONTRACT, saved)
    state = saved.parts.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in slot.content.state_dict().items())


def test_another_architecture_or_signal_is_refused_by_name(whole):
    saved = load_tokenizer(whole.tokenizer)
    config = BrainTokenizerConfig(**{**TOKENIZER, "n_codes": 16})
    with pytest.raises(CheckpointError, match="not the one that was trained: n_codes: 16 against"):
        put_into(config.build(CONTRACT, 16), config, CONTRACT, saved)
    other = CONTRACT.model_copy(update={"clip": 9.0})
    config = BrainTokenizerConfig(**TOKENIZER)
    with pytest.raises(ContractError, match="the encoder and the tokenizer"):
        put_into(config.build(other, 16), config, other, saved)


def test_a_damaged_or_missing_tokenizer_is_refused(whole, tmp_path):
    with pytest.raises(CheckpointError, match=r"is no tokenizer: tokenizer.json is missing"):
        load_tokenizer(tmp_path)
    saved = load_tokenizer(whole.tokenizer)
    folder = tmp_path / "copy"
    keep = {"contract": CONTRACT, "provenance": {}, "training": {}}
    save_tokenizer(folder, saved.parts, saved.config, **keep)
    other = saved.config.build_parts(CONTRACT)
    save_tokenizer(tmp_path / "other", other, saved.config, **keep)
    (tmp_path / "other" / "model.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"digest \w+, tokenizer.json was written for"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_tokenizer(folder)
    (tmp_path / "else").mkdir()
    with pytest.raises(CheckpointError, match="exists and is no tokenizer"):
        save_tokenizer(tmp_path / "else", saved.parts, saved.config, **keep)


def test_a_tokenizer_that_is_being_replaced_is_whole_whenever_that_dies(
    whole, tmp_path, monkeypatch
):
    saved, folder = load_tokenizer(whole.tokenizer), tmp_path / "tokenizer"
    keep = {"contract": CONTRACT, "provenance": {}, "training": {}}
    save_tokenizer(folder, saved.parts, saved.config, **keep)
    rename = Path.rename

    def die(self, target):
        if self.name.endswith(".new"):
            raise OSError(5, "the machine stopped")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(OSError, match="the machine stopped"):
        save_tokenizer(folder, saved.config.build_parts(CONTRACT), saved.config, **keep)
    (older,) = (p for p in tmp_path.iterdir() if not p.name.endswith(".new"))
    assert load_tokenizer(older).digest == saved.digest

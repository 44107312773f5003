import json
import re

import pandas as pd
import pytest
import torch
from processors import processor_at

from neurofm.config import CONFIGS, load_config, parse_config
from neurofm.errors import ConfigError, ContractError, LeakError, SignalError
from neurofm.finetune import run as finetune_run
from neurofm.finetune.run import CONFIG, plan, run

COLUMNS = [
    "dataset", "task", "protocol", "fold", "subject", "session", "model", "adaptation", "seed",
    "n_train", "n_test", "metric", "value",
]  # fmt: skip
PROBE = {"name": "linear_probe", "regularisations": [0.01, 0.1]}
FULL = {"name": "full", "epochs": 2, "batch_size": 16}
MODELS = [
    {"name": "chance"},
    {"name": "ts_lr", "bands_hz": [[2.0, 20.0]]},
    {"name": "ts_lr", "bands_hz": [[2.0, 20.0]], "align": "recentred"},
    {"name": "random_init", "adaptation": PROBE},
    {"name": "pretrained", "adaptation": PROBE},
    {"name": "pretrained", "adaptation": FULL},
]


def config_for(store, folder, checkpoint=None, **more):
    values = {
        "stores": [str(store)],
        "checkpoint": str(checkpoint) if checkpoint else None,
        "task": {
            "name": "rhythm",
            "classes": ["slow", "fast"],
            "trials": [{"event": "slow", "label": "slow"}, {"event": "fast", "label": "fast"}],
        },
        "protocols": [{"name": "loso"}, {"name": "few_shot", "k": [2]}],
        "models": MODELS if checkpoint else MODELS[:3],
        "seeds": [0, 1],
        "folder": str(folder),
        "device": "cpu",
        **more,
    }
    return parse_config(CONFIG, values, where="test")


@pytest.fixture(scope="module")
def finished(tiny_store, tiny_checkpoint, tmp_path_factory):
    config = config_for(tiny_store, tmp_path_factory.mktemp("run") / "out", tiny_checkpoint)
    return run(config), config


def test_a_run_has_the_threads_of_its_config_and_keeps_memory(tiny_store, tmp_path, monkeypatch):
    config = config_for(tiny_store, tmp_path / "out", threads=2)
    with processor_at(monkeypatch, finetune_run, "score_model") as found:
        run(config)
    assert found == {"threads": 2, "keeps": True}


def test_results_have_exactly_the_promised_columns(finished):
    result, _ = finished
    table = pd.read_csv(result.folder / "results.csv")
    assert table.columns.tolist() == COLUMNS
    assert set(table["metric"]) == {"balanced_accuracy", "kappa", "weighted_f1", "auroc"}
    assert table["value"].notna().all()
    fits = table.groupby(["model", "adaptation", "protocol"]).size() / 4 / 4  # metrics, subjects
    assert fits.loc["random_init", "linear_probe"].tolist() == [2, 2]  # seeds
    assert fits.loc["pretrained", "linear_probe"].tolist() == [1, 1]  # no seed has a say
    assert fits.loc["pretrained", "full"].tolist() == [2, 2]
    loso = table[(table["protocol"] == "loso") & (table["metric"] == "auroc")]
    assert (loso["n_train"] + loso["n_test"] == 48).all()


def test_predictions_reproduce_the_scores(finished):
    result, _ = finished
    predictions = pd.read_csv(result.folder / "predictions.csv", dtype={"subject": str})
    assert {"trial_id", "protocol", "fold", "model", "adaptation", "seed", "y", "predicted"} < set(
        predictions
    )
    hit = (predictions["y"] == predictions["predicted"]).astype(float)
    key = ["protocol", "fold", "model", "adaptation", "seed"]
    recall = hit.groupby([predictions[k] for k in [*key, "y"]]).mean()
    expected = recall.groupby(key).mean()
    scored = result.results[result.results["metric"] == "balanced_accuracy"]
    pd.testing.assert_series_equal(
        scored.set_index(key)["value"].sort_index(), expected, check_names=False
    )
    assert (predictions[["p_slow", "p_fast"]].sum(axis=1) - 1).abs().max() < 1e-6


def test_the_summary_tells_scores_differences_and_provenance(finished):
    result, config = finished
    summary = json.loads((result.folder / "summary.json").read_text())
    entries = {
        (e["protocol"], e["model"], e["adaptation"]): e
        for e in summary["scores"]
        if e["metric"] == "balanced_accuracy"
    }
    probed = entries["loso", "pretrained", "linear_probe"]
    assert probed["n_subjects"] == 4
    assert probed["low"] <= probed["mean"] <= probed["high"]
    assert set(probed["differences"]) == {
        "random_init/linear_probe", "ts_lr/none", "ts_lr_recentred/none",
    }  # fmt: skip
    gap = probed["differences"]["ts_lr/none"]["mean"]
    assert gap == pytest.approx(probed["mean"] - entries["loso", "ts_lr", "none"]["mean"])
    assert entries["loso", "ts_lr_recentred", "none"]["transductive"] is True
    assert entries["loso", "random_init", "linear_probe"]["seeds"] == [0, 1]
    assert summary["checkpoint"]["saw_subject"] == {
        "tiny/01": True, "tiny/02": True, "tiny/03": False, "tiny/04": False,
    }  # fmt: skip
    assert set(summary["protocols"]) == {"loso", "few_shot_k2"}
    assert summary["contract"]["sfreq"] == 64.0
    assert summary["environment"]["config_digest"] == config.digest()
    assert "NaN" not in (result.folder / "summary.json").read_text()


def test_the_printed_summary_is_aligned_and_names_what_was_seen(finished):
    result, _ = finished
    lines = result.summary().splitlines()
    assert lines[0].split("  ")[0] == "protocol"
    assert re.search(
        r"loso +pretrained +full +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", result.summary()
    )
    starts = {line.index("none") for line in lines if " none " in line}
    assert len(starts) == 1
    assert "Pretraining saw 2 of 4 test subjects, without labels: tiny/01, tiny/02." in lines
    assert lines[-1] == f"report: {result.folder / 'report.html'}"


def test_the_report_stands_alone(finished):
    result, _ = finished
    html = (result.folder / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'>\s]+)""", html)
    assert all(s.startswith("data:image/png;base64,") for s in sources)
    assert len(sources) == 2 * (1 + 6) + 2 + 1  # subjects, confusions, fine-tuning, pretraining
    assert "http" not in re.sub(r"base64,[^\"]+", "", html)
    assert "Pretraining saw 2 of 4" in html


def test_folds_and_curves_are_written(finished):
    result, _ = finished
    folds = pd.read_csv(result.folder / "folds.csv")
    assert folds.columns.tolist() == ["protocol", "fold", "trial_id", "role"]
    curves = pd.read_csv(result.folder / "curves.csv")
    assert len(curves) == 2 * 2 * 4 * 2  # protocols, seeds, folds, epochs
    assert not [p for p in result.folder.iterdir() if p.name.startswith(".")]


def test_running_again_gives_the_same_and_another_config_is_refused(tiny_store, tmp_path):
    config = config_for(tiny_store, tmp_path / "out")
    first = run(config)
    before = (first.folder / "results.csv").read_bytes()
    run(config)
    assert (first.folder / "results.csv").read_bytes() == before

    run(config.model_copy(update={"threads": 2}))  # how fast is no other question
    assert torch.get_num_threads() == 1
    other = config_for(tiny_store, tmp_path / "out", seeds=[7])
    with pytest.raises(ConfigError, match="holds results of another config; they differ in seeds"):
        run(other)
    assert (first.folder / "results.csv").read_bytes() == before


def test_the_plan_shows_trials_and_folds_and_writes_nothing(tiny_store, tiny_checkpoint, tmp_path):
    text = plan(config_for(tiny_store, tmp_path / "out", tiny_checkpoint))
    assert "48 trials of 1 s" in text
    assert re.search(r"tiny/03 +6 +6", text)
    assert "loso: 4 folds, digest" in text
    assert "pretrained/full" in text
    assert not (tmp_path / "out").exists()


def test_a_store_of_another_contract_is_refused(make_store, tiny_checkpoint, tmp_path):
    store = make_store(("01", "1", {}), ("02", "1", {}), ("03", "1", {}), band_hz=(1.0, 20.0))
    with pytest.raises(
        ContractError,
        match=r"store .* and checkpoint .*band_hz: \[1.0, 20.0\] against \[0.5, 30.0\]",
    ):
        run(config_for(store, tmp_path / "out", tiny_checkpoint))
    assert not (tmp_path / "out").exists()


def test_stores_of_two_contracts_are_refused(make_store, tiny_store, tmp_path):
    other = make_store(("09", "1", {}), band_hz=(1.0, 20.0))
    config = config_for(tiny_store, tmp_path / "out", stores=[str(tiny_store), str(other)])
    with pytest.raises(ContractError, match="band_hz"):
        plan(config)


def test_a_second_store_adds_subjects(make_store, tiny_store, tmp_path):
    other = make_store(("09", "1", {}))
    config = config_for(tiny_store, tmp_path / "out", stores=[str(tiny_store), str(other)])
    assert "loso: 5 folds" in plan(config)


def test_a_window_that_is_no_whole_number_of_patches_is_refused(
    tiny_store, tiny_checkpoint, tmp_path
):
    config = config_for(tiny_store, tmp_path / "out", tiny_checkpoint)
    task = config.task.model_copy(update={"window_s": 0.375})
    with pytest.raises(SignalError, match="1.5 patches"):
        run(config.model_copy(update={"task": task}))


def test_a_baseline_window_that_reaches_into_other_trials_is_a_leak(tiny_store, tmp_path):
    wide = {"name": "ts_lr", "bands_hz": [[2.0, 20.0]], "start_s": -0.9, "stop_s": 1.9}
    with pytest.raises(LeakError, match="few_shot_k2.*shares samples"):
        run(config_for(tiny_store, tmp_path / "out", models=[wide]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": [MODELS[0], MODELS[0]]}, "chance with adaptation none is listed twice"),
        ({"models": [MODELS[4]]}, "model pretrained needs a `checkpoint`"),
        ({"seeds": [0, 0]}, "a seed is listed twice"),
        ({"models": [{"name": "ts_rl"}]}, "models.0.name: unknown name 'ts_rl'.*"),
        ({"models": [{"name": "chance", "band": 1}]}, "unknown key 'models.0.band'"),
        (
            {"protocols": [{"name": "loso", "validation": 1}]},
            "unknown key 'protocols.0.validation'",
        ),
    ],
)
def test_configs_are_checked(tiny_store, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        config_for(tiny_store, tmp_path, **change)


def test_a_protocol_twice_is_refused(tiny_store, tmp_path):
    twice = config_for(tiny_store, tmp_path, protocols=[{"name": "loso"}, {"name": "loso"}])
    with pytest.raises(ConfigError, match="loso is listed twice"):
        plan(twice)


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "finetune").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_configs_are_valid_and_honest(path):
    config = load_config(CONFIG, path)
    keys = {model.key for model in config.models}
    assert {("chance", "none"), ("ts_lr", "none")} <= keys
    # what pretraining brings is said beside the same probe of random weights
    probes = {adaptation for name, adaptation in keys if name == "pretrained"} - {"full"}
    assert probes
    assert {("random_init", probe) for probe in probes} <= keys
    # a class that is a file cannot be tested within a subject
    tiled = any(rule.tile for rule in config.task.trials)
    assert not (tiled and any(p.name == "few_shot" for p in config.protocols))

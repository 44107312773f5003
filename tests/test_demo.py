import pytest

from neurofm.cli import main
from neurofm.demo import DemoConfig, plan, run
from neurofm.errors import ConfigError
from neurofm.simulate.config import CohortConfig

COHORT = CohortConfig(
    subjects={"eeg_a": 2, "eeg_b": 1, "meg": 1, "seeg": 1},
    runs=1,
    trials_per_class=4,
    resting_s=12.0,
)


def tiny(folder, **changes):
    values = {"folder": str(folder), "workers": 0, "cohort": COHORT, "steps": 3} | changes
    return DemoConfig(**values)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    said = []
    folder = tmp_path_factory.mktemp("demo") / "a folder: with #signs"
    return run(tiny(folder), said.append), said


def test_the_demo_says_each_stage_as_it_goes(demo):
    _, said = demo
    stages = [line.removeprefix("== ") for line in said if line.startswith("== ")]
    assert stages == ["simulate", "preprocess", "pretrain", "finetune"]
    text = "\n".join(said)
    assert "wrote 10 recordings of 5 subjects" in text
    assert "6 files: 6 kept, 0 skipped, 0 refused" in text
    assert "4 files: 4 kept, 0 skipped, 0 refused" in text
    assert "pretrained 3 steps" in text


def test_the_demo_ends_with_a_table_of_every_model_and_the_path_of_the_report(demo):
    result, _ = demo
    table = result.finetune.results
    assert set(table["protocol"]) == {"loso", "few_shot_k3"}
    assert set(table["model"]) == {
        "chance",
        "ts_lr",
        "ts_lr_recentred",
        "random_init",
        "pretrained",
    }
    assert set(table["subject"]) == {"01", "02", "03"}
    assert set(table["dataset"]) == {"simulated_eeg"}
    report = result.folder / "finetune" / "report.html"
    assert "<html" in report.read_text(encoding="utf-8")
    assert f"report: {report}" in result.summary()
    assert "s in all" in result.summary()


def test_a_finished_demo_is_not_done_again(demo):
    result, _ = demo
    said = []
    again = run(tiny(result.folder), said.append)
    text = "\n".join(said)
    assert "already there, nothing written" in text
    assert "6 files: 0 kept, 6 skipped, 0 refused" in text
    assert "resumed at 3" in text
    assert again.finetune.results.equals(result.finetune.results)


def test_a_folder_of_another_demo_is_refused(demo):
    result, _ = demo
    with pytest.raises(ConfigError, match="holds another simulated cohort"):
        run(tiny(result.folder, seed=2), lambda _: None)


def test_the_plan_names_every_stage_and_writes_nothing(tmp_path, capsys):
    text = plan(tiny(tmp_path / "demo"))
    assert "simulate 5 subjects (2 eeg_a, 1 eeg_b, 1 meg, 1 seeg)" in text
    assert "pretrain demo: 3 steps" in text
    assert "pretrained/linear_probe" in text
    assert main(["demo", f"folder={tmp_path / 'demo'}", "--dry-run"]) == 0
    assert "finetune demo: chance/none" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []

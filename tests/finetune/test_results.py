import numpy as np
import pandas as pd
import pytest

from neurofm.finetune.results import aligned, difference_table, per_subject, score_table, summarise

SCORES = {  # subject -> values by seed
    ("pretrained", "linear_probe"): {"a": [0.8], "b": [0.6], "c": [0.7]},
    ("random_init", "linear_probe"): {"a": [0.5, 0.7], "b": [0.5, 0.5], "c": [0.6, 0.8]},
    ("ts_lr_recentred", "none"): {"a": [0.9], "b": [0.9], "c": [0.6]},
}


@pytest.fixture
def results():
    rows = [
        {
            "dataset": "d", "task": "t", "protocol": "loso", "fold": f"d/{subject}",
            "subject": subject, "session": "", "model": model, "adaptation": adaptation,
            "seed": seed, "n_train": 9, "n_test": 3, "metric": "balanced_accuracy", "value": value,
        }
        for (model, adaptation), subjects in SCORES.items()
        for subject, values in subjects.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def entries(results):
    transductive = {key: key[0].endswith("recentred") for key in SCORES}
    return {entry["model"]: entry for entry in summarise(results, transductive)}


def test_seeds_of_a_subject_are_averaged_before_subjects_are(results, entries):
    assert len(per_subject(results)) == 9
    entry = entries["random_init"]
    assert entry["mean"] == pytest.approx(np.mean([0.6, 0.5, 0.7]))
    assert entry["n_subjects"] == 3  # more seeds do not make more subjects
    assert entry["seeds"] == [0, 1]
    assert entry["seed_sd"] == pytest.approx(np.std([1.6 / 3, 2.0 / 3], ddof=1))
    assert entries["pretrained"]["seed_sd"] is None


def test_differences_pair_subjects(entries):
    found = entries["pretrained"]["differences"]
    assert found["random_init/linear_probe"]["mean"] == pytest.approx(np.mean([0.2, 0.1, 0.0]))
    assert found["ts_lr_recentred/none"]["mean"] == pytest.approx(np.mean([-0.1, -0.3, 0.1]))
    assert found["random_init/linear_probe"]["p_value"] == pytest.approx(4 / 8)


def test_tables_name_what_is_transductive_and_align(entries):
    table = score_table(list(entries.values()))
    assert table["model"].tolist() == [
        "pretrained", "random_init", "ts_lr_recentred (transductive)",
    ]  # fmt: skip
    lines = aligned(table).splitlines()
    assert len({line.index("0.") for line in lines[1:]}) == 1
    assert difference_table(list(entries.values()))["minus"].tolist() == [
        "random_init/linear_probe", "ts_lr_recentred/none", "ts_lr_recentred/none",
    ]  # fmt: skip

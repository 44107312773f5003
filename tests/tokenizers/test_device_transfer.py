"""The machinery of ``benchmarks/device_transfer.py``: what it simulates, shows and counts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def transfer():
    """The benchmark, as a module."""
    spec = importlib.util.spec_from_file_location(
        "device_transfer", BENCHMARKS / "device_transfer.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["device_transfer"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def people(transfer):
    return {pair: transfer.simulate(pair, 0, 0, 10.0) for pair in transfer.PAIRS}


def test_two_montages_have_no_sensor_in_common(transfer, people):
    for person in people.values():
        first, second = (
            person.sensors.select(np.flatnonzero(m)) for m in (person.first, ~person.first)
        )
        assert len(first) in (19, 32)
        assert len(second) == 32
        assert not set(first.ch_names) & set(second.ch_names)
        assert person.sensors.located.all()
        assert np.isfinite(person.signal).all()


def test_both_montages_measure_the_same_sources(transfer, people):
    assert transfer.nearest(people["eeg"])["across"] > 0.5
    assert transfer.nearest(people["meg"])["across"] > 0.4
    assert transfer.spline(people["eeg"])["across"] > transfer.nearest(people["eeg"])["across"]
    assert transfer.spline(people["meg"]) == {}


def test_a_map_is_scored_alike_in_any_unit(transfer, people):
    person = people["meg"]
    matrix = np.eye(32)
    assert transfer.of_matrix(person, 1e-13 * matrix) != {"across": 0.0}
    once, twice = (transfer.of_matrix(person, k * matrix)["across"] for k in (1.0, 2.0))
    assert once == pytest.approx(twice, abs=1e-4)


def test_the_second_montage_is_never_trained_on(transfer, people):
    person = people["eeg"]
    size = transfer.Size(steps=2, windows=2, inner=16, n_codes=8)
    coder = transfer.build(size, person, by_name=True, seed=0)
    fresh = coder.named.table.rows.weight.detach().clone()
    transfer.train(size, coder, [person], 0)
    moved = (coder.named.table.rows.weight != fresh).any(1)
    codes = torch.from_numpy(person.sensors.name_code)
    rows = coder.named.table.rows_of[torch.searchsorted(coder.named.table.codes, codes)]
    # weight decay shrinks every row; the second's by nothing but that
    assert moved[rows[:19]].all()
    shrunk = coder.named.table.rows.weight[rows[19:]] / fresh[rows[19:]]
    torch.testing.assert_close(shrunk, shrunk.mean().expand_as(shrunk), rtol=1e-4, atol=1e-4)


def test_a_tokenizer_by_name_does_not_know_places_and_one_by_place_no_names(transfer, people):
    person = people["eeg"]
    size = transfer.Size(inner=16, n_codes=8)
    batch = person.batch([0, 1], np.ones(51, bool))
    turned = type(batch)(**{**vars(batch), "position": batch.position.flip(1)})
    nameless = transfer.hide_names(batch, 1.0)
    assert not nameless.name_code.any()
    for by_name in (True, False):
        coder = transfer.build(size, person, by_name=by_name, seed=0).eval()
        found = [coder.rebuild(b, b.present).signal for b in (batch, turned, nameless)]
        assert torch.equal(found[0], found[1]) == by_name
        assert torch.equal(found[0], found[2]) == (not by_name)


def test_a_table_says_who_is_ahead_and_by_how_much(transfer, tmp_path, monkeypatch):
    size = transfer.Size(train=1, test=1, seconds=6, steps=1, windows=2, inner=16, n_codes=8)
    found = {}
    for seed in (0, 1):
        for method, task, score in transfer.scores("eeg", seed, size):
            found.setdefault((method, task), []).append(score)
    assert {method for method, _ in found} == set(transfer.METHODS)
    assert abs(np.mean(found["chance", "across"])) < 0.1
    text = transfer.table("eeg", found)
    assert text.count("±") >= len(found)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{transfer.BEGIN}\nold\n{transfer.END}\nafter\n")
    monkeypatch.setattr(transfer, "PAGE", page)
    transfer.put_into_page(text)
    transfer.put_into_page(text)
    assert page.read_text() == f"before\n{transfer.BEGIN}\n{text}\n{transfer.END}\nafter\n"


def test_an_interval_over_seeds_is_students(transfer):
    assert transfer.interval([0.5]) == "0.500"
    assert transfer.interval([0.1, 0.2, 0.3]) == "0.200 ± 0.248"

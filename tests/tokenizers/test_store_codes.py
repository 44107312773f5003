"""A frozen tokenizer's codes, computed once: which windows, which values, and only what is missing."""

import re

import numpy as np
import pytest
import torch
from stores import recording_of, write_store

from neurofm.cli import main
from neurofm.contract import SignalContract
from neurofm.data.collate import collate
from neurofm.data.plan import WindowPlan
from neurofm.errors import ConfigError, ContractError, StoreError
from neurofm.signals import Event
from neurofm.store.codes import StoredCodes
from neurofm.store.reader import open_store
from neurofm.tokenizers.codes import compute_codes, stored_codes, whose, windows_of
from neurofm.tokenizers.saved import load_tokenizer, save_tokenizer
from neurofm.tokenizers.trainable import TRAINABLE

CONTRACT = SignalContract(sfreq=64, band_hz=(0.5, 30), window_s=2)
SMALL = {
    "brain_tokenizer": {
        "patch_s": 0.5, "ratios": (4, 4), "n_filters": 2, "inner": 8, "n_heads": 2,
        "n_sources": 4, "n_levels": 2, "n_codes": 8,
    },
    "vqnsp": {
        "patch_s": 0.5, "inner": 16, "n_heads": 2, "depth": 1, "n_codes": 12, "code_width": 8,
    },
    "du_in": {
        "patch_s": 0.25, "n_regions": 3, "n_filters": 8, "inner": 16, "n_heads": 2, "depth": 1,
        "n_codes": 12, "code_width": 8,
    },
    "annealed_samples": {"patch_s": 0.5, "n_codes": 12, "inner": 8, "kernel": 4},
}  # fmt: skip
NAMES = ["Fz", "Cz", "Pz", "C3"]


def make_recording(subject, n_channels, n_times, bad=()):
    draw = np.random.default_rng(int(subject))
    return recording_of(
        1e-5 * draw.standard_normal((n_channels, n_times)),
        NAMES[:n_channels],
        subject=subject,
        events=(Event(onset_s=at, duration_s=1.0, description="BAD") for at in bad),
    )


@pytest.fixture
def path(tmp_path):
    """Recordings whose windows lie on and off the grid, and one without any."""
    return write_store(
        tmp_path / "store",
        CONTRACT,
        make_recording("1", 4, 64 * 9),
        make_recording("2", 3, 64 * 20, bad=(3.5, 9.1, 11.3)),
        make_recording("3", 4, 64),
    )


@pytest.fixture
def make_tokenizer(tmp_path, path):
    def make(name="brain_tokenizer", seed=0, contract=CONTRACT):
        store = open_store(path)
        config = TRAINABLE[name](**SMALL.get(name, {"patch_s": 0.5}))
        config = config.fitted(store, store.index["recording_id"])
        torch.manual_seed(seed)
        folder = tmp_path / f"{name}-{seed}-{contract.clip:g}"
        parts = config.build_parts(contract)
        return save_tokenizer(folder, parts, config, contract=contract, provenance={}, training={})

    return make


def test_windows_are_all_that_a_grid_plan_draws_in_any_epoch(path):
    store = open_store(path)
    windows = windows_of(store)
    assert set(windows) == {"toy_sub-1", "toy_sub-2"}
    assert any(start % 128 for start in windows["toy_sub-2"])
    plan = WindowPlan(store.index, n_times=128, patches=4, token_budget=40, seed=3, cut="grid")
    drawn = {
        (ref.recording_id, ref.start)
        for step in range(3 * plan.steps_per_epoch)
        for ref in plan.batch(step)
    }
    assert drawn == {(name, start) for name, starts in windows.items() for start in starts}


@pytest.mark.parametrize("name", TRAINABLE)
def test_stored_codes_are_what_the_tokenizer_gives(path, make_tokenizer, name):
    tokenizer = make_tokenizer(name)
    (done,) = compute_codes(tokenizer, [str(path)], device="cpu")
    assert done.computed == ("toy_sub-1", "toy_sub-2")
    assert (done.there, done.without) == (0, 1)
    store, saved = open_store(path), load_tokenizer(tokenizer)
    stored = stored_codes(store, saved)
    plan = WindowPlan(store.index, n_times=128, patches=4, token_budget=40, seed=0, cut="grid")
    for step in range(plan.steps_per_epoch):
        refs = plan.batch(step)
        batch = collate(store, refs, 128, sfreq=64.0)
        with torch.no_grad():
            expected = saved.parts.codes_of(batch).numpy()
        for ref, codes in zip(refs, expected, strict=True):
            assert np.array_equal(stored.read_codes(ref.recording_id, ref.start), codes)


def test_only_what_is_missing_is_computed(path, make_tokenizer):
    tokenizer = make_tokenizer()
    (planned,) = compute_codes(tokenizer, [str(path)], dry_run=True)
    assert planned.computed == ("toy_sub-1", "toy_sub-2")
    assert not list(path.rglob("codes-*"))
    compute_codes(tokenizer, [str(path)])
    before = {p: p.stat().st_mtime_ns for p in path.rglob("codes-*/**/*")}
    write_store(path, CONTRACT, make_recording("4", 4, 64 * 5))
    saved = load_tokenizer(tokenizer)
    with pytest.raises(StoreError, match=r"1 recording\(s\), such as toy_sub-4, have no codes"):
        stored_codes(open_store(path), saved)
    (again,) = compute_codes(tokenizer, [str(path)])
    assert (again.computed, again.there) == (("toy_sub-4",), 2)
    assert all(p.stat().st_mtime_ns == at for p, at in before.items())
    stored_codes(open_store(path), saved)


def test_a_run_that_dies_keeps_the_recordings_it_finished(path, make_tokenizer, monkeypatch):
    from neurofm.tokenizers import codes

    write = codes.write_codes

    def die(store, recording_id, *rest):
        if recording_id == "toy_sub-2":
            raise KeyboardInterrupt
        write(store, recording_id, *rest)

    tokenizer = make_tokenizer()
    with monkeypatch.context() as patched:
        patched.setattr(codes, "write_codes", die)
        with pytest.raises(KeyboardInterrupt):
            compute_codes(tokenizer, [str(path)])
    there = StoredCodes(open_store(path), whose(load_tokenizer(tokenizer)))
    assert there.has("toy_sub-1")
    assert not there.has("toy_sub-2")
    assert compute_codes(tokenizer, [str(path)])[0].computed == ("toy_sub-2",)


def test_another_tokenizer_or_contract_is_refused(path, make_tokenizer):
    compute_codes(make_tokenizer(), [str(path)])
    store = open_store(path)
    with pytest.raises(StoreError, match="no codes of the tokenizer .*; there are codes of"):
        stored_codes(store, load_tokenizer(make_tokenizer(seed=1)))
    other = make_tokenizer(contract=CONTRACT.model_copy(update={"clip": 9.0}))
    with pytest.raises(ContractError, match=r"clip: 15.0 against 9.0"):
        stored_codes(store, load_tokenizer(other))
    with pytest.raises(ContractError, match="clip"):
        compute_codes(other, [str(path)])


def test_a_device_that_is_not_there_is_refused(path, make_tokenizer, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device here\n.*--device cpu"):
        compute_codes(make_tokenizer(), [str(path)], device="cuda")


def test_more_codes_than_fit_are_refused(path, make_tokenizer, monkeypatch):
    monkeypatch.setattr("neurofm.tokenizers.codes.MOST_CODES", 7)
    with pytest.raises(ConfigError, match=r"has 8 codes a level; a store holds 7\n.*fewer codes"):
        compute_codes(make_tokenizer(), [str(path)])


def test_the_command_computes_tells_and_removes(path, make_tokenizer, capsys):
    tokenizer = str(make_tokenizer())
    assert main(["codes", tokenizer, str(path), "--dry-run"]) == 0
    assert "codes of 2 recordings would be computed, 0 had them" in capsys.readouterr().out
    assert main(["codes", tokenizer, str(path)]) == 0
    assert re.search(r"2 recordings computed.*, 1 without a window", capsys.readouterr().out)
    assert main(["codes", tokenizer, str(path), "--remove"]) == 0
    assert "codes of 2 recordings deleted" in capsys.readouterr().out
    assert main(["codes", tokenizer, str(path), "--remove", "--dry-run"]) == 2
    assert "give one of them" in capsys.readouterr().err

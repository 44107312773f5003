"""The command: quick to answer, exact in its errors."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stores import recording_of, write_store

from neurofm.cli import SELF_CONTAINED, STAGES, main
from neurofm.contract import SignalContract

CONFIGS = Path(__file__).parents[1] / "configs"


def test_help_imports_neither_torch_nor_mne_nor_pydantic():
    code = (
        "import sys, neurofm.cli\n"
        "try: neurofm.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mne', 'lightning', 'pydantic', 'numpy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_neurofm_imports_nothing_heavy_and_lists_its_front_door():
    code = (
        "import sys, neurofm\n"
        "heavy = {'torch', 'mne', 'lightning', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy or 'load' not in dir(neurofm) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_attribute_of_the_package_is_an_attribute_error():
    import neurofm

    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        neurofm.lod  # noqa: B018


@pytest.mark.parametrize("stage", [*STAGES, *SELF_CONTAINED])
def test_every_subcommand_answers_help(stage, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([stage, "--help"])
    assert "key=value" in capsys.readouterr().out


CONFIG_FILES = [
    (p.parent.name, p.stem) for p in sorted(CONFIGS.glob("*/*.yaml")) if p.parent.name in STAGES
]


@pytest.mark.parametrize(("stage", "name"), CONFIG_FILES)
def test_every_config_builds_and_prints_itself(stage, name, capsys, tmp_path):
    assert main([stage, name, "--print-config"]) == 0
    printed = capsys.readouterr().out
    again = tmp_path / "again.yaml"
    again.write_text(printed)
    assert main([stage, str(again), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


def test_a_misspelt_key_is_refused_with_the_nearest_name(capsys):
    assert main(["pretrain", "tiny", "optim.lrr=1"]) == 2
    error = capsys.readouterr().err
    assert "unknown key 'optim.lrr'" in error
    assert "did you mean 'lr'?" in error


def test_a_misspelt_config_is_refused_with_the_nearest_name(capsys):
    assert main(["pretrain", "tinny"]) == 2
    assert "unknown pretrain config 'tinny'" in (error := capsys.readouterr().err)
    assert "did you mean 'tiny'?" in error


def test_inspect_says_what_it_was_not_given(capsys, tmp_path):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "neither a store (no zarr.json) nor a checkpoint" in capsys.readouterr().err


def test_a_value_may_be_changed_before_and_behind_an_option(capsys):
    assert main(["pretrain", "tiny", "steps=7", "--print-config", "seed=3"]) == 0
    out = capsys.readouterr().out
    assert "\nsteps: 7\n" in out
    assert "\nseed: 3\n" in out


@pytest.mark.parametrize(
    "words", [["pretrain", "tiny", "--dryrun", "seed=3"], ["inspect", "store", "seed=3"]]
)
def test_what_no_command_knows_is_refused(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "unrecognized arguments: " in capsys.readouterr().err


@pytest.fixture
def stores(tmp_path):
    """Three stores: of one person, of another, and of the first under another name."""
    for name, subject, seed in (("a", "1", 1), ("b", "2", 2), ("c", "x", 1)):
        contract = SignalContract(sfreq=100.0, band_hz=(0.5, 40.0), window_s=1.0)
        signal = 1e-5 * np.random.default_rng(seed).standard_normal((2, 3000))
        recording = recording_of(signal, ["Fz", "Cz"], 100.0, subject=subject)
        write_store(tmp_path / name, contract, recording)
    return [str(tmp_path / name) for name in "abc"]


def test_stores_are_merged_inspected_and_emptied_again(stores, tmp_path, capsys):
    both = str(tmp_path / "both")
    assert main(["merge", *stores[:2], "--into", both]) == 0
    assert capsys.readouterr().out == f"{both}: 2 recordings added\n"
    page, figure = tmp_path / "page.html", tmp_path / "sensors.png"
    wanted = ["--verify", "--recordings", "--report", str(page), "--plot", str(figure)]
    assert main(["inspect", both, *wanted]) == 0
    assert "verified: every sample of 2 recordings" in capsys.readouterr().out
    assert page.exists()
    assert figure.exists()
    assert main(["remove", both, "toy_sub-1", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"toy_sub-1\n{both}: 1 recordings would be removed\n"
    assert main(["remove", both, "toy_sub-*"]) == 0
    assert capsys.readouterr().out.endswith("2 recordings removed\n")
    assert main(["remove", both, "toy_sub-1"]) == 2
    assert "no recording 'toy_sub-1'" in capsys.readouterr().err


def test_a_merge_that_copies_shares_no_file(stores, tmp_path):
    assert main(["merge", stores[0], "--into", str(tmp_path / "copy"), "--copy"]) == 0
    shard = "recordings/toy_sub-1/signal/c/0/0"
    assert not (tmp_path / "copy" / shard).samefile(Path(stores[0]) / shard)


def test_an_audit_exits_with_one_if_anything_is_in_both(stores, capsys):
    a, b, c = stores
    assert main(["audit", a, b]) == 0
    assert "signals: none" in capsys.readouterr().out
    assert main(["audit", a, c]) == 1
    assert "toy_sub-1 from 0.00 s = toy_sub-x from 0.00 s, 30 s" in capsys.readouterr().out
    assert main(["audit", a, c, "--names-only"]) == 0
    assert main(["audit", a, "nowhere"]) == 2
    assert "there is no store at" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "merge", "remove", "audit"])
def test_every_command_on_stores_answers_help(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "URL" in capsys.readouterr().out

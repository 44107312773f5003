"""The command: quick to answer, exact in its errors."""

import subprocess
import sys
from pathlib import Path

import pytest

from neurofm.cli import SELF_CONTAINED, STAGES, main

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

"""Run by `make wheel` in an empty environment, outside the repository: the wheel is whole."""

import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import neurofm

home = Path(neurofm.__file__).parent
assert "site-packages" in str(home), f"not the installed wheel: {home}"
for stage in ("preprocessing", "tokenizers", "pretrain", "finetune", "configs"):
    folder = home / stage
    assert folder.is_dir() and not folder.is_symlink(), f"{stage} is missing from the wheel"
assert (home / "py.typed").exists()
assert files("neurofm").joinpath("configs/pretrain/tiny.yaml").is_file()

command = [str(Path(sys.executable).with_name("neurofm"))]
with tempfile.TemporaryDirectory() as folder:
    for arguments in (
        ["--help"],
        ["preprocess", "eegmat", "--print-config"],
        ["pretrain", "tiny", "--print-config"],
        ["finetune", "eegmat", "--print-config"],
        ["simulate", f"folder={folder}/cohort", "--dry-run"],
        ["demo", f"folder={folder}/demo", "--dry-run"],
    ):
        done = subprocess.run(command + arguments, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
sys.stdout.write("the wheel runs\n")

"""What is written beside every result: the resolved config, versions and git state."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from neurofm.config import Config
from neurofm.files import write_atomically

PACKAGES = ("neurofm", "torch", "lightning", "mne", "zarr", "numpy", "scikit-learn", "pyriemann")


def write_provenance(folder: Path, config: Config, *, seed: int | None = None) -> dict[str, Any]:
    """Write ``config.yaml`` and ``environment.json`` into a result's folder.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    config : Config
        The resolved config of the run.
    seed : int, optional
        The seed of the run.

    Returns
    -------
    dict
        What ``environment.json`` holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config_digest": config.digest(),
        "seed": seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "git": _git_state(),
    }
    write_atomically(folder / "config.yaml", config.to_yaml())
    write_atomically(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    return environment


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_state() -> dict[str, str | bool] | None:
    """Commit and cleanliness of the checkout neurofm runs from; None for an installed wheel."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True, timeout=10
        )
        return result.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None

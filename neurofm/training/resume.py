"""Where a run starts: at its first step, or where a snapshot left it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from neurofm.config import Config, load_config
from neurofm.errors import TrainingError
from neurofm.training.snapshots import read_snapshot, snapshots


def resume_point(
    config: Config, folder: Path, identity: dict[str, str], resume: Literal["auto", "never"]
) -> tuple[int, Path | None]:
    """Return the step to start at, and the snapshot to start from.

    Parameters
    ----------
    config : Config
        Of the run.
    folder : Path
        Of the run; snapshots are below it.
    identity : dict
        Digests of ``config`` and ``data``, which the snapshot must share.
    resume : "auto" or "never"
        Whether a run that has begun may be continued.

    Raises
    ------
    TrainingError
        If the folder holds another run, or one that must not be continued.
    """
    found = snapshots(folder / "snapshots")
    if not found:
        return 0, None
    if resume == "never":
        raise TrainingError(
            f"{folder} already holds a run with snapshots up to {found[-1].name}",
            hint="choose another folder, or set resume=auto to continue it",
        )
    snapshot = read_snapshot(found[-1])
    saved = snapshot["neurofm"]
    if saved["config"] != identity["config"]:
        raise TrainingError(
            f"{folder} holds a run of another config{_differences(config, folder)}",
            hint="choose another folder for this config",
        )
    if saved["data"] != identity["data"]:
        raise TrainingError(
            f"{folder}: the stores have changed since {found[-1].name} was written, so the order "
            "of samples would change in the middle of the run",
            hint="start a new folder, or bring the stores back to what they were",
        )
    return int(snapshot["global_step"]), found[-1]


def _differences(config: Config, folder: Path) -> str:
    """Name the keys in which the config beside a run differs from this one."""
    path = folder / "config.yaml"
    if not path.exists():
        return ""
    before, now = load_config(type(config), path).to_dict(), config.to_dict()
    keys = [key for key in now if before[key] != now[key]]
    return f"; they differ in {', '.join(keys)}" if keys else ""


def restore_objective(objective: nn.Module, snapshot: Path) -> None:
    """Give an objective the weights it had when a snapshot of its run was written."""
    prefix = "objective."
    state = read_snapshot(snapshot)["state_dict"]
    objective.load_state_dict({k.removeprefix(prefix): v for k, v in state.items()})

"""The demo: every stage, on a simulated cohort, in minutes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from neurofm.config import Config, load_config
from neurofm.finetune import run as finetune
from neurofm.finetune.config import FinetuneConfig
from neurofm.finetune.run import FinetuneResult
from neurofm.preprocessing import run as preprocessing
from neurofm.pretrain import run as pretrain
from neurofm.simulate import run as simulate
from neurofm.simulate.config import CohortConfig, SimulateConfig

# config under configs/preprocess/, and the store it fills
STORES = {"demo": "eeg", "demo_meg_seeg": "meg_seeg"}


class DemoConfig(Config):
    """The whole way from files to a report, in one folder.

    What the stages do is in ``configs/preprocess/demo.yaml``, ``demo_meg_seeg.yaml``,
    ``configs/pretrain/demo.yaml`` and ``configs/finetune/demo.yaml``.

    Parameters
    ----------
    folder : str
        Where everything goes. What is finished there is not done again.
    seed : int
        Seed of the cohort and of pretraining. The stages' settings were chosen on the cohort
        of seed 0; by default another is scored.
    workers : int or "auto"
        Processes that preprocess.
    cohort : CohortConfig
        Who is simulated.
    steps : int, optional
        Pretraining steps; by default those of the config.
    """

    folder: str = Field(default="demo", min_length=1)
    seed: int = Field(default=1, ge=0)
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    cohort: CohortConfig = CohortConfig()
    steps: int | None = Field(default=None, gt=0)


CONFIG = DemoConfig


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What came out.

    Attributes
    ----------
    folder : Path
        Holds cohort, stores, pretrain and finetune.
    finetune : FinetuneResult
        The scores.
    seconds : dict of str to float
        How long each stage took.
    """

    folder: Path
    finetune: FinetuneResult
    seconds: dict[str, float]

    def summary(self) -> str:
        """Return the table of scores, the report's path and the time of each stage."""
        times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in self.seconds.items())
        return (
            f"{self.finetune.summary()}\ntime:   {times}, {sum(self.seconds.values()):.0f} s in all"
        )


def plan(config: DemoConfig) -> str:
    """Say what `run` would do."""
    folder = Path(config.folder)
    lines = [simulate.plan(_simulation(config))]
    lines += [f"preprocess {name} -> {folder / 'stores' / s}" for name, s in STORES.items()]
    lines.append(f"pretrain demo: {_pretraining(config).steps} steps -> {folder / 'pretrain'}")
    models = ", ".join("/".join(model.key) for model in _finetuning(config).models)
    lines.append(f"finetune demo: {models} -> {folder / 'finetune'}")
    return "\n".join(lines)


def run(config: DemoConfig, say: Callable[[str], None] | None = None) -> DemoResult:
    """Simulate, preprocess, pretrain, fine-tune, report.

    Parameters
    ----------
    config : DemoConfig
        Where, and how much.
    say : callable, optional
        Told what is being done and what came of it; by default that goes to stderr.

    Returns
    -------
    DemoResult
        The scores and where everything is.

    Raises
    ------
    NeurofmError
        As the stages do; `ConfigError` if the folder holds something else.
    """
    say = say or _to_stderr
    seconds: dict[str, float] = {}

    def stage(name: str, work: Callable[..., Any], *settings: Config) -> Any:
        say(f"== {name}")
        start = time.monotonic()
        for each in settings:
            result = work(each)
            if name != "finetune":  # its table is the end of the demo
                say(result.summary())
        seconds[name] = time.monotonic() - start
        return result

    stage("simulate", simulate.run, _simulation(config))
    stage("preprocess", preprocessing.run, *_preprocessing(config))
    stage("pretrain", pretrain.run, _pretraining(config))
    scores = stage("finetune", finetune.run, _finetuning(config))
    return DemoResult(Path(config.folder), scores, seconds)


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


# ---------------------------------------------------------------------------------------
# The stages' configs, moved into the folder


def _simulation(config: DemoConfig) -> SimulateConfig:
    folder = str(Path(config.folder) / "cohort")
    return SimulateConfig(**config.cohort.model_dump(), folder=folder, seed=config.seed)


def _preprocessing(config: DemoConfig) -> list[preprocessing.PreprocessConfig]:
    folder = Path(config.folder)
    found = []
    for name, store in STORES.items():
        values = {
            "root": str(folder / "cohort"),
            "store": str(folder / "stores" / store),
            "workers": config.workers,
        }
        found.append(
            load_config(preprocessing.CONFIG, name, _overrides(values), stage="preprocess")
        )
    return found


def _pretraining(config: DemoConfig) -> pretrain.PretrainConfig:
    folder = Path(config.folder)
    values: dict[str, Any] = {
        "stores": [str(folder / "stores" / store) for store in STORES.values()],
        "folder": str(folder / "pretrain"),
        "seed": config.seed,
    }
    if config.steps is not None:
        values["steps"] = config.steps
    return load_config(pretrain.CONFIG, "demo", _overrides(values), stage="pretrain")


def _finetuning(config: DemoConfig) -> FinetuneConfig:
    folder = Path(config.folder)
    values = {
        "stores": [str(folder / "stores" / "eeg")],
        "checkpoint": str(folder / "pretrain" / "checkpoint"),
        "folder": str(folder / "finetune"),
    }
    return load_config(finetune.CONFIG, "demo", _overrides(values), stage="finetune")


def _overrides(values: dict[str, Any]) -> Sequence[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]

"""Another device on the same sources: a tokenizer of places beside one of names.

Simulated people wear two montages at once, of which no sensor is in both. A BrainTokenizer is
trained on the first alone, twice: with sensors embedded by where they are, and by what they are
called. On people whom neither saw, both are asked for the second montage: from the second's own
channels, and from the first's. Everything else of the two is the same: layers, steps, windows, and
that sources begin at sensors (on the head, or at the names of the first montage).

    python benchmarks/device_transfer.py                        seven minutes of one core
    python benchmarks/device_transfer.py --seeds 5 --write      and put the table into the docs
    python benchmarks/device_transfer.py --seeds 2 --pairs eeg --steps 200
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.signal
import scipy.stats
import torch
from torch import Tensor, nn

from neurofm.contract import SignalContract
from neurofm.embedding import make_batch
from neurofm.nn.place_table import CodeTable
from neurofm.sensors import Sensors, sensors_from_info
from neurofm.signals import Batch
from neurofm.simulate.activity import make_activity, make_blinks
from neurofm.simulate.anatomy import TEN_TWENTY, Anatomy, make_anatomy
from neurofm.simulate.config import SimulateConfig, rng_for
from neurofm.simulate.devices import DEVICES, make_info
from neurofm.simulate.forward import gain
from neurofm.tokenizers.brain import BrainTokenizerConfig
from neurofm.tokenizers.brain_coder import BrainCoder
from neurofm.tokenizers.brain_parts import correlation
from neurofm.tokenizers.brain_start import start_sources
from neurofm.tokenizers.reconstruction import ReconstructionConfig
from neurofm.tokenizers.spline import spline_matrix
from neurofm.training.optim import OptimConfig
from neurofm.training.seeding import derived_seed, step_generator

PAGE = Path(__file__).parents[1] / "docs" / "tokenize.md"
BEGIN, END = "<!-- device_transfer.py: begin -->", "<!-- device_transfer.py: end -->"
CONTRACT = SignalContract(sfreq=128.0, band_hz=(0.5, 40.0), window_s=0.5)
OTHER_CAP = (
    "Fpz AF3 AF4 F5 F1 F2 F6 FT7 FC3 FC1 FCz FC2 FC4 FT8 C5 C1 C2 C6 TP7 CP3 CP1 CPz CP2 CP4 TP8 "
    "P5 P1 P2 P6 PO3 POz PO4"
)
FORGET = 0.1  # share of names that training hides, so that there is a row for a name never met
PAIRS = {
    "eeg": "19 electrodes of the 10-20 system → 32 others",
    "meg": "32 magnetometers → the 32 others of the helmet",
}
METHODS = {
    "places": "sensors by place",
    "names": "by name, one row for all new names",
    "untrained rows": "by name, a fresh row for each new name",
    "random": "by place, not trained",
    "spline": "spherical splines",
    "nearest": "the nearest sensor",
    "chance": "by place, another window's signal",
}
TASKS = {"first": "first from first", "own": "second from second", "across": "second from first"}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is simulated, trained and measured."""

    train: int = 10
    test: int = 4
    seconds: float = 60.0
    steps: int = 300
    windows: int = 14
    inner: int = 64
    n_codes: int = 256


# ---------------------------------------------------------------------------------------
# People with two montages


@dataclass(frozen=True, eq=False)
class Person:
    """Windows (N, C, T) of two montages, channels of the first first; `unit` (C,) is their SD."""

    signal: np.ndarray
    unit: np.ndarray
    sensors: Sensors
    first: np.ndarray

    def batch(self, rows: Sequence[int] | slice, channels: np.ndarray) -> Batch:
        """Return windows of some channels."""
        signal = self.signal[rows][:, channels]
        return make_batch(signal, self.sensors.select(np.flatnonzero(channels)), CONTRACT.sfreq)


def wear(
    pair: str, anatomy: Anatomy, rng: np.random.Generator
) -> tuple[Sensors, np.ndarray, np.ndarray, float]:
    """Return sensors, what they measure (C, sources), which are of the first, and their noise."""
    if pair == "meg":
        device = DEVICES["meg"]
        info = make_info(device, anatomy, rng)
        order = np.r_[0 : len(info["chs"]) : 2, 1 : len(info["chs"]) : 2]
        sensors, field = sensors_from_info(info).select(order), gain(device, info, anatomy)[order]
        return sensors, field, np.arange(len(order)) < len(order) // 2, device.noise
    parts, fields = [], []
    for names in (TEN_TWENTY, OTHER_CAP):
        device = replace(DEVICES["eeg_a"], ch_names=tuple(names.split()), reference=("M1", "M2"))
        info = make_info(device, anatomy, rng)
        field = gain(device, info, anatomy)
        fields.append(field - field.mean(0))  # each cap has an average reference of its own
        parts.append(sensors_from_info(info, range(len(field))))
    first = np.arange(sum(map(len, parts))) < len(parts[0])
    return Sensors.concatenate(parts), np.concatenate(fields), first, device.noise


def simulate(pair: str, seed: int, number: int, seconds: float) -> Person:
    """Return a person, standardised as preprocessing would."""
    config = SimulateConfig(seed=seed)
    anatomy = make_anatomy(config, f"transfer-{pair}", number)
    rng = rng_for(seed, "transfer", pair, number)
    sensors, field, first, noise = wear(pair, anatomy, rng)
    n_times, sfreq = round(seconds * CONTRACT.sfreq), CONTRACT.sfreq
    moments = make_activity(anatomy, (), make_blinks(seconds, rng), n_times, sfreq, rng)
    signal = field @ moments + noise * rng.standard_normal((len(field), n_times))
    band = scipy.signal.butter(4, CONTRACT.band_hz, "bandpass", fs=sfreq, output="sos")
    signal = scipy.signal.sosfiltfilt(band, signal)
    unit = scipy.stats.median_abs_deviation(signal, axis=1, scale="normal")
    standard = np.clip(signal / unit[:, None], -CONTRACT.clip, CONTRACT.clip)
    windows = standard.reshape(len(field), -1, CONTRACT.n_times).transpose(1, 0, 2)
    return Person(windows.astype(np.float32), unit, sensors, first)


# ---------------------------------------------------------------------------------------
# Two tokenizers


class NamedSensors(nn.Module):
    """Sensors as rows of a table, through the same layers that follow a place."""

    def __init__(self, places: nn.Module, codes: Sequence[int], width: int):
        super().__init__()
        self.table = CodeTable(codes, width)
        self.kinds, self.mix, self.norm = places.kinds, places.mix, places.norm

    def forward(self, code: Tensor, kind: Tensor) -> Tensor:
        """Embed (B, C) channels, (B, C, E)."""
        x = self.table(code) + self.kinds(kind)
        return self.norm(x + self.mix(x))


class NamedCoder(BrainCoder):
    """A BrainTokenizer to which a sensor is its name; `know` has to come first."""

    named: NamedSensors

    def know(self, sensors: Sensors, first: np.ndarray) -> None:
        """Make a row for every name; sources begin at names of the first montage."""
        self.named = NamedSensors(self.sensors, sensors.name_code.tolist(), self.config.width)
        n_sources = self.config.n_sources
        at = np.flatnonzero(first)[np.linspace(0, first.sum() - 1, n_sources).astype(int)]
        code, kind = torch.from_numpy(sensors.name_code[at]), torch.from_numpy(sensors.kind[at])
        start_sources(self, self.named(code[None], kind[None].long())[0].detach())

    def _sensors(self, batch: Batch, moved: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return self.named(batch.name_code, batch.kind)


def build(size: Size, person: Person, *, by_name: bool, seed: int) -> BrainCoder:
    """Return a fresh tokenizer."""
    torch.manual_seed(derived_seed(seed, "init"))
    config = BrainTokenizerConfig(
        patch_s=0.5, ratios=(8, 4), inner=size.inner, n_codes=size.n_codes, straight=False
    )
    coder = config.build_parts(CONTRACT)
    if not by_name:
        return coder
    named = NamedCoder(coder.config)
    named.load_state_dict(coder.state_dict())
    named.know(person.sensors, person.first)
    return named


def train(size: Size, coder: BrainCoder, people: list[Person], seed: int) -> None:
    """Train on the first montage alone, as `neurofm tokenize` does."""
    objective = ReconstructionConfig().build(coder.train())
    optimiser, schedule = OptimConfig(lr=3e-3, warmup_steps=30).build(objective, size.steps)
    for step in range(size.steps):
        draw = step_generator(seed, step, "device transfer")
        person = people[int(torch.randint(len(people), (), generator=draw))]
        rows = torch.randint(len(person.signal), (size.windows,), generator=draw)
        batch = hide_names(person.batch(rows.tolist(), person.first), FORGET, draw)
        optimiser.zero_grad()
        objective(batch, draw).total.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    coder.eval()


def hide_names(batch: Batch, share: float, draw: torch.Generator | None = None) -> Batch:
    """Return the batch with the names of some channels forgotten; the places stay."""
    hidden = torch.rand(batch.kind.shape, generator=draw) < share
    return replace(batch, name_code=batch.name_code.masked_fill(hidden, 0))


# ---------------------------------------------------------------------------------------
# What comes back


def likeness(found: Tensor, target: Tensor) -> float:
    """Return the mean Pearson correlation of windows and channels (N, C, T)."""
    return float(correlation(found, target).mean())


@torch.no_grad()
def of_coder(coder: BrainCoder, person: Person, *, new_names: bool = False) -> dict[str, float]:
    """Return the scores of `TASKS`, and ``chance``."""
    every = np.ones(len(person.first), bool)
    batch, first = person.batch(slice(None), every), torch.from_numpy(person.first)
    if not new_names:
        batch = replace(batch, name_code=batch.name_code.masked_fill(~first, 0))
    shape = batch.kind.shape
    found = {
        name: coder.rebuild(batch, seen.expand(shape))
        for name, seen in (("first", first), ("second", ~first))
    }
    target = found["first"].target[:, :, 0]
    own, across = found["second"].signal[:, ~first, 0], found["first"].signal[:, ~first, 0]
    return {
        "first": likeness(found["first"].signal[:, first, 0], target[:, first]),
        "own": likeness(own, target[:, ~first]),
        "across": likeness(across, target[:, ~first]),
        "chance": likeness(across, target[:, ~first].roll(len(target) // 2, 0)),
    }


def of_matrix(person: Person, matrix: np.ndarray) -> dict[str, float]:
    """Return the score of the second montage as a linear map (C2, C1) of the first."""
    first = person.first
    # in a unit of about one: a correlation does not mind, if it is not tiny
    volts = person.signal[:, first] * (person.unit[first, None] / person.unit.mean())
    guess = torch.from_numpy(matrix @ volts)
    if person.sensors.kinds == ("eeg",):
        guess = guess - guess.mean(1, keepdim=True)  # the second has an average reference too
    return {"across": likeness(guess, torch.from_numpy(person.signal[:, ~first]).double())}


def spline(person: Person) -> dict[str, float]:
    """Return the score of spherical splines, of electrodes."""
    targets, matrix = spline_matrix(person.sensors, person.first)
    return of_matrix(person, matrix[:, person.first]) if len(targets) else {}


def nearest(person: Person) -> dict[str, float]:
    """Return the score of the nearest sensor."""
    place, first = person.sensors.position.astype(float), person.first
    far = np.linalg.norm(place[~first][:, None] - place[first][None], axis=-1)
    return of_matrix(person, np.eye(first.sum())[far.argmin(1)])


def scores(pair: str, seed: int, size: Size) -> Iterator[tuple[str, str, float]]:
    """Yield method, task and score of one seed: another cohort, other weights."""
    cohort = [simulate(pair, seed, n, size.seconds) for n in range(size.train + size.test)]
    people, strangers = cohort[: size.train], cohort[size.train :]
    places, names = (build(size, cohort[0], by_name=b, seed=seed) for b in (False, True))
    found = {"random": [of_coder(places.eval(), one) for one in strangers]}
    for coder in (places, names):
        train(size, coder, people, seed)
    found["places"] = [of_coder(places, one) for one in strangers]
    found["names"] = [of_coder(names, one) for one in strangers]
    found["untrained rows"] = [of_coder(names, one, new_names=True) for one in strangers]
    found["spline"] = [spline(one) for one in strangers]
    found["nearest"] = [nearest(one) for one in strangers]
    chance = statistics.mean(one.pop("chance") for one in found["places"])
    yield "chance", "across", chance
    for method, rows in found.items():
        for task in TASKS:
            if task in rows[0]:
                yield method, task, statistics.mean(row[task] for row in rows)


# ---------------------------------------------------------------------------------------
# The table


def interval(values: Sequence[float]) -> str:
    """Return the mean and its 95 % interval over seeds."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    reach = scipy.stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values)
    return f"{mean:.3f} ± {reach / len(values) ** 0.5:.3f}"


def table(pair: str, found: dict[tuple[str, str], list[float]]) -> str:
    """Return a table of one pair, and the difference that matters."""
    n_seeds = len(found["places", "across"])
    lines = [
        f"**{PAIRS[pair]}**, {n_seeds} seed{'s' * (n_seeds > 1)}:",
        "",
        f"| sensors | {' | '.join(TASKS.values())} |",
        "|---|--:|--:|--:|",
    ]
    for method, what in METHODS.items():
        if (method, "across") in found:
            cells = [interval(v) if (v := found.get((method, t))) else "" for t in TASKS]
            lines.append(f"| {what} | {' | '.join(cells)} |")
    apart = []
    for task in ("own", "across"):
        rival = max(("names", "untrained rows"), key=lambda m: statistics.mean(found[m, task]))
        pairs = zip(found["places", task], found[rival, task], strict=True)
        apart.append(f"{TASKS[task]} {interval([a - b for a, b in pairs])}")
    lines += ["", f"Places less the better of the two by name: {', '.join(apart)}."]
    return "\n".join(lines)


def put_into_page(text: str) -> None:
    """Replace what stands between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> int:
    """Print a table for each pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Size.steps)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--write", action="store_true", help="put the tables into docs/tokenize.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size, tables = Size(steps=args.steps), []
    for pair in args.pairs:
        found: dict[tuple[str, str], list[float]] = {}
        for seed in range(args.seeds):
            begin = time.process_time()
            for method, task, score in scores(pair, seed, size):
                found.setdefault((method, task), []).append(score)
            last = {m: round(found[m, "across"][-1], 3) for m in METHODS if (m, "across") in found}
            print(f"{pair} seed {seed}: {time.process_time() - begin:.0f} s, {last}", flush=True)
        tables.append(table(pair, found))
        print(f"\n{tables[-1]}\n", flush=True)
    if args.write:
        put_into_page("\n\n".join(tables))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

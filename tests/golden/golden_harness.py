"""Reference fixtures against our parts: read, run, compare.

A fixture is a folder with ``fixture.json``, ``io.safetensors`` and, unless it is a bare
operation, ``weights.safetensors``. An adapter, ``adapters/<model>.py``, says how our part answers:

MODELS : tuple of str
    ``fixture.json["model"]`` of the fixtures it is for.
PARTS : dict of str to tuple of str
    Parts used, by model, for the table; only where PUBLISHED has no entry (bare operations).
OMITTED : dict of str to str, optional
    Regular expressions of ``mid.*`` tensors that our part has no counterpart of, with the reason.
run(entry, fixture, weights, inputs) -> dict of str to Tensor
    Tensors under the fixture's names (``mid.*``, ``output.*``, ``loss.*``). `entry` is
    PUBLISHED[model] or None, `inputs` has the ``input.`` prefix removed.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path

import adapters
import torch
from safetensors.torch import load_file

from neurofm.published.table import PUBLISHED

ROOT = Path(__file__).parents[2]


def golden_folder():
    """Where the fixtures are; it need not exist."""
    return Path(os.environ.get("NEUROFM_GOLDEN", ROOT.parent / "shared" / "golden"))


def fixtures(folder):
    """Every fixture below a folder, by its path relative to it."""
    return sorted(p.parent for p in folder.glob("**/fixture.json"))


def adapters_by_model():
    found = {}
    for module in pkgutil.iter_modules(adapters.__path__):
        adapter = importlib.import_module(f"adapters.{module.name}")
        for model in adapter.MODELS:
            if model in found:
                raise ValueError(f"two adapters are for {model!r}")
            found[model] = adapter
    return found


@dataclass(frozen=True)
class Comparison:
    """How near our part came to one fixture."""

    folder: str
    model: str
    parts: tuple
    errors: dict  # tensor: (largest absolute difference, largest difference over tolerance)
    omitted: dict  # tensor: reason
    problems: tuple
    atol: float

    @property
    def worst(self):
        """Largest absolute difference over all floating tensors."""
        return max((absolute for absolute, _ in self.errors.values()), default=0.0)

    @property
    def share(self):
        """Largest difference as a share of what is tolerated."""
        return max((share for _, share in self.errors.values()), default=0.0)


def model_of(folder):
    return json.loads((folder / "fixture.json").read_text(encoding="utf-8"))["model"]


def compare(folder, adapter):
    """Run our part on a fixture and compare every tensor of it."""
    fixture = json.loads((folder / "fixture.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "io.safetensors")
    at = folder / "weights.safetensors"
    weights = load_file(at) if at.exists() else {}
    inputs = {k.removeprefix("input."): v for k, v in tensors.items() if k.startswith("input.")}
    entry = PUBLISHED.get(fixture["model"])
    with torch.no_grad():
        found = adapter.run(entry, fixture, weights, inputs)

    tolerance = fixture["suggested_tolerance"]
    left_out = getattr(adapter, "OMITTED", {})
    errors, omitted, problems = {}, {}, []
    for name in fixture["tensors"]:  # in the order they are listed
        if name.startswith("input."):
            continue
        reason = next((why for p, why in left_out.items() if re.fullmatch(p, name)), None)
        if name not in found and name.startswith("mid.") and reason:
            omitted[name] = reason
        elif name not in found:
            problems.append(f"{name} is not returned")
        else:
            error = _difference(found[name].detach(), tensors[name], tolerance)
            if isinstance(error, str):
                problems.append(f"{name} {error}")
            else:
                errors[name] = error
                if not error[1] <= 1:
                    problems.append(f"{name} differs by {error[0]:.2g}, {error[1]:.2g} x tolerated")
    parts = entry.parts if entry else adapter.PARTS[fixture["model"]]
    return Comparison(
        folder.name,
        fixture["model"],
        tuple(parts),
        errors,
        omitted,
        tuple(problems),
        tolerance["atol"],
    )


def _difference(actual, expected, tolerance):
    if actual.shape != expected.shape:
        return f"has shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    if not expected.is_floating_point():
        wrong = int((actual.to(expected.dtype) != expected).sum())
        return f"differs in {wrong} of {expected.numel()} places" if wrong else (0.0, 0.0)
    gap = (actual.double() - expected.double()).abs()
    if not gap.isfinite().all():
        return "is not finite"
    allowed = tolerance["atol"] + tolerance["rtol"] * expected.double().abs()
    return (float(gap.max()), float((gap / allowed).max())) if gap.numel() else (0.0, 0.0)


@contextlib.contextmanager
def recorded(module, names):
    """Collect what submodules return: `names` maps a tensor's name to a submodule's path.

    The last call counts; outputs that are tuples give their first element.
    """
    seen, handles = {}, []

    def keeper(name):
        def keep(_module, _args, output):
            seen[name] = output[0] if isinstance(output, tuple) else output

        return keep

    for name, path in names.items():
        handles.append(module.get_submodule(path).register_forward_hook(keeper(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()

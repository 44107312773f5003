"""The house: links, floors, one installed name (design: the house)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINKED = ("configs", "preprocessing", "tokenizers", "pretrain", "finetune")

# Each room with its floor. On floors 0, 3 and 5 a file may also import those left of it.
FLOORS = [
    [
        "errors",
        "files",
        "config",
        "kinds",
        "electrodes",
        "sphere",
        "mne_channel",
        "sensors",
        "signals",
        "readers",
        "contract",
    ],
    ["store", "data", "nn", "training", "report", "simulate"],
    ["preprocessing", "tokenizers", "backbones"],
    ["published", "encoder", "embedding", "witness", "checkpoint"],
    ["pretrain", "finetune"],
    ["interop", "inspection", "demo", "cli", "__init__"],
]
ORDERED = (0, 3, 5)


def python_files():
    return sorted(
        p for p in ROOT.glob("*/**/*.py") if p.parts[len(ROOT.parts)] in ("neurofm", *LINKED)
    )


def room_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "neurofm" else parts[0]


def floor_of(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "neurofm" and len(parts) > 1:
                yield parts[1]


def allowed(here, there):
    if here == there:
        return True
    below, above = floor_of(there), floor_of(here)
    if below != above:
        return below < above
    return above in ORDERED and FLOORS[above].index(there) < FLOORS[above].index(here)


@pytest.mark.parametrize("folder", LINKED)
def test_stage_folders_are_relative_links_inside_the_package(folder):
    link = ROOT / "neurofm" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder


@pytest.mark.parametrize("folder", LINKED)
def test_linked_folders_are_no_packages_of_their_own(folder):
    assert not (ROOT / folder / "__init__.py").exists()


def test_every_file_belongs_to_a_known_room():
    known = {room for rooms in FLOORS for room in rooms}
    assert {room_of(path) for path in python_files()} <= known


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_a_floor(path):
    here = room_of(path)
    known = {room for rooms in FLOORS for room in rooms}
    wrong = {room for room in imported_rooms(path) if room in known and not allowed(here, room)}
    assert not wrong, f"{path.relative_to(ROOT)} ({here}) must not import {sorted(wrong)}"


def test_pretrain_and_finetune_do_not_import_each_other():
    assert not allowed("pretrain", "finetune")
    assert not allowed("finetune", "pretrain")


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_readable_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_one_name_is_installed():
    from importlib.metadata import distribution

    assert (distribution("neurofm").read_text("top_level.txt") or "").split() == ["neurofm"]


def test_import_tokenizers_does_not_find_ours():
    code = "import importlib.util as u; s = u.find_spec('tokenizers'); print(s and s.origin)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == "None" or "site-packages" in found  # a namespace folder has no origin

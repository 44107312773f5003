"""Our parts against the originals' numbers, fixture by fixture."""

import os

import golden_harness as harness
import pytest
import torch
from safetensors.torch import save_file

from neurofm.published.table import PUBLISHED

GOLDEN = harness.golden_folder()
ADAPTERS = harness.adapters_by_model()
FOLDERS = harness.fixtures(GOLDEN)
READY = [folder for folder in FOLDERS if harness.model_of(folder) in ADAPTERS]


@pytest.fixture(scope="module")
def golden():
    """The folder of fixtures; without it the tests are skipped, with the reason."""
    if FOLDERS:
        return GOLDEN
    reason = f"no reference fixtures at {GOLDEN}; set NEUROFM_GOLDEN"
    if os.environ.get("NEUROFM_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.golden
@pytest.mark.parametrize("folder", READY, ids=lambda p: str(p.relative_to(GOLDEN)))
def test_our_part_gives_the_numbers_of_the_original(folder):
    result = harness.compare(folder, ADAPTERS[harness.model_of(folder)])
    assert not result.problems, "\n".join((result.folder, *result.problems))
    assert result.errors


@pytest.mark.golden
def test_every_fixture_has_its_part(golden):
    missing = {harness.model_of(folder) for folder in FOLDERS} - set(ADAPTERS)
    assert not missing


@pytest.mark.golden
def test_every_published_model_is_compared():
    assert set(PUBLISHED) <= set(ADAPTERS)


# ---------------------------------------------------------------------------------------
# The comparison itself


class Echo:
    """An adapter that answers what it is told to."""

    PARTS = {"echo": ("none",)}
    OMITTED = {r"mid\.hidden": "fused away"}

    def __init__(self, **answers):
        self.answers = answers

    def run(self, entry, fixture, weights, inputs):
        return self.answers


@pytest.fixture
def fixture_folder(tmp_path):
    names = ("mid.hidden", "mid.seen", "output.y", "output.codes", "loss.total")
    tensors = dict.fromkeys(names, torch.ones(3))
    tensors["output.codes"] = torch.tensor([1, 2, 3])
    save_file({k: v.clone() for k, v in tensors.items()}, tmp_path / "io.safetensors")
    (tmp_path / "fixture.json").write_text(
        '{"model": "echo", "suggested_tolerance": {"rtol": 1e-4, "atol": 1e-5}, "tensors": {'
        + ", ".join(f'"{name}": {{}}' for name in names)
        + "}}"
    )
    return tmp_path, tensors


def problems(folder, answers):
    return harness.compare(folder, Echo(**answers)).problems


def test_equal_tensors_pass_and_an_omission_keeps_its_reason(fixture_folder):
    folder, tensors = fixture_folder
    del tensors["mid.hidden"]
    result = harness.compare(folder, Echo(**tensors))
    assert result.problems == ()
    assert result.omitted == {"mid.hidden": "fused away"}
    assert result.worst == 0


@pytest.mark.parametrize("name", ["mid.seen", "output.y", "loss.total"])
def test_a_difference_is_found_wherever_it_is(fixture_folder, name):
    folder, tensors = fixture_folder
    tensors[name] = tensors[name] + torch.tensor([0, 0, 2e-4])
    assert problems(folder, tensors) == (f"{name} differs by 0.0002, 1.8 x tolerated",)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("output.codes", torch.tensor([1, 2, 4]), "output.codes differs in 1 of 3 places"),
        ("output.y", torch.ones(1), r"output.y has shape (1,), expected (3,)"),
        ("output.y", torch.full((3,), float("nan")), "output.y is not finite"),
    ],
)
def test_what_is_wrong_is_said(fixture_folder, name, value, message):
    folder, tensors = fixture_folder
    assert problems(folder, {**tensors, name: value}) == (message,)


@pytest.mark.parametrize("name", ["mid.seen", "output.y", "loss.total"])
def test_a_tensor_that_is_not_returned_is_a_problem(fixture_folder, name):
    folder, tensors = fixture_folder
    del tensors[name]
    assert problems(folder, tensors) == (f"{name} is not returned",)

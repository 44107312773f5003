"""Fixtures that every room shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# a machine that does something else meanwhile is no fault of what is tested
settings.register_profile("neurofm", deadline=None)
settings.load_profile("neurofm")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # tiny models: threads that wait for each other cost more than they bring
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data():
    """Folder of real recordings; the test is skipped, with the reason, where there is none."""
    folder = Path(os.environ.get("NEUROFM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if (folder / "MANIFEST.md").exists():
        return folder
    reason = f"no real recordings at {folder}; set NEUROFM_TEST_DATA"
    if os.environ.get("NEUROFM_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
